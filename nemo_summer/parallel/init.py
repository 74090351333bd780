"""Start and end of the ranks. The only file that sets megatron's globals."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from nemo_summer.parallel import cpu
from nemo_summer.parallel.groups import ParallelConfig, ParallelGroups

TIMEOUT_S = 600
"""Longest wait for another rank; a rank that died is noticed after this at the latest."""


def start(
    cfg: ParallelConfig | None = None, seed: int = 0, threads: int = 0, timeout_s: int = TIMEOUT_S
) -> ParallelGroups:
    """Joins the ranks that torchrun started, or makes a group of this process alone where there is no torchrun.

    `nccl` where there is a GPU, else `gloo`. `threads` are this process's CPU threads, 0 for its share of the cores.
    RuntimeError where ranks were started before and not stopped.
    """
    cfg = cfg or ParallelConfig()
    if dist.is_initialized():
        raise RuntimeError("the ranks of this process were started already: call parallel.init.stop() first")
    on_gpu = torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    cpu.install()
    if on_gpu:
        torch.cuda.set_device(local_rank)
    torch.set_num_threads(threads or threads_per_rank())
    _join(backend="nccl" if on_gpu else "gloo", timeout_s=timeout_s)
    _set_megatron_globals(cfg, seed)
    return _record(cfg, torch.device("cuda", local_rank) if on_gpu else torch.device("cpu"), local_rank)


def stop(groups: ParallelGroups) -> None:
    """Leaves the ranks. Waits for the others first: gloo's threads abort a process whose peer is gone."""
    from megatron.core import parallel_state

    groups.barrier()
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


def threads_per_rank() -> int:
    """CPU threads for this process: what OMP_NUM_THREADS says, or its share of the machine's cores.

    A bare torchrun sets OMP_NUM_THREADS=1 for several ranks and says so; `parallel/launch.py` sets the share.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _join(backend: str, timeout_s: int) -> None:
    timeout = timedelta(seconds=timeout_s)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)


def _set_megatron_globals(cfg: ParallelConfig, seed: int) -> None:
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    parallel_state.initialize_model_parallel(cfg.tensor, cfg.pipeline, context_parallel_size=cfg.context)
    torch.manual_seed(seed)
    model_parallel_cuda_manual_seed(seed)


def _record(cfg: ParallelConfig, device: torch.device, local_rank: int) -> ParallelGroups:
    from megatron.core import parallel_state
    from megatron.core.process_groups_config import ProcessGroupCollection

    groups = ProcessGroupCollection.use_mpu_process_groups()
    return ParallelGroups(
        rank=dist.get_rank(),
        world=dist.get_world_size(),
        local_rank=local_rank,
        device=device,
        backend=dist.get_backend(),
        dp_rank=parallel_state.get_data_parallel_rank(),
        dp_size=parallel_state.get_data_parallel_world_size(),
        tp=cfg.tensor,
        pp=cfg.pipeline,
        cp=cfg.context,
        dp_group=groups.dp,
        dp_cp_group=groups.dp_cp,
        tp_group=groups.tp,
        pp_group=groups.pp,
        cp_group=groups.cp,
        megatron=groups,
    )
