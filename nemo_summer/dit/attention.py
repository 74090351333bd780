"""Attention inside each clip of a pack: a token sees the text and video tokens of its own clip, no others.

J tokens of text and video of all clips, K heads, d numbers per head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the clips lie in the joint sequence."""

    lengths: tuple[int, ...]
    """Text and video tokens of each clip."""
    ends_N1: Tensor
    """0, then the end of each clip; int32 (the form that variable-length kernels want)."""

    @property
    def longest(self) -> int:
        return max(self.lengths)


def attend(q_JKd: Tensor, k_JKd: Tensor, v_JKd: Tensor, segments: Segments) -> Tensor:
    """softmax(q k^T / sqrt(d)) v within each clip; [J, K, d]."""
    outputs = [
        F.scaled_dot_product_attention(q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None])
        for q, k, v in zip(*(x.split(segments.lengths) for x in (q_JKd, k_JKd, v_JKd)))
    ]
    return torch.cat([o_1KTd[0].transpose(0, 1) for o_1KTd in outputs])
