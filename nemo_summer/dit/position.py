"""Golden-gate RoPE in three dimensions: every head and frequency turns along its own direction in space and time.

angle_{k,i}(p) = w_i <u_{k,i}, p> with p in [-1, 1]^3 (Xiong 2025, ND-RoPE; Summer-22B sec. 4.2, reconstructed).

S video tokens, J tokens of text and video, K heads, R rotations per head (half of its numbers).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nemo_summer.dit.config import DitConfig

GOLDEN_RATIO = 0.5 * (5**0.5 - 1)


def generalised_golden_ratio(dims: int) -> float:
    """The root f of f^(dims + 1) = f + 1: 1.618.. for 1, 1.3247.. for 2, 1.22074408.. for 3 (Roberts 2018)."""
    f = 2.0
    for _ in range(60):
        f = (1 + f) ** (1 / (dims + 1))
    return f


def directions(count: int, start: float) -> Tensor:
    """u_j = normalise(erfinv(2 z_j - 1)), z_j = frac(start + j (f^-1, f^-2, f^-3)), j = 1..count: evenly over the sphere.

    [count, 3], float64.
    """
    f = generalised_golden_ratio(3)
    step_3 = torch.tensor([f**-1, f**-2, f**-3], dtype=torch.float64)
    z_j3 = (start + torch.arange(1, count + 1, dtype=torch.float64)[:, None] * step_3) % 1.0
    u_j3 = torch.erfinv((2 * z_j3 - 1).clamp(-1 + 1e-12, 1 - 1e-12))
    return u_j3 / u_j3.norm(dim=1, keepdim=True)


def frequencies(count: int, zero_share: float, lowest: float, highest: float) -> Tensor:
    """w_R: `round(zero_share count)` zeros, then lowest (highest/lowest)^(i/(n-1)); [count], float64."""
    zeros = round(zero_share * count)
    ramp = torch.linspace(0, 1, count - zeros, dtype=torch.float64)
    return torch.cat([torch.zeros(zeros, dtype=torch.float64), lowest * (highest / lowest) ** ramp])


def axes_of_layer(cfg: DitConfig, layer: int) -> Tensor:
    """w_i u_{k,i} of one layer, [3, K, R], float32. Each layer starts its sequence of directions elsewhere."""
    R = cfg.head_width // 2
    u_KR3 = directions(cfg.heads * R, start=layer * GOLDEN_RATIO % 1.0).view(cfg.heads, R, 3)
    w_R = frequencies(R, cfg.zero_frequency_share, cfg.frequency_min, cfg.frequency_max)
    return (u_KR3 * w_R[:, None]).permute(2, 0, 1).float().contiguous()


class Rotations:
    """Cosines and sines of a pack for every layer. Holds no parameters and stays float32 whatever the model is cast to."""

    def __init__(self, cfg: DitConfig) -> None:
        self.axes_L3KR = torch.stack([axes_of_layer(cfg, layer) for layer in range(cfg.layers)])

    def of_positions(self, position_J3: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(cos_JKR, sin_JKR) of each layer. A position of zeros, as text tokens have it, is not turned."""
        self.axes_L3KR = self.axes_L3KR.to(position_J3.device)
        turns = []
        for axes_3KR in self.axes_L3KR:
            angle_JKR = torch.einsum("jx,xkr->jkr", position_J3.float(), axes_3KR)
            turns.append((angle_JKR.cos(), angle_JKR.sin()))
        return turns


def rotate(x_JKd: Tensor, cos_JKR: Tensor, sin_JKR: Tensor) -> Tensor:
    """x' = x cos - y sin, y' = x sin + y cos for the pairs (first half, second half) of each head."""
    x_JKR, y_JKR = x_JKd.chunk(2, dim=-1)
    cos_JKR, sin_JKR = cos_JKR.to(x_JKd.dtype), sin_JKR.to(x_JKd.dtype)
    return torch.cat([x_JKR * cos_JKR - y_JKR * sin_JKR, x_JKR * sin_JKR + y_JKR * cos_JKR], dim=-1)
