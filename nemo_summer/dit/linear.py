"""The two matrices of a block, on plain torch or on megatron-core's parallel layers, under the same parameter names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

if TYPE_CHECKING:
    from nemo_summer.parallel.groups import ParallelGroups


class Linears(Protocol):
    """Makes a block's matrices; both have no bias, and calling one gives back one tensor."""

    def column(self, d_in: int, d_out: int) -> nn.Module:
        """A matrix whose output is what ranks would share."""

    def row(self, d_in: int, d_out: int) -> nn.Module:
        """A matrix whose input is what ranks would share."""


class PlainLinears:
    """torch.nn.Linear; needs no megatron."""

    def column(self, d_in: int, d_out: int) -> nn.Module:
        return nn.Linear(d_in, d_out, bias=False)

    def row(self, d_in: int, d_out: int) -> nn.Module:
        return nn.Linear(d_in, d_out, bias=False)


class MegatronLinears:
    """megatron-core's ColumnParallelLinear and RowParallelLinear; Transformer Engine's where that is installed."""

    def __init__(self, config: Any, groups: ParallelGroups) -> None:
        """`config` is megatron's TransformerConfig (`DitConfig.to_megatron`)."""
        self.config = config
        self.groups = groups

    def column(self, d_in: int, d_out: int) -> nn.Module:
        from nemo_summer.dit.megatron import Column

        return Column(d_in, d_out, self.config, self.groups)

    def row(self, d_in: int, d_out: int) -> nn.Module:
        from nemo_summer.dit.megatron import Row

        return Row(d_in, d_out, self.config, self.groups)
