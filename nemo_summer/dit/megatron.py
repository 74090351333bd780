"""The transformer as megatron-core's schedules, data-parallel wrapper and checkpoints want it. Same parameter names."""

from __future__ import annotations

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


class Column(ColumnParallelLinear):
    """Output rows are shared over the tensor ranks; gives back one tensor."""

    # megatron adds an empty `_extra_state` to the state dict, which the plain model does not have.
    get_extra_state = nn.Module.get_extra_state

    def __init__(self, d_in: int, d_out: int, config: Any, groups: ParallelGroups) -> None:
        super().__init__(
            d_in, d_out, config=config, init_method=None, bias=False, gather_output=False, tp_group=groups.tp_group
        )
        # megatron marks a weight while it fills it; ours are filled by init_weights.
        set_tensor_model_parallel_attributes(self.weight, True, 0, 1)

    def forward(self, x_JD: Tensor) -> Tensor:
        return super().forward(x_JD)[0]


class Row(RowParallelLinear):
    """Input columns are shared over the tensor ranks; gives back one tensor."""

    get_extra_state = nn.Module.get_extra_state

    def __init__(self, d_in: int, d_out: int, config: Any, groups: ParallelGroups) -> None:
        super().__init__(
            d_in,
            d_out,
            config=config,
            init_method=None,
            bias=False,
            input_is_parallel=True,
            skip_bias_add=False,
            tp_group=groups.tp_group,
        )
        set_tensor_model_parallel_attributes(self.weight, True, 1, 1)

    def forward(self, x_JF: Tensor) -> Tensor:
        return super().forward(x_JF)[0]


class MegatronDit(Dit):
    """Dit on megatron's layers. A subclass and no wrapper, so that its state dict has the plain model's names."""

    model_type = ModelType.encoder_or_decoder

    def __init__(self, cfg: DitConfig, groups: ParallelGroups, dtype: torch.dtype = torch.float32) -> None:
        self.groups = groups
        config = cfg.to_megatron(groups, dtype)
        super().__init__(cfg, MegatronLinears(config, groups))
        self.config = config
        init_weights(self, cfg.seed)
        self.to(groups.device)

    def set_input_tensor(self, input_tensor: list[Tensor | None]) -> None:
        """Called by megatron's schedule with the output of the pipeline stage before; there is none in this version."""
        assert input_tensor is None or input_tensor[0] is None, "pipeline stages are not built in this version"

    def state_dict_for_save_checkpoint(self, prefix: str = "", keep_vars: bool = False) -> dict[str, Any]:
        return self.state_dict(prefix=prefix, keep_vars=keep_vars)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple = (), metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Each parameter as megatron's ShardedTensor: shared ones by their partition_dim, all others as copies."""
        axes = {
            name: p.partition_dim for name, p in self.named_parameters() if getattr(p, "tensor_model_parallel", False)
        }
        return make_sharded_tensors_for_checkpoint(
            self.state_dict(keep_vars=True),
            prefix,
            axes,
            sharded_offsets,
            tp_group=self.groups.tp_group,
            dp_cp_group=self.groups.dp_cp_group,
        )
