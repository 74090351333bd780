"""Guidance: how far the sampler goes beyond what the caption alone asks for."""

from torch import Tensor


def guide(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """uncond + scale (cond - uncond): scale 1 is no guidance, scale 0 is unconditional (Ho & Salimans 2022, eq. 6)."""
    return uncond + scale * (cond - uncond)
