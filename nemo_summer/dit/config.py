"""Sizes of the diffusion transformer, and the one place where they get megatron's names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from nemo_summer.dit.linear import Linears
    from nemo_summer.dit.model import Dit
    from nemo_summer.parallel.groups import ParallelGroups


@dataclass(kw_only=True)
class DitConfig:
    """The Summer block (DESIGN sec. 4); every constant that the paper leaves open is a field."""

    width: int = 128
    heads: int = 4
    layers: int = 6
    mlp_ratio: float = 4.0
    """Hidden width of the gated MLP over the width."""
    text_width: int = 64
    """Numbers per caption token (64 for the embedded text encoder, 4096 for T5 XXL)."""
    time_width: int = 256
    """Numbers of the time embedding."""
    in_channels: int = 96
    """Numbers per video token: 48 latent channels times a patch of 2x1x1."""
    gate_offset_exponent: float = 0.5
    """p of the gate offset `layers^-p`: 1/2 keeps the sum of the blocks' variances, 1 the sum of their means."""
    zero_frequency_share: float = 0.1
    """Share of each head's angles that do not depend on the position."""
    frequency_min: float = 0.2
    frequency_max: float = 20.0
    """Fastest rotation in radians per unit of position; a clip is 2 units long along each axis."""
    qk_norm: bool = False
    """Whether queries and keys of each head are divided by their root mean square."""
    linear_skip: bool = False
    """Whether the model's output is added to the best linear denoiser's, `c(t) x_t` (Karras et al. 2022, eq. 7), so
    that training starts there instead of at zero. Not in the paper; short runs gain by it."""
    seed: int = 0
    """Of the starting weights."""

    def __post_init__(self) -> None:
        for name in ("width", "heads", "layers", "text_width", "time_width", "in_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} must be 1 or more")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"model.width={self.width} does not divide into {self.heads} heads of an even size: "
                f"set model.width={max(1, self.width // (2 * self.heads)) * 2 * self.heads} or another model.heads"
            )
        if self.time_width % 2:
            raise ValueError(
                f"model.time_width={self.time_width} must be even: set model.time_width={self.time_width + 1}"
            )
        if not math.isfinite(self.mlp_ratio) or self.hidden < 1:
            raise ValueError(f"model.mlp_ratio={self.mlp_ratio} gives no hidden width: set model.mlp_ratio=4")
        if not 0 <= self.zero_frequency_share <= 1 or not 0 < self.frequency_min <= self.frequency_max:
            raise ValueError(
                f"model.frequency_min={self.frequency_min}, model.frequency_max={self.frequency_max} and "
                f"model.zero_frequency_share={self.zero_frequency_share} must hold 0 < min <= max and 0 <= share <= 1"
            )

    @property
    def hidden(self) -> int:
        """Hidden width F of the gated MLP."""
        return int(self.width * self.mlp_ratio)

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def gate_offset(self) -> float:
        """c_L = L^-p, what each gate starts at (Summer-22B sec. 4.9, reconstructed)."""
        return self.layers**-self.gate_offset_exponent

    def parameter_count(self) -> int:
        """Numbers in the model; DESIGN sec. 4 block plus embedders and output layer."""
        D, F, E, X, Z = self.width, self.hidden, self.in_channels, self.text_width, self.time_width
        block = (3 * D + 2 * F) * D + D * (D + F) + (Z * D + D) + (D * 3 * D + 3 * D) + 2
        embedders = (E * D + D) + (X * D + D) + 2 * (Z * Z + Z)
        output = (Z * D + D) + (D * 2 * D + 2 * D) + (D * E + E)
        return self.layers * block + embedders + output

    def build(self, linears: Linears | None = None) -> Dit:
        """The model with starting weights, on plain torch layers unless told otherwise."""
        from nemo_summer.dit.linear import PlainLinears
        from nemo_summer.dit.model import Dit, init_weights

        model = Dit(self, linears or PlainLinears())
        init_weights(model, self.seed)
        return model

    def to_megatron(self, groups: ParallelGroups, dtype: torch.dtype = torch.float32) -> Any:
        """megatron's TransformerConfig. `dtype` of weights and activations: float32, or bfloat16 on a GPU."""
        from megatron.core.transformer import TransformerConfig

        return TransformerConfig(
            num_layers=self.layers,
            hidden_size=self.width,
            num_attention_heads=self.heads,
            ffn_hidden_size=self.hidden,
            gated_linear_unit=True,
            activation_func=torch.nn.functional.silu,
            normalization="RMSNorm",
            add_bias_linear=False,
            attention_dropout=0.0,
            hidden_dropout=0.0,
            tensor_model_parallel_size=groups.tp,
            pipeline_model_parallel_size=groups.pp,
            context_parallel_size=groups.cp,
            calculate_per_token_loss=True,
            params_dtype=dtype,
            pipeline_dtype=dtype,
            bf16=dtype == torch.bfloat16,
            use_cpu_initialization=groups.device.type == "cpu",
            perform_initialization=False,
            gradient_accumulation_fusion=False,
            bias_dropout_fusion=False,
            bias_activation_fusion=False,
            masked_softmax_fusion=False,
        )
