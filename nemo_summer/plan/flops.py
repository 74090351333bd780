"""How much arithmetic a step is, counted exactly, and what share of the machine it uses.

Products with weights and attention count; what works number by number does not. A multiply-add is 2 FLOPs.
Attention counts the true length of each clip.

D width, F hidden width of the MLP, E numbers per video token, X per caption token, Z time embedding.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nemo_summer.dit.config import DitConfig


@dataclass(frozen=True, slots=True)
class Flops:
    """Of one pack, forward."""

    matrices: int
    """Products with weights whose input has a gradient."""
    first_matrices: int
    """Products with weights that stand first, so that the backward pass needs no gradient of their input."""
    attention: int

    @property
    def forward(self) -> int:
        return self.matrices + self.first_matrices + self.attention

    @property
    def train(self) -> int:
        """Forward and backward: 3 x, first matrices 2 x; what a kernel computes twice to save memory counts once."""
        return 3 * self.matrices + 2 * self.first_matrices + 3 * self.attention


def count_flops(cfg: DitConfig, video_N: Sequence[int], text_N: Sequence[int]) -> Flops:
    """Of a pack with `video_N[i]` video and `text_N[i]` caption tokens of clip i.

    Per token of either kind and layer 2 D (3D + 2F) + 2 (D + F) D; per clip of length s and layer 4 s^2 D.
    """
    if len(video_N) != len(text_N):
        raise ValueError(f"{len(video_N)} clips with video tokens, {len(text_N)} with caption tokens")
    D, F, E, X, Z = cfg.width, cfg.hidden, cfg.in_channels, cfg.text_width, cfg.time_width
    clips, video, text = len(video_N), sum(video_N), sum(text_N)
    block = 2 * D * (3 * D + 2 * F) + 2 * (D + F) * D
    condition = 2 * Z * Z + cfg.layers * (2 * Z * D + 2 * D * 3 * D) + 2 * Z * D + 2 * D * 2 * D
    return Flops(
        matrices=cfg.layers * (video + text) * block + clips * condition + video * 2 * D * E,
        first_matrices=video * 2 * E * D + text * 2 * X * D + clips * 2 * Z * Z,
        attention=cfg.layers * sum(4 * (v + t) ** 2 * D for v, t in zip(video_N, text_N)),
    )


def train_flops(cfg: DitConfig, video_N: Sequence[int], text_N: Sequence[int]) -> int:
    """FLOPs of one forward and backward pass over a pack."""
    return count_flops(cfg, video_N, text_N).train


@dataclass(frozen=True, slots=True)
class Peak:
    """Fastest arithmetic of one device."""

    flops_per_s: float
    source: str
    """Where the number is from, for the log."""


DENSE_BF16: dict[str, float] = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "L40S": 362e12,
    "B200": 2250e12,
}
"""NVIDIA's data sheets, bfloat16 on tensor cores without sparsity, by a part of the device's name; first match."""


def peak_of(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Peak:
    """The data sheet's number for a known GPU in bfloat16; for all else a matrix product of this moment is timed."""
    device = torch.device(device)
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, flops_per_s in DENSE_BF16.items():
            if part in name:
                return Peak(flops_per_s, f"data sheet of {part}, bfloat16 dense")
    return Peak(measured_peak(device, dtype), f"product of 1024 x 1024 matrices in {dtype}, measured on {device.type}")


def measured_peak(device: torch.device, dtype: torch.dtype, size: int = 1024, repeats: int = 8) -> float:
    """FLOPs per second of the fastest of `repeats` square matrix products."""
    a = torch.randn(size, size, device=device).to(dtype)
    fastest_s = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        (a @ a).sum().item()  # item() waits for the device
        fastest_s = min(fastest_s, time.perf_counter() - began)
    return 2 * size**3 / fastest_s


def utilisation(flops: float, seconds: float, peak: Peak, devices: int = 1) -> float:
    """MFU: share of the peak of all `devices` that `flops` in `seconds` make use of."""
    return flops / (seconds * peak.flops_per_s * devices)
