"""Attention inside each clip of a pack: a token sees the text and video tokens of its own clip, no others.

J tokens of text and video of all clips, K heads, T tokens of one clip, d numbers per head.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the clips lie in the joint sequence."""

    lengths: tuple[int, ...]
    """Text and video tokens of each clip."""
    ends: Tensor
    """0, then the end of each clip; N + 1 numbers, int32 (what kernels for variable lengths want)."""

    @property
    def longest(self) -> int:
        return max(self.lengths)


def attend(q_JKd: Tensor, k_JKd: Tensor, v_JKd: Tensor, segments: Segments) -> Tensor:
    """softmax(q k^T / sqrt(d)) v within each clip; [J, K, d]."""
    attend_by = {"transformer-engine": by_transformer_engine, "varlen": by_varlen, "clip by clip": clip_by_clip}
    return attend_by[backend(q_JKd.device.type, q_JKd.dtype)](q_JKd, k_JKd, v_JKd, segments)


@functools.cache
def backend(device_type: str, dtype: torch.dtype) -> str:
    """Which of the three ways below serves; the fast ones need a GPU and 16 bits."""
    if device_type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return "clip by clip"
    if importlib.util.find_spec("transformer_engine") is not None:
        return "transformer-engine"
    return "varlen" if importlib.util.find_spec("torch.nn.attention.varlen") is not None else "clip by clip"


def clip_by_clip(q_JKd: Tensor, k_JKd: Tensor, v_JKd: Tensor, segments: Segments) -> Tensor:
    """torch's scaled_dot_product_attention once per clip: exact, on any device and in any precision."""
    outputs = []
    for q_TKd, k_TKd, v_TKd in zip(*(x.split(segments.lengths) for x in (q_JKd, k_JKd, v_JKd))):
        heads_first = (x_TKd.transpose(0, 1)[None] for x_TKd in (q_TKd, k_TKd, v_TKd))
        outputs.append(fn.scaled_dot_product_attention(*heads_first)[0].transpose(0, 1))
    return torch.cat(outputs)


def by_varlen(q_JKd: Tensor, k_JKd: Tensor, v_JKd: Tensor, segments: Segments) -> Tensor:
    """torch's FlashAttention over all clips in one launch."""
    from torch.nn.attention.varlen import varlen_attn

    ends, longest = segments.ends, segments.longest
    return varlen_attn(q_JKd, k_JKd, v_JKd.contiguous(), ends, ends, longest, longest)


def by_transformer_engine(q_JKd: Tensor, k_JKd: Tensor, v_JKd: Tensor, segments: Segments) -> Tensor:
    """Transformer Engine's fused or flash kernel over all clips in one launch (its `thd` layout)."""
    kernel = _transformer_engine_kernel(*q_JKd.shape[1:])
    flat = kernel(
        q_JKd,
        k_JKd,
        v_JKd.contiguous(),
        cu_seqlens_q=segments.ends,
        cu_seqlens_kv=segments.ends,
        max_seqlen_q=segments.longest,
        max_seqlen_kv=segments.longest,
    )
    return flat.view_as(q_JKd)


@functools.cache
def _transformer_engine_kernel(heads: int, head_width: int) -> Any:
    """One for all layers, and outside the module tree: it has no weights, but would add entries to the state dict."""
    from transformer_engine.pytorch import DotProductAttention

    return DotProductAttention(heads, head_width, attention_dropout=0.0, qkv_format="thd", attn_mask_type="padding")
