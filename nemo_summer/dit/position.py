"""Golden-gate RoPE in three dimensions: every head and frequency turns along its own direction in space and time.

angle_{k,i}(p) = w_i <u_{k,i}, p> with p in [-1, 1]^3 (Xiong 2025, ND-RoPE; Summer-22B sec. 4.2, reconstructed).

S video tokens, J tokens of text and video, K heads, d numbers per head, R rotations per head (half of d).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nemo_summer.dit.config import DitConfig

LAYER_STEP = 0.5 * (5**0.5 - 1)
"""The sequence of directions of layer l starts at frac(l * this): never twice at the same place."""


def generalised_golden_ratio(dims: int) -> float:
    """The root f of f^(dims + 1) = f + 1: 1.618.. for 1, 1.3247.. for 2, 1.22074408.. for 3 (Roberts 2018)."""
    f = 2.0
    for _ in range(60):
        f = (1 + f) ** (1 / (dims + 1))
    return f


def directions(count: int, start: float) -> Tensor:
    """Unit vectors evenly over the sphere: u_j = normalise(erfinv(2 z_j - 1)), j = 1..count.

    z_j = frac(start + j (f^-1, f^-2, f^-3)), f the generalised golden ratio of 3 dimensions. [count, 3], float64.
    """
    f = generalised_golden_ratio(3)
    step_3 = torch.tensor([f**-1, f**-2, f**-3], dtype=torch.float64, device="cpu")
    j = torch.arange(1, count + 1, dtype=torch.float64, device="cpu")
    z_j3 = (start + j[:, None] * step_3) % 1.0
    u_j3 = torch.erfinv((2 * z_j3 - 1).clamp(-1 + 1e-12, 1 - 1e-12))
    return u_j3 / u_j3.norm(dim=1, keepdim=True)


def frequencies(count: int, zero_share: float, lowest: float, highest: float) -> Tensor:
    """`round(zero_share count)` zeros, then n values lowest (highest/lowest)^(i/(n-1)); [count], float64."""
    zeros = round(zero_share * count)
    ramp = torch.linspace(0, 1, count - zeros, dtype=torch.float64, device="cpu")
    return torch.cat([ramp.new_zeros(zeros), lowest * (highest / lowest) ** ramp])


def axes_of_layer(cfg: DitConfig, layer: int) -> Tensor:
    """w_i u_{k,i} of one layer, [3, K R], float32."""
    R = cfg.head_width // 2
    u_KR3 = directions(cfg.heads * R, start=layer * LAYER_STEP % 1.0).view(cfg.heads, R, 3)
    w_R = frequencies(R, cfg.zero_frequency_share, cfg.frequency_min, cfg.frequency_max)
    return (u_KR3 * w_R[:, None]).reshape(-1, 3).T.float().contiguous()


class Rotations:
    """Cosines and sines of a pack for every layer.

    No module, and made on the CPU: neither a cast to bfloat16 nor building the model on `meta` reaches its float32.
    """

    def __init__(self, cfg: DitConfig) -> None:
        self.heads = cfg.heads
        self.axes = [axes_of_layer(cfg, layer) for layer in range(cfg.layers)]

    def of_positions(self, position_J3: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(cos_JKR, sin_JKR) of each layer. A position of zeros, as text tokens have it, is not turned."""
        self.axes = [axes_3X.to(position_J3.device) for axes_3X in self.axes]
        angles = [(position_J3.float() @ axes_3X).unflatten(1, (self.heads, -1)) for axes_3X in self.axes]
        return [(angle_JKR.cos(), angle_JKR.sin()) for angle_JKR in angles]


def rotate(x: Tensor, cos_JKR: Tensor, sin_JKR: Tensor) -> Tensor:
    """x' = x cos - y sin, y' = x sin + y cos for the pairs (first half, second half) of each head.

    `x` is [J, K, d] or several of them stacked, [J, 2, K, d].
    """
    cos, sin = cos_JKR.to(x.dtype), sin_JKR.to(x.dtype)
    if x.dim() == 4:
        cos, sin = cos[:, None], sin[:, None]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
