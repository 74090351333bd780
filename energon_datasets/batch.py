"""What crosses from the loader to the trainer: clips laid end to end.

S tokens of the pack, N clips in it, E numbers per token, L caption tokens of all clips, D numbers per caption token.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One pack; clip `i` owns tokens `video_ends_N[i-1]:video_ends_N[i]`, and caption tokens by `text_ends_N`."""

    latents_SE: Tensor
    """Clean, normalised latents, patch by patch (`tokens.patchify`); float32 or bfloat16."""
    position_S3: Tensor
    """Place of each token in its own clip along time, rows, columns, each from -1 to 1; float32."""
    video_ends_N: Tensor
    """Where each clip's tokens end; int64, increasing."""
    text_LD: Tensor
    """Caption embeddings of all clips, end to end; every clip has at least one token."""
    text_ends_N: Tensor
    uniform_N: Tensor
    """One number from [0, 1) per clip and visit, from which training makes the clip's noise level; float64."""
    seed_N: Tensor
    """Seed of each clip's noise; int64, not negative."""
    grid_N3: Tensor
    """Tokens of each clip along time, rows, columns; int64, their product is the clip's token count."""
    latent_frames_N: Tensor
    """Latent frames of each clip; int64. An odd number was filled up for the tokens by repeating the last one."""
    fps_N: Tensor
    loss_weight_N: Tensor
    clip_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        clips = len(self.clip_ids)
        for name in (f.name for f in fields(self) if f.name.endswith(("_N", "_N3"))):
            if len(getattr(self, name)) != clips:
                raise ValueError(f"a pack of {clips} clips has {len(getattr(self, name))} entries in {name}")
        if clips == 0:
            raise ValueError("a pack holds no clip")
        for ends, rows, what in (
            (self.video_ends_N, self.latents_SE, "tokens"),
            (self.text_ends_N, self.text_LD, "caption tokens"),
        ):
            if int(ends[-1]) != len(rows):
                raise ValueError(f"clips end at {int(ends[-1])} {what}, the pack has {len(rows)}: {self.clip_ids}")
        if len(self.position_S3) != len(self.latents_SE):
            raise ValueError(f"{len(self.position_S3)} positions for {len(self.latents_SE)} tokens: {self.clip_ids}")

    @property
    def tokens(self) -> int:
        return len(self.latents_SE)

    def lengths_N(self) -> Tensor:
        """Tokens of each clip."""
        return torch.diff(self.video_ends_N, prepend=self.video_ends_N.new_zeros(1))

    def text_lengths_N(self) -> Tensor:
        """Caption tokens of each clip."""
        return torch.diff(self.text_ends_N, prepend=self.text_ends_N.new_zeros(1))

    def repeated_S(self, patch_frames: int = 2) -> Tensor:
        """True for tokens whose last latent frame only repeats the one before, and so teaches and proves nothing."""
        parts = []
        for grid, frames in zip(self.grid_N3.tolist(), self.latent_frames_N.tolist()):
            flags = torch.zeros(grid[0], grid[1] * grid[2], dtype=torch.bool)
            flags[-1] = frames < grid[0] * patch_frames
            parts.append(flags.flatten())
        return torch.cat(parts).to(self.latents_SE.device)

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same pack with every tensor on `device`."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "clip_ids"}
        return replace(self, **moved)
