"""The Summer block: attention and MLP side by side between one input and one output matrix (DESIGN sec. 4).

J tokens of text and video, N clips, D width, F hidden width, K heads, d numbers per head, Z time embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from nemo_summer.dit.attention import Segments, attend
from nemo_summer.dit.condition import modulation, of_tokens
from nemo_summer.dit.config import DitConfig
from nemo_summer.dit.linear import Linears
from nemo_summer.dit.position import rotate

NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Joint:
    """What every block needs to know about a pack."""

    segments: Segments
    clip_J: Tensor
    """Which clip each token belongs to."""
    time_NZ: Tensor
    """Time embedding of each clip."""
    turns: list[tuple[Tensor, Tensor]]
    """Cosines and sines of each layer."""


class Block(nn.Module):
    """u = (1 + scale) norm(x) + shift;  [q, k, v, h1, h2] = W_in u;  v' = l1 v + l2 v_first;

    a = attention(R q, R k, v');  o = W_out [a, SiLU(h1) h2];  x' = x + (gate + L^-p) o.
    """

    def __init__(self, cfg: DitConfig, layer: int, linears: Linears) -> None:
        super().__init__()
        D, F = cfg.width, cfg.hidden
        self.cfg = cfg
        self.layer = layer
        self.w_in = linears.column(D, 3 * D + 2 * F)
        self.w_out = linears.row(D + F, D)
        self.modulation = modulation(cfg.time_width, D, vectors=3)
        self.value_mix = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, x_JD: Tensor, v_first_JKd: Tensor | None, joint: Joint) -> tuple[Tensor, Tensor]:
        """x' and the values of the first layer, which is this one where `v_first_JKd` is None."""
        D, F = self.cfg.width, self.cfg.hidden
        shift_JD, scale_JD, gate_JD = of_tokens(self.modulation(joint.time_NZ), joint.clip_J).chunk(3, dim=1)
        u_JD = (1 + scale_JD) * fn.rms_norm(x_JD, (D,), eps=NORM_EPS) + shift_JD
        qk, v, h1_JF, h2_JF = self.w_in(u_JD).split([2 * D, D, F, F], dim=1)
        v_JKd = v.unflatten(1, (self.cfg.heads, self.cfg.head_width))
        v_first_JKd = v_JKd if v_first_JKd is None else v_first_JKd
        mixed_JKd = self.value_mix[0] * v_JKd + self.value_mix[1] * v_first_JKd
        q_JKd, k_JKd = self._turned(qk, joint)
        a_JKd = attend(q_JKd, k_JKd, mixed_JKd, joint.segments)
        o_JD = self.w_out(torch.cat([a_JKd.flatten(1), fn.silu(h1_JF) * h2_JF], dim=1))
        return x_JD + (gate_JD + self.cfg.gate_offset) * o_JD, v_first_JKd

    def _turned(self, qk: Tensor, joint: Joint) -> tuple[Tensor, Tensor]:
        """Queries and keys, turned by the positions of their tokens."""
        qk_J2Kd = qk.unflatten(1, (2, self.cfg.heads, self.cfg.head_width))
        if self.cfg.qk_norm:
            qk_J2Kd = fn.rms_norm(qk_J2Kd, (self.cfg.head_width,), eps=NORM_EPS)
        return rotate(qk_J2Kd, *joint.turns[self.layer]).unbind(1)
