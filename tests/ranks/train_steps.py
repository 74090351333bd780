"""One rank of test_train_steps.py: five steps of training as `summer train` does them, on packs that are handed in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from energon_datasets.batch import PackedBatch
from nemo_summer.diffusion.time import ObjectiveConfig
from nemo_summer.dit.config import DitConfig
from nemo_summer.optim.config import OptimConfig
from nemo_summer.optim.rules import rules_for
from nemo_summer.parallel.groups import ParallelGroups
from nemo_summer.parallel.init import start, stop
from nemo_summer.parallel.schedule import replicate
from nemo_summer.training.config import TrainConfig
from nemo_summer.training.log import Log
from nemo_summer.training.run import Run
from nemo_summer.training.state import TrainState
from nemo_summer.training.step import take_step
from nemo_summer.training.stop import StopRequest
from nemo_summer.training.watch import Watch
from tests.nemo_summer.dit.packs import random_pack

STEPS, PACKS_PER_STEP = 5, 4
DIT = DitConfig(width=32, heads=2, layers=3, text_width=8, time_width=16)
OPTIM = OptimConfig(lr=0.03, warmup_steps=2, eps=1e-4)
"""With a larger eps: where a gradient is next to nothing Adam divides rounding by rounding, and there two sums in
another order give another step. Nothing else of the way depends on it."""
GRIDS = [(2, 2, 3), (3, 2, 2), (1, 2, 2), (2, 3, 3), (4, 2, 2)]


def global_batch(step: int) -> list[PackedBatch]:
    """Four packs of one to three clips of unequal length: what a step trains on, whatever the number of ranks."""
    packs = []
    for place in range(PACKS_PER_STEP):
        number = step * PACKS_PER_STEP + place
        grids = [GRIDS[(number + k) % len(GRIDS)] for k in range(1 + number % 3)]
        packs.append(random_pack(grids, [2 + k for k in range(len(grids))], seed=number, channels=96, text_width=8))
    return packs


def shares(groups: ParallelGroups) -> Iterator[PackedBatch]:
    for step in range(STEPS):
        yield from global_batch(step)[groups.dp_rank :: groups.dp_size]


def run_of(groups: ParallelGroups) -> Run:
    from nemo_summer.dit.megatron import MegatronDit
    from nemo_summer.optim.distributed import build_optimizer, full_shapes

    model = replicate(MegatronDit(DIT, groups), groups, bucket_size=5003)
    shapes = full_shapes([model], groups)
    rules = rules_for(shapes, OPTIM)
    optimizer = build_optimizer(OPTIM, [model], rules, groups)
    return Run(
        cfg=TrainConfig(steps=STEPS, packs_per_step=PACKS_PER_STEP),
        dit=DIT,
        optim=OPTIM,
        objective=ObjectiveConfig(),
        groups=groups,
        model=model,
        optimizer=optimizer,
        watch=Watch(optimizer=optimizer, rules=rules, shapes=shapes, optim=OPTIM, every=STEPS),
        loader=shares(groups),  # type: ignore[arg-type]
        log=Log(out=None, steps=STEPS, every=1),
        stop=StopRequest(),
    )


def main(out: Path) -> None:
    groups = start()
    run, state, reports = run_of(groups), TrainState(), []
    for _ in range(STEPS):
        reports.append(take_step(run, run.next_packs(), state))
        state.advance(reports[-1])
    if groups.is_first:
        weights = {name.removeprefix("module."): p.detach().clone() for name, p in run.model.named_parameters()}
        torch.save(
            {
                "weights": weights,
                "loss": [r.loss for r in reports],
                "grad_norm": [r.grad_norm for r in reports],
                "tokens": [r.tokens for r in reports],
                "flops": [r.flops for r in reports],
                "rotation": reports[-1].band.rotation,
                "row_norm_error": reports[-1].band.row_norm_error,
            },
            out,
        )
    stop(groups)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
