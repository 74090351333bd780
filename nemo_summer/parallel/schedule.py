"""The door to megatron's forward-backward schedule and to its data-parallel wrapper.

Every rank sums losses over its tokens; gradients are summed over ranks and rounds and divided once, by the total
weight of all tokens of the step. So a step does not depend on which rank or round a clip lies in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from energon_datasets.batch import PackedBatch
from nemo_summer.parallel.groups import ParallelGroups


@dataclass(frozen=True, slots=True)
class RoundLoss:
    """What one forward pass over one pack gives."""

    loss_sum: Tensor
    """Sum over tokens, not the mean; gradients flow from it."""
    tokens: Tensor | float
    """What the sums of all rounds and ranks are divided by together: the number of tokens, or their weights' sum."""
    log: Any
    """Handed back to the caller of `run_rounds`."""


ForwardStep = Callable[[nn.Module, PackedBatch], RoundLoss]


def replicate(
    model: nn.Module, groups: ParallelGroups, bucket_size: int | None = None, overlap: bool = False
) -> nn.Module:
    """`model` inside megatron's DistributedDataParallel, ready for the distributed optimizer and for `run_rounds`.

    `overlap` sums the gradients of one bucket of `bucket_size` numbers while the backward pass makes the next.
    """
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig

    cfg = DistributedDataParallelConfig(
        use_distributed_optimizer=True,
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=overlap,
        overlap_param_gather=overlap,
        bucket_size=bucket_size,
    )
    # 0.19 would rather be handed the layout of its buffers, and says so at every start.
    logging.getLogger(DistributedDataParallel.__module__).setLevel(logging.ERROR)
    copies = DistributedDataParallel(model.config, cfg, model)
    if overlap:
        model.config.no_sync_func = copies.no_sync
    return copies


def run_rounds(
    groups: ParallelGroups,
    model: nn.Module,
    packs: Sequence[PackedBatch],
    forward_step: ForwardStep,
    forward_only: bool = False,
) -> list[Any]:
    """One forward and backward pass per pack, gradients summed; the logs, one per pack.

    Afterwards the gradient buffers hold d(sum of losses)/d(parameter) / (sum of tokens), sums over all rounds and
    ranks. They are zeroed at the start. `forward_only` makes no gradients. ValueError without a pack.
    """
    if not packs:
        raise ValueError("a step needs at least one pack on every rank: raise train.packs_per_step or lower ranks")
    from megatron.core.pipeline_parallel import get_forward_backward_func

    weights: list[Tensor] = []

    def forward(waiting: Iterator[PackedBatch], chunk: nn.Module) -> tuple[Tensor, Callable[[Tensor], tuple]]:
        result = forward_step(chunk, next(waiting))
        weights.append(torch.as_tensor(result.tokens, dtype=torch.float64, device=groups.device).detach())
        none = torch.zeros([], dtype=torch.int, device=groups.device)
        return result.loss_sum, lambda loss: (loss, none, result.log)

    config = _config_of(model)
    config.finalize_model_grads_func = _divide_by(weights)
    if not forward_only:
        model.zero_grad_buffer()
    return get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=iter(packs),
        model=model,
        num_microbatches=len(packs),
        seq_length=max(pack.tokens for pack in packs),
        micro_batch_size=1,
        forward_only=forward_only,
    )


def _config_of(model: nn.Module) -> Any:
    from megatron.core.utils import get_model_config

    config = get_model_config(model)
    # Without it megatron divides by ranks and rounds, and tokens of short packs would weigh more.
    assert config.calculate_per_token_loss, "the model's megatron config must have calculate_per_token_loss=True"
    return config


def _divide_by(weights: list[Tensor]) -> Callable[..., None]:
    """megatron's finalisation with our own divisor: megatron counts tokens as whole numbers, ours carry weights."""
    from megatron.core.distributed import finalize_model_grads

    def finalize(chunks: list[nn.Module], num_tokens: Tensor, **kwargs: Any) -> None:
        finalize_model_grads(chunks, torch.stack(weights).sum(), **kwargs)

    return finalize
