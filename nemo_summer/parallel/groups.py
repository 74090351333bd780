"""Who belongs to whom: the settings of the layout and the record of groups that is handed around."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


@dataclass(kw_only=True)
class ParallelConfig:
    """How many ranks share one copy of the model; all others hold copies and share the data."""

    tensor: int = 1
    """Ranks that share each matrix."""
    pipeline: int = 1
    """Ranks that share the blocks."""
    context: int = 1
    """Ranks that share the tokens of a pack."""

    def __post_init__(self) -> None:
        for f in fields(self):
            size = getattr(self, f.name)
            if size < 1:
                raise ValueError(f"parallel.{f.name}={size} is no number of ranks: set parallel.{f.name}=1")
            if size > 1:
                raise ValueError(
                    f"parallel.{f.name}={size} is not built in this version, in which every rank holds the whole model "
                    f"and ranks share the data: set parallel.{f.name}=1"
                )


@dataclass(frozen=True, slots=True)
class ParallelGroups:
    """This process's place among the ranks, and its groups."""

    rank: int
    world: int
    local_rank: int
    device: torch.device
    backend: str
    """`nccl` or `gloo`"""
    dp_rank: int
    dp_size: int
    tp: int
    pp: int
    cp: int
    dp_group: ProcessGroup
    dp_cp_group: ProcessGroup
    """Ranks with the same piece of the model: gradients are summed over them."""
    tp_group: ProcessGroup
    pp_group: ProcessGroup
    cp_group: ProcessGroup
    megatron: Any
    """The same groups as megatron's ProcessGroupCollection."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes and speaks for all."""
        return self.rank == 0

    def sum_over_data(self, values: Tensor) -> Tensor:
        """The sum of `values` over the ranks that share the data, the same on each; `values` stays as it is."""
        total = values.detach().clone().to(self.device)
        dist.all_reduce(total, group=self.dp_cp_group)
        return total

    def max_over_all(self, values: Tensor) -> Tensor:
        """The largest of `values` over all ranks, element by element."""
        largest = values.detach().clone().to(self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest

    def barrier(self) -> None:
        """Waits until every rank is here."""
        dist.barrier()
