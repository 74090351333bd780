"""Which clips share a pack, and the pack itself.

S tokens of the pack, N clips in it, E numbers per token, L caption tokens of all clips, D numbers per caption token.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import torch

from energon_datasets.batch import PackedBatch
from energon_datasets.cook import EncodedClip


def pack_bfd(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Groups of indices whose lengths sum to at most `budget`; every index is in exactly one group.

    Best fit decreasing: the longest first, each into the fullest group that still has room (Johnson 1973; at most
    11/9 of the fewest groups possible plus a constant). Equal lengths keep their order, so the answer is the same
    everywhere. ValueError for a length that no group can hold.
    """
    groups: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, group), always sorted, so that the best fit is a bisection away
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if not 0 < length <= budget:
            raise ValueError(f"a clip of {length} tokens cannot go into a pack of {budget}: set data.budget={length}")
        place = bisect.bisect_left(rooms, (length, -1))
        if place == len(rooms):
            groups.append([])
            room, group = budget, len(groups) - 1
        else:
            room, group = rooms.pop(place)
        groups[group].append(index)
        bisect.insort(rooms, (room - length, group))
    return groups


def fill_share(lengths: Sequence[int], groups: Sequence[Sequence[int]], budget: int) -> float:
    """Share of the packs' tokens that are used."""
    return sum(lengths) / (len(groups) * budget) if groups else 0.0


def lay_end_to_end(clips: Sequence[EncodedClip]) -> PackedBatch:
    """One pack of these clips, in this order."""
    return PackedBatch(
        latents_SE=torch.cat([clip.latents_SE for clip in clips]),
        position_S3=torch.cat([clip.position_S3 for clip in clips]),
        video_ends_N=torch.tensor([len(clip.latents_SE) for clip in clips]).cumsum(0),
        text_LD=torch.cat([clip.text_LD for clip in clips]),
        text_ends_N=torch.tensor([len(clip.text_LD) for clip in clips]).cumsum(0),
        uniform_N=torch.tensor([clip.uniform for clip in clips], dtype=torch.float64),
        seed_N=torch.tensor([clip.seed for clip in clips], dtype=torch.int64),
        grid_N3=torch.tensor([clip.grid for clip in clips], dtype=torch.int64),
        latent_frames_N=torch.tensor([clip.latent_frames for clip in clips], dtype=torch.int64),
        fps_N=torch.tensor([clip.fps for clip in clips], dtype=torch.float32),
        loss_weight_N=torch.ones(len(clips)),
        clip_ids=tuple(clip.key for clip in clips),
    )
