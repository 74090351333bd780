"""What a run is made of: built once at the start, read by every step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from energon_datasets.batch import PackedBatch
from energon_datasets.loader import Loader
from nemo_summer.diffusion.time import ObjectiveConfig
from nemo_summer.dit.config import DitConfig
from nemo_summer.optim.config import OptimConfig
from nemo_summer.parallel.groups import ParallelGroups
from nemo_summer.training.config import TrainConfig
from nemo_summer.training.log import Log
from nemo_summer.training.state import TrainState
from nemo_summer.training.stop import StopRequest
from nemo_summer.training.watch import Watch


class Task(Protocol):
    """Something that happens once in a while."""

    before_stopping: bool

    def due(self, step: int) -> bool: ...

    def do(self, run: Run, state: TrainState) -> None: ...


@dataclass(kw_only=True)
class Run:
    """Everything a step needs, named."""

    cfg: TrainConfig
    dit: DitConfig
    optim: OptimConfig
    objective: ObjectiveConfig
    groups: ParallelGroups
    model: nn.Module
    """megatron's DistributedDataParallel around the transformer"""
    optimizer: Any
    """megatron's DistributedOptimizer with rows on the sphere"""
    watch: Watch
    loader: Loader
    log: Log
    stop: StopRequest
    tasks: list[Task] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rounds = self.cfg.rounds(self.groups.dp_size)
        self._packs: Iterator[PackedBatch] = iter(self.loader)
        self.step_began = time.perf_counter()

    def next_packs(self) -> list[PackedBatch]:
        """This rank's packs of the next step, one per round of accumulation. The step's time begins here: waiting for
        data is part of it."""
        self.step_began = time.perf_counter()
        return [next(self._packs).to(self.groups.device) for _ in range(self._rounds)]
