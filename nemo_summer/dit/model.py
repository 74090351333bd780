"""The diffusion transformer: noisy video tokens, their noise level and their captions in, velocity out.

S video tokens of a pack, L caption tokens, J both together, N clips, D width, E numbers per video token.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from energon_datasets.batch import PackedBatch
from nemo_summer.diffusion.loss import linear_denoiser_gain
from nemo_summer.dit.attention import Segments
from nemo_summer.dit.block import NORM_EPS, Block, Joint
from nemo_summer.dit.condition import modulation, of_tokens, time_features, time_mlp
from nemo_summer.dit.config import DitConfig
from nemo_summer.dit.linear import Linears
from nemo_summer.dit.position import Rotations
from nemo_summer.optim.config import OptimConfig
from nemo_summer.optim.rules import Init, rules_for


class Dit(nn.Module):
    """One sequence per clip: its caption tokens, then its video tokens; one attention over both."""

    def __init__(self, cfg: DitConfig, linears: Linears) -> None:
        super().__init__()
        D = cfg.width
        self.cfg = cfg
        self.patch_proj = nn.Linear(cfg.in_channels, D)
        self.text_proj = nn.Linear(cfg.text_width, D)
        self.time_mlp = time_mlp(cfg.time_width)
        self.blocks = nn.ModuleList(Block(cfg, layer, linears) for layer in range(cfg.layers))
        self.final_modulation = modulation(cfg.time_width, D, vectors=2)
        self.final_proj = nn.Linear(D, cfg.in_channels)
        self.rotations = Rotations(cfg)

    def forward(self, noisy_SE: Tensor, t_N: Tensor, pack: PackedBatch) -> Tensor:
        """The velocity x0 - noise at noise levels `t_N`, one per clip; v_SE, float32."""
        order_J, video_S = joint_order(pack)
        joint = self._join(t_N, pack, order_J)
        dtype = self.patch_proj.weight.dtype
        # Captions enter with root mean square 1 whatever encoder made them, as the learning rates assume.
        text_LD = self.text_proj(fn.rms_norm(pack.text_LD.to(dtype), (self.cfg.text_width,), eps=NORM_EPS))
        x_JD = torch.cat([text_LD, self.patch_proj(noisy_SE.to(dtype))])[order_J]
        v_first_JKd = None
        for block in self.blocks:
            x_JD, v_first_JKd = block(x_JD, v_first_JKd, joint)
        v_SE = self._final(x_JD, video_S, joint)
        return v_SE + self._linear_part(noisy_SE, t_N, pack) if self.cfg.linear_skip else v_SE

    def _join(self, t_N: Tensor, pack: PackedBatch, order_J: Tensor) -> Joint:
        lengths_N = pack.lengths_N() + pack.text_lengths_N()
        position_J3 = torch.cat([pack.position_S3.new_zeros(len(pack.text_LD), 3), pack.position_S3])[order_J]
        features_NZ = time_features(t_N, self.cfg.time_width).to(self.time_mlp[0].weight.dtype)
        return Joint(
            segments=Segments(
                lengths=tuple(lengths_N.tolist()),
                ends=fn.pad(lengths_N.cumsum(0), (1, 0)).to(torch.int32),
            ),
            clip_J=torch.arange(len(lengths_N), device=lengths_N.device).repeat_interleave(lengths_N),
            time_NZ=self.time_mlp(features_NZ),
            turns=self.rotations.of_positions(position_J3),
        )

    def _final(self, x_JD: Tensor, video_S: Tensor, joint: Joint) -> Tensor:
        shift_SD, scale_SD = of_tokens(self.final_modulation(joint.time_NZ), joint.clip_J[video_S]).chunk(2, dim=1)
        u_SD = (1 + scale_SD) * fn.rms_norm(x_JD[video_S], (self.cfg.width,), eps=NORM_EPS) + shift_SD
        return self.final_proj(u_SD).float()

    def _linear_part(self, noisy_SE: Tensor, t_N: Tensor, pack: PackedBatch) -> Tensor:
        gain_S = linear_denoiser_gain(t_N.float()).repeat_interleave(pack.lengths_N())
        return gain_S[:, None] * noisy_SE.float()


def joint_order(pack: PackedBatch) -> tuple[Tensor, Tensor]:
    """(order_J, video_S): which row of [text; video] each joint token is, and where each video token went.

    The joint sequence holds, clip by clip, the caption tokens and then the video tokens.
    """
    clips = torch.arange(len(pack.clip_ids), device=pack.video_ends_N.device)
    text_clip_L = clips.repeat_interleave(pack.text_lengths_N())
    video_clip_S = clips.repeat_interleave(pack.lengths_N())
    order_J = torch.cat([2 * text_clip_L, 2 * video_clip_S + 1]).argsort(stable=True)
    return order_J, order_J.argsort()[len(text_clip_L) :]


@torch.no_grad()
def init_weights(model: nn.Module, seed: int) -> None:
    """Starting weights by the rules of optim/rules.py; each depends on the seed and the parameter's name alone."""
    rules = rules_for({name: tuple(p.shape) for name, p in model.named_parameters()}, OptimConfig())
    for name, parameter in model.named_parameters():
        init = rules[name].init
        if init is Init.UNIT_ROWS:
            parameter.copy_(unit_rows(tuple(parameter.shape), seed, name))
        else:
            parameter.fill_({Init.ZERO: 0.0, Init.HALF: 0.5, Init.ONE: 1.0}[init])


def unit_rows(shape: tuple[int, int], seed: int, name: str) -> Tensor:
    """N(0, 1), each row divided by its length; float32 on the CPU, the same for the same seed and name."""
    key = hashlib.blake2b(f"{seed}/init/{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
    w = torch.randn(shape, generator=generator)
    return w / w.norm(dim=1, keepdim=True)
