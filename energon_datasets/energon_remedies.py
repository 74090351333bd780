"""What Megatron-Energon 7.4.1 needs to serve us: four faults mended, and its noise turned off.

    a restored loader that is saved again before every worker has delivered forgets how far the others were
    a loader that is saved before every worker has begun takes the others to be where they were before the restore
    an I/O error while reading the list ends the worker instead of reaching the error handler
    a damaged part may be unpickled by the default decoder (we decode nothing, and forbid it besides)

A fifth that we know, joins with gaps, does not touch us: we join by key in our own lists.
All of it can go when the pinned version changes and tests/energon_datasets/test_energon_remedies.py passes without.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from importlib.metadata import version
from typing import Any

os.environ["WDS_SECURE"] = "1"  # before webdataset is imported: it reads the variable then

import megatron.energon.flavors.jsonl.crude_jsonl_dataset as jsonl_dataset
import webdataset.utils
from megatron.energon.flavors.webdataset.sample_loader import RawSampleData, WebdatasetSampleLoaderDataset
from megatron.energon.savable_loader import SavableDataLoader, SavableDatasetWrapper
from megatron.energon.wrappers.packing_dataset import PackingDataset

log = logging.getLogger(__name__)

ENERGON_VERSION = "7.4.1"


def apply() -> None:
    """Once per process, any number of times. RuntimeError under another version of Energon."""
    found = version("megatron-energon")
    if found != ENERGON_VERSION:
        raise RuntimeError(
            f"megatron-energon {found} is installed, the loader was made for {ENERGON_VERSION}: "
            f"pip install megatron-energon=={ENERGON_VERSION}"
        )
    webdataset.utils.enforce_security = True
    if getattr(SavableDataLoader, "remedied", False):
        return
    SavableDataLoader.remedied = True
    _count_what_was_skipped()
    _let_workers_begin()
    _hand_reading_errors_on()
    _be_quiet()


def _count_what_was_skipped() -> None:
    """A worker that has not delivered since the restore stands at its checkpoint plus the batches to skip."""
    original = SavableDataLoader.restore_state_rank

    def restore_state_rank(self: Any, state: Any) -> None:
        original(self, state)
        if state is not None and self.num_workers > 0:
            self._worker_sample_counters = [
                (0 if worker.state is None else worker.state.sample_index) + worker.offset - 1
                for worker in state.worker_states
            ]

    SavableDataLoader.restore_state_rank = restore_state_rank


def _let_workers_begin() -> None:
    """A worker answers only once it stands at its first batch: what asks for its place waits until then."""
    original = SavableDatasetWrapper._command_thread

    def _command_thread(self: Any) -> None:
        with contextlib.suppress(ReferenceError):  # the worker ended before it began
            while self._running and len(self._last_checkpoints) == 1 and self._last_checkpoints[0].sample_index < 0:
                time.sleep(0.01)
        original(self)

    SavableDatasetWrapper._command_thread = staticmethod(_command_thread)


def _hand_reading_errors_on() -> None:
    original = WebdatasetSampleLoaderDataset._get_sample

    def _get_sample(self: Any, index: int) -> RawSampleData:
        try:
            return original(self, index)
        except (OSError, ValueError) as error:
            self.worker_config.global_error_handler(error, {"__key__": f"line {index + 1}"}, None)
            for reader in self.join_readers:
                reader.close()
            return RawSampleData(__restore_key__=("Webdataset", index), data=(None,) * len(self.join_readers))

    WebdatasetSampleLoaderDataset._get_sample = _get_sample


def _be_quiet() -> None:
    """No table of slices on standard output, no progress bar per worker."""
    jsonl_dataset._print_shard_slices = lambda *_: None
    original = PackingDataset._fill_reading_buffer

    def _fill_reading_buffer(self: Any, source_iter: Any, log_progress: bool = False) -> bool:
        return original(self, source_iter, log_progress=False)

    PackingDataset._fill_reading_buffer = _fill_reading_buffer


def one_line(error: Exception, sample: Any, sources: Any = None) -> None:
    """Energon's error handler: one line for what the data can cause; anything else ends the run."""
    key = sample.get("__key__") if isinstance(sample, dict) else getattr(sample, "__key__", "?")
    if not isinstance(error, OSError | ValueError | AssertionError):
        raise error
    log.warning("list entry %s is skipped: %s", key, str(error).splitlines()[0] if str(error) else type(error).__name__)
