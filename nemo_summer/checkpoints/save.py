"""Writing checkpoints: every rank writes its part, one renames; then old ones are thinned."""

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from nemo_summer.checkpoints import layout
from nemo_summer.checkpoints.agree import all_agree
from nemo_summer.checkpoints.layout import CheckpointError, FileSeal, Manifest
from nemo_summer.checkpoints.random import random_state
from nemo_summer.parallel.groups import ParallelGroups

log = logging.getLogger(__name__)

OPTIMIZER_FORMAT = {"distrib_optim_sharding_type": "fully_reshardable"}
"""The format that any number of ranks can read. megatron's default raises (no `flattened_range` any more)."""


def save(
    folder: Path,
    step: int,
    *,
    model: nn.Module,
    optimizer: Any,
    groups: ParallelGroups,
    loader_state: bytes | None = None,
    extra: Mapping[str, Any] | None = None,
    keep_full: int = 2,
    keep_every: int = 1,
) -> Path:
    """Writes `folder/step_00000100` and gives back its path. All ranks call it, and all return or all raise.

    `model` is megatron's DistributedDataParallel around the transformer, `loader_state` this rank's, `extra` plain
    JSON (rank 0's counts). Afterwards the newest `keep_full` are whole, older ones keep their weights where the step
    is a multiple of `keep_every` steps, and the rest is gone. CheckpointError, in one line, where a write fails; the
    checkpoints that were there stay as they were.
    """
    folder, name = Path(folder), layout.folder_of(step)
    temporary = folder / f".tmp_{name}"
    failure = f"checkpoint {folder / name} was not written, those before it are untouched"
    try:
        with all_agree(failure):
            if groups.is_first:
                _make_room(folder, temporary)
        _write_tensors(temporary, model, optimizer, groups, failure)
        with all_agree(failure):
            small = _write_small_files(temporary, loader_state, extra or {}, groups)
            own = {name: layout.seal(temporary / name) for name in [*small, *_flush_tensors(temporary, groups)]}
        seals = _gather(own, groups.world)
        with all_agree(failure):
            if groups.is_first:
                _commit(temporary, folder / name, _manifest(step, seals, groups))
                thin(folder, step, keep_full, keep_every)
    except BaseException:
        if groups.is_first:
            shutil.rmtree(temporary, ignore_errors=True)  # half a checkpoint would only fill the disk further
        raise
    return folder / name


def _make_room(folder: Path, temporary: Path) -> None:
    """Removes what killed runs left, and makes the folders that all ranks write into."""
    for left in folder.glob(".tmp_step_*"):
        shutil.rmtree(left)
    for part in (layout.WEIGHTS, layout.OPTIMIZER, layout.LOADER, layout.RANDOM):
        (temporary / part).mkdir(parents=True)


def _write_tensors(temporary: Path, model: nn.Module, optimizer: Any, groups: ParallelGroups, failure: str) -> None:
    from nemo_summer.checkpoints import torch_dist

    weights, moments, _ = sharded_parts(model, optimizer)
    torch_dist.write(temporary / layout.WEIGHTS, weights, groups, failure)
    torch_dist.write(temporary / layout.OPTIMIZER, {"optimizer": moments}, groups, failure)


def sharded_parts(
    model: nn.Module, optimizer: Any, loading: bool = False
) -> tuple[dict[str, Any], dict[str, Any], dict[int, str]]:
    """megatron's sharded tensors of both folders: the weights by name, the optimizer's state without them.

    The weights are the optimizer's own in float32, whatever the model computes in, so that averages of them are exact
    and they are stored once. The third is whose weights were taken out of which entry of the optimizer's state.
    """
    transformer = unwrap(model)
    state = optimizer.sharded_state_dict(
        transformer.sharded_state_dict(metadata=OPTIMIZER_FORMAT), is_loading=loading, metadata=OPTIMIZER_FORMAT
    )
    weights = transformer.sharded_state_dict(metadata=OPTIMIZER_FORMAT)
    name_of = {tensor.key: name for name, tensor in weights.items()}
    names = {}
    for index, tensors in state["param_state"].items():
        main = tensors.pop("param")
        key = main.key.removeprefix("optimizer.state.param.")
        names[index] = name_of[key]
        weights[names[index]] = replace(main, key=key)
    return weights, state, names


