"""Averages of checkpoints whose weights grow with a power of the step: made after training, from what lies on disk."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass(kw_only=True)
class EmaConfig:
    """Which averages are tried."""

    gammas: list[float] = field(default_factory=lambda: [1.0, 2.0, 4.0, 6.94, 10.0, 16.97])
    """Exponents; the one with the lowest validation loss is kept. 6.94 averages over about 10 % of the run."""
    first_step: int = 0
    """Checkpoints before this step are left out."""

    def __post_init__(self) -> None:
        if not self.gammas or min(self.gammas) < 0:
            raise ValueError(f"ema.gammas={self.gammas} must be one or more exponents from 0 up: set ema.gammas=[6.94]")


def power_weights(steps: Sequence[int], gamma: float) -> Tensor:
    """w_i = t_i^gamma / sum_j t_j^gamma, float64 (Summer-22B, eq. 8); gamma = inf is the last checkpoint alone."""
    t = torch.as_tensor(steps, dtype=torch.float64)
    if len(t) == 0 or t.min() < 0 or t.max() <= 0:
        raise ValueError(f"an average needs checkpoints of steps above 0, found steps {list(steps)}")
    share = (t / t.max()) ** gamma
    return share / share.sum()


def sigma_rel(gamma: float) -> float:
    """Width of the average as a share of the run: sqrt((g + 1) / ((g + 2)^2 (g + 3))) (Karras et al. 2024, eq. 123)."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) if math.isfinite(gamma) else 0.0


def step_of(path: Path) -> int:
    """100 of `step_00000100`."""
    found = re.fullmatch(r"step_(\d+)", Path(path).name)
    if not found:
        raise ValueError(f"{path} is no checkpoint: its name must be step_ and a number, like step_00000100")
    return int(found[1])


def average(paths: Sequence[Path], gamma: float, read: Callable[[Path], Mapping[str, Tensor]]) -> Weights:
    """theta = sum_i w_i theta_i over checkpoints that `read` returns one at a time; two of them are in memory at most.

    Sums are float32 or wider, the result has the dtypes of the newest checkpoint; what is not a floating-point number
    is the newest one's. ValueError where a checkpoint has other names or shapes than the one before.
    """
    ordered = sorted(paths, key=step_of)
    shares = power_weights([step_of(path) for path in ordered], gamma).tolist()
    mean: Weights = {}
    newest: Mapping[str, Tensor] = {}
    total = 0.0
    for path, share in zip(ordered, shares):
        if share == 0.0 and path != ordered[-1]:
            continue
        newest = read(path)
        total += share
        mean = _moved_towards(mean, newest, share / total, path)
    return {name: mean[name].to(tensor.dtype) for name, tensor in newest.items()}


def _moved_towards(mean: Weights, new: Mapping[str, Tensor], share: float, path: Path) -> Weights:
    """mean + share (new - mean), in place; a running mean keeps its digits where a running sum would lose them."""
    if not mean:
        return {name: _wide(tensor).clone() for name, tensor in new.items()}
    wrong = [
        name for name in {*mean, *new} if name not in mean or name not in new or mean[name].shape != new[name].shape
    ]
    if wrong:
        raise ValueError(f"{path} does not fit the checkpoints before it, first at {min(wrong)}: average one run only")
    for name, tensor in new.items():
        if tensor.is_floating_point():
            mean[name].lerp_(_wide(tensor), share)
        else:
            mean[name] = tensor.clone()
    return mean


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if tensor.is_floating_point() else tensor


@dataclass(frozen=True, slots=True)
class Trial:
    """What one exponent scored; lower is better."""

    gamma: float
    sigma_rel: float
    loss: float


@dataclass(frozen=True, slots=True)
class Choice:
    best: Trial
    table: tuple[Trial, ...]


def choose_exponent(
    paths: Sequence[Path],
    gammas: Sequence[float],
    score: Callable[[Weights], float],
    read: Callable[[Path], Mapping[str, Tensor]],
) -> Choice:
    """Averages `paths` with each exponent and scores the result (validation loss, lower is better)."""
    table = tuple(Trial(gamma, sigma_rel(gamma), float(score(average(paths, gamma, read)))) for gamma in gammas)
    finite = [trial for trial in table if math.isfinite(trial.loss)]
    if not finite:
        raise ValueError(f"no average of {len(paths)} checkpoints has a finite loss: look at the run's training loss")
    return Choice(min(finite, key=lambda trial: trial.loss), table)
