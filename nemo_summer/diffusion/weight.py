"""What a noise level counts in the loss."""

from enum import Enum

import torch
from torch import Tensor


class WeightKind(Enum):
    """The quantity whose squared error is counted; the model's output is the velocity in each case."""

    velocity = "velocity"
    clean = "clean"
    noise = "noise"


def level_weight(t: Tensor, kind: WeightKind) -> Tensor:
    """Factor on the velocity's squared error at noise level t.

    velocity: 1. clean: t^2, since x_0^ - x_0 = t (v^ - v). noise: (1 - t)^2, since eps^ - eps = -(1 - t) (v^ - v)
    (the weights of Esser et al. 2024, table 1, for a straight path).
    """
    if kind is WeightKind.clean:
        return t**2
    if kind is WeightKind.noise:
        return (1 - t) ** 2
    return torch.ones_like(t)