def unwrap(model: nn.Module) -> nn.Module:
    """The transformer inside megatron's wrappers."""
    while hasattr(model, "module"):
        model = model.module
    return model


def _write_small_files(
    temporary: Path, loader_state: bytes | None, extra: Mapping[str, Any], groups: ParallelGroups
) -> list[str]:
    """The names of the files that this rank wrote."""
    files = {layout.random_file(groups.rank): json.dumps(random_state()).encode()}
    if loader_state is not None and layout.reads_data(groups):
        files[layout.loader_file(groups.dp_rank)] = loader_state
    if groups.is_first:
        files[layout.EXTRA] = json.dumps(extra).encode()
    for name, data in files.items():
        layout.write_flushed(temporary / name, data)
    return list(files)


def _flush_tensors(temporary: Path, groups: ParallelGroups) -> list[str]:
    """Flushes this rank's torch_dist files and names them: shards are called `__RANK_...`, the rest is rank 0's."""
    names = []
    for file in sorted((*(temporary / layout.WEIGHTS).iterdir(), *(temporary / layout.OPTIMIZER).iterdir())):
        shard = re.match(r"__(\d+)_", file.name)
        if int(shard[1] if shard else 0) == groups.rank:
            layout.flush_file(file)
            names.append(str(file.relative_to(temporary)))
    return names


def _gather(own: dict[str, FileSeal], world: int) -> dict[str, FileSeal]:
    parts: list[dict[str, FileSeal]] = [{}] * world
    dist.all_gather_object(parts, own)
    return {name: at for part in parts for name, at in sorted(part.items())}


def _manifest(step: int, seals: Mapping[str, FileSeal], groups: ParallelGroups) -> Manifest:
    from megatron.core import __version__ as megatron_version

    versions = {"torch": torch.__version__, "megatron-core": megatron_version}
    return Manifest(step=step, kind=layout.FULL, ranks=layout.ranks_of(groups), versions=versions, files=seals)


def _commit(temporary: Path, final: Path, manifest: Manifest) -> None:
    """Manifest, flush, rename, flush: from here on the checkpoint exists."""
    layout.write_manifest(temporary, manifest)
    for folder in [temporary, *(path for path in temporary.rglob("*") if path.is_dir())]:
        layout.flush_folder(folder)
    grave = _grave(final)
    if final.exists():  # of this step: a damaged one that the run did not resume from, or a run that went back
        final.rename(grave)
    temporary.rename(final)
    layout.flush_folder(final.parent)
    shutil.rmtree(grave, ignore_errors=True)


def thin(folder: Path, step: int, keep_full: int, keep_every: int) -> None:
    """Of the checkpoints up to `step`: the newest `keep_full` stay whole, older ones keep their weights or go.

    Those of later steps do not count: they are damaged, or the run would have gone on from them.
    """
    upto = [path for path in layout.snapshots(folder) if layout.step_of(path) <= step]
    for path in upto[: -max(1, keep_full)]:
        try:
            manifest = Manifest.read(path)
        except CheckpointError as error:
            log.warning("%s; it is left as it is", error)
            continue
        if manifest.step % max(1, keep_every):
            _remove(path)
        elif manifest.kind == layout.FULL:
            _keep_weights(path, manifest)


def _keep_weights(path: Path, manifest: Manifest) -> None:
    """First the manifest forgets the other files, then they go: a kill in between leaves files that nobody reads."""
    files = {name: at for name, at in manifest.files.items() if name.startswith(f"{layout.WEIGHTS}/")}
    layout.write_manifest(path, replace(manifest, kind=layout.WEIGHTS_ONLY, files=files))
    for part in (layout.OPTIMIZER, layout.LOADER, layout.RANDOM):
        shutil.rmtree(path / part, ignore_errors=True)
    (path / layout.EXTRA).unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """Renames first, so that a kill in the middle leaves no half checkpoint under a checkpoint's name."""
    path.rename(_grave(path))
    shutil.rmtree(_grave(path), ignore_errors=True)


def _grave(path: Path) -> Path:
    """A free name that the next save clears away, should we be killed first."""
    grave = path.with_name(f".tmp_{path.name}_old")
    shutil.rmtree(grave, ignore_errors=True)
    return grave
