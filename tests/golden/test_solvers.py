"""Solvers and guidance against the exact solution for Gaussian data.

Data N(0, s^2): x_t has variance D(t) = (1 - t)^2 s^2 + t^2, the best velocity is ((1 - t) s^2 - t) x / D(t), and the
path of a point is x(t) = x(1) sqrt(D(t) / D(1)), so that x(0) = s x(1).
"""

from itertools import pairwise

import pytest
import torch

from nemo_summer.diffusion.path import interpolate, velocity
from nemo_summer.diffusion.time import time_grid
from nemo_summer.sampler.guidance import guide
from nemo_summer.sampler.solvers import euler_step, heun_step

S = 0.5


def gaussian_velocity(x: torch.Tensor, t: float) -> torch.Tensor:
    return ((1 - t) * S**2 - t) * x / ((1 - t) ** 2 * S**2 + t**2)


def error_after(step, steps: int, shift: float = 1.0) -> float:
    x = torch.tensor(1.0, dtype=torch.float64)
    times = time_grid(steps, shift).tolist()
    for t, t_next in pairwise(times):
        x = step(gaussian_velocity, x, t, t_next)
    return abs(float(x) - S)


def test_the_velocity_used_here_is_the_best_one_for_gaussian_data():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 500_000, generator=generator, dtype=torch.float64)
    x, v = interpolate(S * clean, noise, 0.3), velocity(S * clean, noise)
    slope = float((x * v).mean() / (x * x).mean())
    assert slope == pytest.approx(float(gaussian_velocity(torch.tensor(1.0), 0.3)), abs=0.01)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_error_of_euler_halves_when_the_steps_double(shift):
    assert error_after(euler_step, 64, shift) / error_after(euler_step, 128, shift) == pytest.approx(2, rel=0.05)


def test_the_error_of_heun_falls_fourfold_when_the_steps_double():
    assert error_after(heun_step, 64) / error_after(heun_step, 128) == pytest.approx(4, rel=0.05)


def test_heun_with_as_many_calls_of_the_model_is_far_closer_than_euler():
    assert error_after(heun_step, 32) < error_after(euler_step, 64) / 20


def test_one_euler_step_along_a_straight_path_is_exact():
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, 10, generator=generator, dtype=torch.float64)
    found = euler_step(lambda x, t: velocity(clean, noise), noise, 1.0, 0.0)
    torch.testing.assert_close(found, clean)


def test_guidance_of_one_is_none_and_of_zero_is_unconditional():
    cond, uncond = torch.randn(2, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(guide(cond, uncond, 1.0), cond)
    torch.testing.assert_close(guide(cond, uncond, 0.0), uncond)
    torch.testing.assert_close(guide(cond, uncond, 3.0), cond + 2 * (cond - uncond))
