"""From a clip's noise level to shift, scale and gate of its tokens.

N clips, D width, Z numbers of the time embedding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

TIME_SCALE = 1000.0
"""The noise level 0..1 is stretched to 0..1000 before its sines are taken (the convention of DDPM's step numbers)."""


def time_features(t_N: Tensor, width: int) -> Tensor:
    """[cos(1000 t w_i), sin(1000 t w_i)], w_i = 10000^(-i/(width/2)) (Vaswani et al. 2017, sec. 3.5).

    [N, width], float32.
    """
    half = width // 2
    w_Z = torch.exp(-math.log(10000.0) * torch.arange(half, device=t_N.device, dtype=torch.float64) / half)
    angle_NZ = TIME_SCALE * t_N.double()[:, None] * w_Z
    return torch.cat([angle_NZ.cos(), angle_NZ.sin()], dim=1).float()


def time_mlp(width: int) -> nn.Sequential:
    """Time features to the time embedding; each block turns it into its own shift, scale and gate."""
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))


def modulation(time_width: int, width: int, vectors: int) -> nn.Sequential:
    """Time embedding to `vectors` vectors of the model's width, zero at the start."""
    return nn.Sequential(nn.Linear(time_width, width), nn.SiLU(), nn.Linear(width, vectors * width))


def of_tokens(vectors_NX: Tensor, clip_J: Tensor) -> Tensor:
    """Each token's row: that of its clip; [J, X]."""
    # An embedding look-up, since the gradient of plain indexing adds row by row under a lock and took 3 % of a step.
    return fn.embedding(clip_J, vectors_NX)
