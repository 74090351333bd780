"""Sphere AdamW against its formula written anew in numpy, torch's AdamW, autograd and plain trigonometry; float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nemo_summer.optim.config import OptimConfig
from nemo_summer.optim.sphere import SphereAdamW, angle_of_chord, rotation_band, tangent

ROWS, LENGTH = 5, 7


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def optimizer_on(weight: Tensor, sphere: bool = True, lr_mult: float = 1.0, **cfg: float) -> SphereAdamW:
    return SphereAdamW([{"params": [weight], "sphere": sphere, "lr_mult": lr_mult}], OptimConfig(**cfg))


def steps_in_numpy(w: np.ndarray, gradients: list[np.ndarray], lr: float, b1: float, b2: float, eps: float) -> list:
    """Summer-22B eq. 1-7, row by row, with the projector I - w w^T as a matrix; no line of it is shared with ours."""
    w = w / np.sqrt((w**2).sum(axis=1))[:, np.newaxis]
    m, v, path = np.zeros_like(w), np.zeros_like(w), []
    for t, gradient in enumerate(gradients, start=1):
        for r in range(len(w)):
            projector = np.eye(w.shape[1]) - np.outer(w[r], w[r])
            g = projector @ gradient[r]
            m[r] += (1 - b1) * (g - m[r])
            v[r] += (1 - b2) * (np.square(g) - v[r])
            moved = w[r] - lr * (m[r] / (1 - b1**t)) / (np.sqrt(v[r] / (1 - b2**t)) + eps)
            w[r] = moved / math.hypot(*moved)
        path.append(w.copy())
    return path


def test_every_step_is_that_of_the_formula() -> None:
    weight = torch.nn.Parameter(randn(ROWS, LENGTH, seed=0))
    gradients = [randn(ROWS, LENGTH, seed=10 + t) for t in range(30)]
    start, b1, b2, eps = weight.detach().numpy().copy(), 0.9, 0.95, 1e-8
    path = steps_in_numpy(start, [g.numpy() for g in gradients], 0.03 * 0.5, b1, b2, eps)
    optimizer = optimizer_on(weight, lr=0.03, lr_mult=0.5, beta1=b1, beta2=b2, eps=eps, clip_grad=0)
    for gradient, wanted in zip(gradients, path, strict=True):
        weight.grad = gradient
        optimizer.step()
        assert np.abs(weight.detach().numpy() - wanted).max() < 1e-12


def test_free_parameters_take_the_steps_of_torch_adamw() -> None:
    ours, theirs = (torch.nn.Parameter(randn(ROWS, LENGTH, seed=1)) for _ in range(2))
    optimizer = optimizer_on(ours, sphere=False, lr=0.01, lr_mult=0.3, clip_grad=0.5)
    reference = torch.optim.AdamW([theirs], lr=0.01 * 0.3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    for t in range(50):
        gradient = randn(ROWS, LENGTH, seed=100 + t) * (0.05 if t % 3 else 1.0)  # some are clipped, some are not
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        norm = torch.nn.utils.clip_grad_norm_([theirs], 0.5)
        optimizer.step()
        reference.step()
        assert optimizer.grad_norm == pytest.approx(float(norm), rel=1e-12)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_rows_keep_length_one() -> None:
    weight = torch.nn.Parameter(randn(ROWS, LENGTH, seed=2) * 3)
    optimizer = optimizer_on(weight, lr=0.2, clip_grad=0)
    for t in range(200):
        weight.grad = randn(ROWS, LENGTH, seed=t)
        optimizer.step()
        assert (weight.detach().norm(dim=1) - 1).abs().max() < 1e-12


def test_the_tangent_is_the_gradient_of_a_loss_that_sees_directions_only() -> None:
    # d/dw f(w / |w|) at |w| = 1 has no part along w; autograd knows nothing of projections
    weight = randn(ROWS, LENGTH, seed=3)
    weight = (weight / weight.norm(dim=1, keepdim=True)).requires_grad_()
    target = randn(ROWS, LENGTH, seed=4)

    def loss(w: Tensor) -> Tensor:
        return ((w - target) ** 3).sin().sum()

    (plain,) = torch.autograd.grad(loss(weight), weight)
    (directional,) = torch.autograd.grad(loss(weight / weight.norm(dim=1, keepdim=True)), weight)
    torch.testing.assert_close(tangent(plain, weight.detach()), directional, rtol=1e-12, atol=1e-13)


def mean_rotation(gradient_of_step: list[Tensor], lr: float) -> float:
    """Mean angle of a row per step over the last half of the steps, by the arc cosine."""
    rows, length = gradient_of_step[0].shape
    weight = torch.nn.Parameter(randn(rows, length, seed=5))
    optimizer = optimizer_on(weight, lr=lr, clip_grad=0)
    angles = []
    for gradient in gradient_of_step:
        before = weight.detach().clone()
        weight.grad = gradient
        optimizer.step()
        angles.append(torch.acos((before * weight.detach()).sum(dim=1).clamp(max=1)).mean())
    return float(torch.stack(angles[len(angles) // 2 :]).mean())


def test_noise_turns_rows_at_the_lower_end_of_the_band() -> None:
    low, high = rotation_band(1e-3, 256, 0.9)
    found = mean_rotation([randn(16, 256, seed=1000 + t) for t in range(120)], lr=1e-3)
    assert low == pytest.approx(1e-3 * 16 * math.sqrt(0.1 / 1.9))
    assert high == pytest.approx(1e-3 * 16)
    assert found == pytest.approx(low, rel=0.05)


def test_coherent_gradients_turn_rows_at_the_upper_end_of_the_band() -> None:
    _, high = rotation_band(1e-4, 256, 0.9)
    found = mean_rotation([randn(16, 256, seed=7)] * 40, lr=1e-4)
    assert 0.95 * high < found <= high * (1 + 1e-6)


def test_the_angle_of_a_chord_is_exact_where_the_arc_cosine_is_blind() -> None:
    for angle in (1e-5, 1e-3, 0.5, 3.0, math.pi):
        a = torch.tensor([1.0, 0.0])
        b = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        squared = (a.double() - b).square().sum().float()
        assert float(angle_of_chord(squared)) == pytest.approx(angle, rel=1e-3 if angle > 3 else 1e-6)
    assert float(torch.acos(torch.tensor(math.cos(1e-5), dtype=torch.float32))) == 0.0


def test_half_precision_and_vectors_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"found torch.bfloat16: call model.float\(\)"):
        optimizer_on(torch.nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16)))
    with pytest.raises(ValueError, match=r"only matrices have rows .* shape \(3,\)"):
        optimizer_on(torch.nn.Parameter(torch.ones(3)))
