"""Noise with an address: a clip's noise follows from its seed alone, whatever else lies in the pack."""

import torch
from torch import Tensor


def noise_for(seed_N: Tensor, lengths_N: Tensor, E: int) -> Tensor:
    """Standard normal noise for each clip of a pack, end to end: eps_SE, float32, on the CPU.

    Drawn on the CPU on purpose: generators of different devices give different numbers for the same seed, and a run
    must not change its noise with the machine.
    """
    drawn = [
        torch.randn(int(length), E, generator=torch.Generator().manual_seed(int(seed)))
        for seed, length in zip(seed_N.tolist(), lengths_N.tolist(), strict=True)
    ]
    return torch.cat(drawn)
