"""One rank of test_data_parallel.py: gradients of a step over its share of the packs, gathered from all ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from energon_datasets.batch import PackedBatch
from nemo_summer.dit.config import DitConfig
from nemo_summer.parallel.init import start, stop
from nemo_summer.parallel.schedule import RoundLoss, replicate, run_rounds
from tests.nemo_summer.dit.packs import fill_zeros, random_pack

CFG = DitConfig(width=32, heads=2, layers=2, text_width=8, time_width=16, in_channels=12)
GRIDS = [[(2, 2, 3)], [(3, 2, 2), (1, 2, 2), (2, 3, 3)], [(4, 2, 2), (1, 1, 3)], [(2, 2, 2)]]


def packs() -> list[PackedBatch]:
    """Four packs of 1 to 3 clips and 8 to 34 tokens, so that ranks and rounds get very unequal shares."""
    return [
        random_pack(grids, [3 + i for i in range(len(grids))], seed=seed, channels=12, text_width=8)
        for seed, grids in enumerate(GRIDS)
    ]


def loss_of(model: nn.Module, pack: PackedBatch) -> RoundLoss:
    """Squared error against the clean latents; tokens of clip i weigh 1 + 0.37 i, so weights are not just counts."""
    error_S = (model(pack.latents_SE, pack.uniform_N, pack) - pack.latents_SE).square().mean(dim=1)
    weight_S = (1.0 + 0.37 * torch.arange(len(pack.clip_ids))).repeat_interleave(pack.lengths_N())
    return RoundLoss(loss_sum=(error_S * weight_S).sum(), tokens=weight_S.sum(), log=float((error_S * weight_S).sum()))


def whole_gradients(model: nn.Module, group: dist.ProcessGroup) -> dict[str, Tensor]:
    """Gradients by name; with a distributed optimizer each rank has the sum of its piece only, so they are gathered."""
    for buffer in model.buffers:
        for bucket in buffer.buckets:
            pieces = list(bucket.grad_data.chunk(group.size()))
            dist.all_gather(pieces, pieces[group.rank()].clone(), group=group)
    return {name.removeprefix("module."): p.main_grad.clone() for name, p in model.named_parameters()}


def main(out: Path) -> None:
    groups = start()
    from nemo_summer.dit.megatron import MegatronDit

    found = {}
    for way, overlap in (("at the end", False), ("overlapped", True)):
        bare = MegatronDit(CFG, groups)
        fill_zeros(bare)
        model = replicate(bare, groups, bucket_size=5003, overlap=overlap)
        logs = run_rounds(groups, model, packs()[groups.dp_rank :: groups.dp_size], loss_of)
        gradients = whole_gradients(model, groups.dp_group)
        loss = float(groups.sum_over_data(torch.tensor(sum(logs), dtype=torch.float64)))
        found[way] = {"gradients": gradients, "loss": loss, "rounds": len(logs)}
    if groups.is_first:
        torch.save(found, out)
    stop(groups)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
