"""Packs of random numbers with the shapes of real ones."""

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import nn

from energon_datasets.batch import PackedBatch
from energon_datasets.tokens import positions


def random_pack(
    grids: Sequence[tuple[int, int, int]], texts: Sequence[int], seed: int = 0, channels: int = 96, text_width: int = 64
) -> PackedBatch:
    """A pack of `len(grids)` clips with `texts[i]` caption tokens each."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [t * h * w for t, h, w in grids]
    clips = len(grids)
    known = {
        "latents_SE": torch.randn(sum(lengths), channels, generator=generator),
        "position_S3": torch.cat([positions(grid) for grid in grids]),
        "video_ends_N": torch.tensor(lengths).cumsum(0),
        "text_LD": torch.randn(sum(texts), text_width, generator=generator),
        "text_ends_N": torch.tensor(texts).cumsum(0),
        "uniform_N": torch.rand(clips, dtype=torch.float64, generator=generator),
        "seed_N": torch.arange(clips),
        "grid_N3": torch.tensor(grids),
        "latent_frames_N": torch.tensor([2 * grid[0] for grid in grids]),
        "fps_N": torch.full((clips,), 24.0),
        "loss_weight_N": torch.ones(clips),
        "clip_ids": tuple(f"clip-{seed}-{i}" for i in range(clips)),
    }
    return PackedBatch(**{f.name: known[f.name] for f in fields(PackedBatch)})


@torch.no_grad()
def fill_zeros(model: nn.Module, scale: float = 0.05) -> None:
    """Small random numbers in every parameter that starts at zero, so that all of them shape output and gradients."""
    generator = torch.Generator().manual_seed(11)
    for _, parameter in sorted(model.named_parameters()):
        if not parameter.any():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
