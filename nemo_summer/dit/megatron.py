"""The transformer as megatron-core's schedules, data-parallel wrapper and checkpoints want it, under the same names."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from megatron.core.enums import ModelType
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor, nn

from nemo_summer.dit.config import DitConfig
from nemo_summer.dit.linear import MegatronLinears
from nemo_summer.dit.model import Dit, init_weights
from nemo_summer.parallel.groups import ParallelGroups


def has_transformer_engine() -> bool:
    """Whether the layers of Transformer Engine can be used: it is installed and there is a GPU."""
    return torch.cuda.is_available() and importlib.util.find_spec("transformer_engine") is not None


if has_transformer_engine():
    from megatron.core.extensions.transformer_engine import TEColumnParallelLinear as ColumnLayer
    from megatron.core.extensions.transformer_engine import TERowParallelLinear as RowLayer
else:
    ColumnLayer, RowLayer = ColumnParallelLinear, RowParallelLinear


class Column(ColumnLayer):
    """Ranks share the rows of the matrix, and so its output. Gives back one tensor."""

    # megatron and Transformer Engine add an `_extra_state` to the state dict, which the plain model does not have;
    # it holds FP8 scales, which this version does not use.
    get_extra_state = nn.Module.get_extra_state

    def __init__(self, d_in: int, d_out: int, config: Any, groups: ParallelGroups) -> None:
        super().__init__(
            d_in,
            d_out,
            config=config,
            init_method=_leave,
            gather_output=False,
            bias=False,
            skip_bias_add=False,
            is_expert=False,
            tp_group=groups.tp_group,
        )
        _mark(self.weight, partition_dim=0)

    def forward(self, x_JD: Tensor) -> Tensor:
        return super().forward(x_JD)[0]


class Row(RowLayer):
    """Ranks share the columns of the matrix, and so its input. Gives back one tensor."""

    get_extra_state = nn.Module.get_extra_state

    def __init__(self, d_in: int, d_out: int, config: Any, groups: ParallelGroups) -> None:
        super().__init__(
            d_in,
            d_out,
            config=config,
            init_method=_leave,
            bias=False,
            input_is_parallel=True,
            skip_bias_add=False,
            is_expert=False,
            tp_group=groups.tp_group,
        )
        _mark(self.weight, partition_dim=1)

    def forward(self, x_JF: Tensor) -> Tensor:
        return super().forward(x_JF)[0]


def _leave(weight: Tensor) -> None:
    """megatron's hook for starting weights; ours come from `init_weights`, the same for every layout."""


def _mark(weight: Tensor, partition_dim: int) -> None:
    # megatron marks a weight while it fills it, and we do not let it.
    if not hasattr(weight, "tensor_model_parallel"):
        set_tensor_model_parallel_attributes(weight, True, partition_dim, 1)


class MegatronDit(Dit):
    """Dit on megatron's layers. A subclass and no wrapper, so that its state dict has the plain model's names."""

    model_type = ModelType.encoder_or_decoder

    def __init__(self, cfg: DitConfig, groups: ParallelGroups, dtype: torch.dtype = torch.float32) -> None:
        if dtype != torch.float32 and groups.device.type == "cpu":
            raise ValueError(f"a model in {dtype} trains on a GPU only: build it in torch.float32 on this machine")
        config = cfg.to_megatron(groups, dtype)
        super().__init__(cfg, MegatronLinears(config, groups))
        self.config = config
        self.groups = groups
        init_weights(self, cfg.seed)
        # No Float16Module of megatron's: it would round the noise levels too. Dit casts what it multiplies.
        self.to(groups.device, dtype)

    def set_input_tensor(self, input_tensor: list[Tensor | None] | None) -> None:
        """Called by megatron's schedule with the output of the pipeline stage before; this version has no stages."""
        assert not input_tensor or input_tensor[0] is None, "pipeline stages are not built in this version"

    def state_dict_for_save_checkpoint(self, prefix: str = "", keep_vars: bool = False) -> dict[str, Any]:
        return self.state_dict(prefix=prefix, keep_vars=keep_vars)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple = (), metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Each parameter as megatron's ShardedTensor: shared ones by their partition_dim, all others as copies."""
        shared = {n: p.partition_dim for n, p in self.named_parameters() if getattr(p, "tensor_model_parallel", False)}
        return make_sharded_tensors_for_checkpoint(
            self.state_dict(keep_vars=True),
            prefix,
            shared,
            sharded_offsets,
            tp_group=self.groups.tp_group,
            dp_cp_group=self.groups.dp_cp_group,
        )
