"""Energon's loader for one data-parallel rank: opened, read, saved, restored and closed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from megatron.energon import WorkerConfig, get_savable_loader, get_train_dataset

from energon_datasets import energon_remedies
from energon_datasets.cook import ShardReader
from energon_datasets.lists import Lists
from energon_datasets.task_encoder import PackingTaskEncoder

if TYPE_CHECKING:
    from energon_datasets.loader import DataConfig

ROWS_IN_MEMORY = 100_000
"""So many lines of the list are put in a random order per worker; of more, runs of neighbours stay together."""


class Stream(Iterator[dict[str, Any]]):
    """What `PackingTaskEncoder` yields, without end, each clip of this rank once per pass."""

    def __init__(self, cfg: DataConfig, lists: Lists, split: str, dp_rank: int, dp_size: int, seed: int) -> None:
        energon_remedies.apply()
        workers = max(1, cfg.workers)
        smallest = lists.clips[split] // (dp_size * workers)
        self._reader = ShardReader(Path(cfg.path))
        encoder = PackingTaskEncoder(self._reader, cfg.budget, seed, cfg.shares(), cfg.text_dropout)
        dataset = get_train_dataset(
            lists.path(split),
            worker_config=_place(cfg.workers, dp_rank, dp_size, seed),
            batch_size=None,
            # Not more than a worker's part of the list: a larger buffer would put one clip twice into a pack.
            packing_buffer_size=min(cfg.packing_buffer, smallest),
            shuffle_buffer_size=None,
            max_samples_per_sequence=max(1, smallest // ROWS_IN_MEMORY),
            task_encoder=encoder,
        )
        encoder.rows_of_worker = [int(dataset.len_worker(worker)) for worker in range(workers)]
        self.clips = sum(encoder.rows_of_worker)
        self._energon = get_savable_loader(
            dataset,
            prefetch_factor=cfg.prefetch,
            watchdog_timeout_seconds=600,
            checkpoint_every_sec=10,  # a restored worker reads again what it read since
            # A pack leaves no cycles behind; collecting anyway costs a second at the start of each worker.
            gc_collect_every_n_steps=0,
        )
        self._energon.pin_memory = torch.cuda.is_available()  # Energon always asks for it, and torch complains
        self._batches: Iterator[dict[str, Any]] | None = None

    @property
    def started(self) -> bool:
        return self._batches is not None

    def __next__(self) -> dict[str, Any]:
        if self._batches is None:
            # Not earlier: Energon waits for ever when it is saved between the start of its workers and a batch.
            self._batches = iter(self._energon)
        return next(self._batches)

    def state(self) -> Any:
        """Energon's state, None before the first batch."""
        return self._energon.save_state_rank() if self.started or self._energon.num_workers else None

    def restore(self, state: Any) -> None:
        """Before the first batch only: Energon cannot turn running workers round."""
        assert not self.started
        self._energon.restore_state_rank(state)

    def close(self) -> None:
        """Ends the workers, which would live as long as the process otherwise."""
        workers = getattr(self._energon, "_iterator", None)
        if workers is not None:
            workers._shutdown_workers()
        self._reader.close()


def _place(workers: int, dp_rank: int, dp_size: int, seed: int) -> WorkerConfig:
    return WorkerConfig(
        rank=dp_rank,
        world_size=dp_size,
        num_workers=workers,
        seed_offset=seed,
        global_error_handler=energon_remedies.one_line,
    )
