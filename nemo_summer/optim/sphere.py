"""AdamW on the sphere: every row of a constrained weight keeps length 1.

The formulas are Summer-22B sec. 4.3 (its eq. 1-7, reconstructed from the text): project the gradient on the tangent
space of its row, take Adam's moments of the projected gradient, step, divide the row by its length. They hold for any
dtype; training runs them in float32 on megatron's main parameters (distributed.py), `SphereAdamW` on whole tensors.

R rows, I numbers per row (d_in).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from nemo_summer.optim.config import OptimConfig
from nemo_summer.optim.rules import Rule

SHORTEST_ROW = 1e-12
"""A row shorter than this has no direction; it is divided by this instead of by its length."""


def tangent(grad_RI: Tensor, weight_RI: Tensor) -> Tensor:
    """`g^ = g - <g, w> w`: the part of each row's gradient that turns the unit row `w` (eq. 1, 2)."""
    return grad_RI - (grad_RI * weight_RI).sum(dim=1, keepdim=True) * weight_RI


def moments(first: Tensor, second: Tensor, grad: Tensor, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
    """`m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2` (eq. 3, 4; Kingma & Ba 2014)."""
    return beta1 * first + (1 - beta1) * grad, beta2 * second + (1 - beta2) * grad * grad


def direction(first: Tensor, second: Tensor, step: int, beta1: float, beta2: float, eps: float) -> Tensor:
    """`m^ / (sqrt(v^) + eps)`, `m^ = m / (1 - b1^step)`, `v^ = v / (1 - b2^step)`; the first step is 1 (eq. 5, 6)."""
    return (first / (1 - beta1**step)) / ((second / (1 - beta2**step)).sqrt() + eps)


def retract(weight_RI: Tensor) -> Tensor:
    """`w / ||w||` for each row (eq. 7)."""
    return weight_RI / weight_RI.norm(dim=1, keepdim=True).clamp_min(SHORTEST_ROW)


def angle_of_chord(squared_chord: Tensor) -> Tensor:
    """Angle in radians between two unit vectors `squared_chord = ||a - b||^2` apart: `2 asin(||a - b|| / 2)`.

    Unlike `acos(<a, b>)` it keeps its digits where the angle is small.
    """
    return 2 * torch.asin((squared_chord.clamp_min(0).sqrt() / 2).clamp_max(1))


def rotation_band(lr: float, row_length: int, beta1: float) -> tuple[float, float]:
    """Smallest and largest rotation of a row in one step, in radians, where the steps are small.

    `lr sqrt(d) sqrt((1 - b1) / (1 + b1))` for gradients that are noise, `lr sqrt(d)` for coherent ones: Adam moves each
    number by about `lr` times a factor between these (DESIGN sec. 4). `lr` is the one of this weight.
    """
    largest = lr * math.sqrt(row_length)
    return largest * math.sqrt((1 - beta1) / (1 + beta1)), largest


def sphere_groups(parameters: Iterable[tuple[str, Tensor]], rules: Mapping[str, Rule]) -> list[dict[str, Any]]:
    """Parameter groups for `SphereAdamW`, one for each `(sphere, lr_mult)` that occurs."""
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    for name, parameter in parameters:
        rule = rules[name]
        groups.setdefault((rule.sphere, rule.lr_mult), []).append(parameter)
    return [{"params": p, "sphere": sphere, "lr_mult": mult} for (sphere, mult), p in groups.items()]


class SphereAdamW(torch.optim.Optimizer):
    """The optimizer on whole tensors in one process: the reference for distributed.py, and enough for small trainings.

    Groups carry `sphere` (constrain the rows) and `lr_mult`; `lr` times `lr_mult` is the learning rate. There is no
    weight decay. Rows are put on the sphere at construction. `grad_norm` is the length of the last gradient, all
    parameters together, after the projection and before clipping.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], cfg: OptimConfig) -> None:
        defaults = {"lr": cfg.lr, "lr_mult": 1.0, "sphere": False}
        super().__init__(groups, defaults)
        self.cfg = cfg
        self.grad_norm = 0.0
        for group in self.param_groups:
            for weight in group["params"]:
                _check(weight, group["sphere"])
                if group["sphere"]:
                    weight.data.copy_(retract(weight.data))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; gives back what `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads = {
            weight: tangent(weight.grad, weight) if group["sphere"] else weight.grad
            for group in self.param_groups
            for weight in group["params"]
            if weight.grad is not None
        }
        shrink = self._shrink(grads)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight in grads:
                    self._update(weight, grads[weight] * shrink, group)
        return loss

    def _shrink(self, grads: Mapping[Tensor, Tensor]) -> float:
        """Factor that shortens the gradient to `clip_grad`, as megatron clips: `clip / (norm + 1e-6)`, at most 1."""
        self.grad_norm = math.sqrt(sum(float(grad.double().square().sum()) for grad in grads.values()))
        if self.cfg.clip_grad == 0:
            return 1.0
        return min(1.0, self.cfg.clip_grad / (self.grad_norm + 1e-6))

    def _update(self, weight: Tensor, grad: Tensor, group: Mapping[str, Any]) -> None:
        cfg, state = self.cfg, self.state[weight]
        if not state:
            state.update(step=0, first=torch.zeros_like(weight), second=torch.zeros_like(weight))
        state["step"] += 1
        state["first"], state["second"] = moments(state["first"], state["second"], grad, cfg.beta1, cfg.beta2)
        move = direction(state["first"], state["second"], state["step"], cfg.beta1, cfg.beta2, cfg.eps)
        weight.sub_(group["lr"] * group["lr_mult"] * move)
        if group["sphere"]:
            weight.copy_(retract(weight))


def _check(weight: Tensor, sphere: bool) -> None:
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"SphereAdamW needs weights in float32 or float64, found {weight.dtype}: call model.float()")
    if sphere and weight.dim() != 2:
        raise ValueError(f"only matrices have rows to constrain, found a weight of shape {tuple(weight.shape)}")
