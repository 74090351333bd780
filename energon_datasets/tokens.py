"""Latents to tokens and back, and where each token stands.

C channels, T latent frames, H rows, W columns, S tokens of a clip, E numbers per token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from energon_datasets.shard_schema import PATCH, token_grid

__all__ = ["patchify", "positions", "token_grid", "unpatchify"]


def patchify(z_CTHW: Tensor) -> Tensor:
    """Tokens x_SE in the order time, rows, columns; a token holds C x 2 latents, channel by channel.

    The last of an odd number of latent frames is repeated, so that every token holds two.
    """
    t, h, w = token_grid(tuple(z_CTHW.shape))
    pt, ph, pw = PATCH
    C = len(z_CTHW)
    missing = t * pt - z_CTHW.shape[1]
    if missing:
        z_CTHW = torch.cat([z_CTHW, z_CTHW[:, -1:].expand(-1, missing, -1, -1)], dim=1)
    z_CtphQwR = z_CTHW.reshape(C, t, pt, h, ph, w, pw)
    return z_CtphQwR.permute(1, 3, 5, 0, 2, 4, 6).reshape(t * h * w, C * pt * ph * pw)


def unpatchify(x_SE: Tensor, grid: tuple[int, int, int], frames: int) -> Tensor:
    """Latents z_CTHW with T = `frames`; a repeated last frame is cut off. Inverse of `patchify`."""
    t, h, w = (int(n) for n in grid)
    pt, ph, pw = PATCH
    if len(x_SE) != t * h * w:
        raise ValueError(f"{len(x_SE)} tokens are no grid of {t}x{h}x{w}")
    if not (t - 1) * pt < frames <= t * pt:
        raise ValueError(f"{t} tokens in time hold {(t - 1) * pt + 1} to {t * pt} latent frames, not {frames}")
    C = x_SE.shape[1] // (pt * ph * pw)
    z_thwCpqr = x_SE.reshape(t, h, w, C, pt, ph, pw)
    return z_thwCpqr.permute(3, 0, 4, 1, 5, 2, 6).reshape(C, t * pt, h * ph, w * pw)[:, :frames]


def positions(grid: tuple[int, int, int]) -> Tensor:
    """pos_S3: each token's place in its clip along time, rows, columns, evenly from -1 to 1; 0 along a single entry."""
    axes = [torch.linspace(-1.0, 1.0, int(n)) if n > 1 else torch.zeros(1) for n in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
