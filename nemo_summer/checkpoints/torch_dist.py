"""Megatron's torch_dist folders: written in this process alone, read without running what a pickle says."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter

from nemo_summer.checkpoints.agree import all_agree, describe
from nemo_summer.checkpoints.layout import CheckpointError, read_metadata
from nemo_summer.parallel import cpu
from nemo_summer.parallel.groups import ParallelGroups

cpu.install()  # must come before the first import of megatron; does nothing where there is a GPU

from megatron.core import dist_checkpointing  # noqa: E402
from megatron.core.dist_checkpointing.core import CheckpointingConfig, CheckpointingException, save_config  # noqa: E402
from megatron.core.dist_checkpointing.serialization import get_default_save_common_strategy  # noqa: E402
from megatron.core.dist_checkpointing.state_dict_utils import save_preprocess  # noqa: E402
from megatron.core.dist_checkpointing.strategies import torch as megatron_torch  # noqa: E402
from megatron.core.dist_checkpointing.strategies.fully_parallel import (  # noqa: E402
    FullyParallelLoadStrategyWrapper,
    FullyParallelSaveStrategyWrapper,
)


def write(folder: Path, state: dict[str, Any], groups: ParallelGroups, failure: str) -> None:
    """One torch_dist folder from a sharded state dict; where a rank fails, all raise CheckpointError with `failure`.

    These are the steps of megatron's `dist_checkpointing.save`, which is not called because it writes `common.pt` on
    rank 0 alone: on a full disk that rank would raise and the others wait for it for ever.
    """
    sharded, common = save_preprocess(state)
    with all_agree(failure):
        get_default_save_common_strategy().save_common(common, folder)
    strategy: Any = WriteInThisProcess("torch_dist", 1)
    if groups.dp_size > 1:
        strategy = FullyParallelSaveStrategyWrapper(strategy, groups.dp_cp_group)
    with all_agree(failure):
        strategy.save(sharded, folder)
    with all_agree(failure):
        if groups.is_first:
            save_config(CheckpointingConfig("torch_dist", 1), str(folder))


def read(folder: Path, state: dict[str, Any], groups: ParallelGroups) -> dict[str, Any]:
    """The sharded state dict filled from a torch_dist folder that any number of ranks wrote.

    CheckpointError where it holds other tensors, or of another size.
    """
    read_metadata(folder)  # now megatron may open it
    strategy = dist_checkpointing.serialization.get_default_load_sharded_strategy(str(folder))
    if groups.dp_size > 1:
        strategy = FullyParallelLoadStrategyWrapper(strategy, groups.dp_cp_group)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # megatron calls names that torch is about to rename
        try:
            return dist_checkpointing.load(state, str(folder), strategy)
        except (CheckpointingException, CheckpointException) as error:
            raise CheckpointError(f"{folder} does not fit this model: {describe(error)}") from None


class WriteInThisProcess(megatron_torch.TorchDistSaveShardedStrategy):
    """The same files as megatron's strategy, written by torch's own writer.

    megatron's starts a manager process, which imports the main script anew, and forks writers: seconds for a small
    model, and a hang where the script has no main guard. It can go when megatron has a writer without processes.
    """

    def save(self, sharded_state_dict: dict[str, Any], checkpoint_dir: Path) -> None:
        by_key, _, _ = megatron_torch._replace_state_dict_keys_with_sharded_keys(sharded_state_dict, True)
        files = NotingFiles()
        writer = FileSystemWriter(checkpoint_dir, sync_files=False, thread_count=1)
        writer.fs = files
        planner = megatron_torch.MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False)
        try:
            dcp.save(megatron_torch.mcore_to_pyt_state_dict(by_key, False), storage_writer=writer, planner=planner)
        except BaseException:
            if files.failure:
                raise files.failure from None
            raise


class NotingFiles(FileSystem):
    """Files that remember why a write failed: torch's zip writer says "unexpected pos 704 vs 598" for a full disk."""

    def __init__(self) -> None:
        self.failure: OSError | None = None

    def note(self, error: OSError, path: str | os.PathLike) -> None:
        error.filename = error.filename or str(path)
        self.failure = self.failure or error

    @contextmanager
    def create_stream(self, path: str | os.PathLike, mode: str) -> Iterator[io.IOBase]:
        try:
            with NotingStream(io.FileIO(path, mode), self) as stream:
                yield stream
        except OSError as error:
            self.note(error, path)
            raise


class NotingStream(io.BufferedWriter):
    """A file that tells `NotingFiles` of a failed write, since whoever called may swallow the error."""

    def __init__(self, raw: io.FileIO, files: NotingFiles) -> None:
        super().__init__(raw)
        self._files, self._path = files, str(raw.name)

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self._files.note(error, self._path)
            raise
