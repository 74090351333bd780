"""Reading checkpoints: the newest whole one, all of it for going on, or the weights alone."""

import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from nemo_summer.checkpoints import layout
from nemo_summer.checkpoints.layout import CheckpointError, Manifest
from nemo_summer.checkpoints.random import restore_random_state
from nemo_summer.parallel.groups import ParallelGroups

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a checkpoint gives beside the weights and moments, which are in the model and the optimizer by then."""

    step: int
    extra: Mapping[str, Any] = field(default_factory=dict)
    loader_state: bytes | None = None
    """This rank's; None where none was saved or it was not asked for."""


def newest(folder: Path, groups: ParallelGroups | None = None) -> Path | None:
    """The newest checkpoint that training can go on from and whose every file is as it was written; None without one.

    A damaged one is named in a warning, with the file and the finding, and the one before it is tried. With `groups`
    every rank calls it, the ranks share the hashing, and all get the same answer.
    """
    paths = _same_on_all([str(path) for path in layout.checkpoints_in(Path(folder))], groups)
    for path in map(Path, reversed(paths)):
        manifest = _same_on_all(_manifest_or_finding(path), groups)
        if isinstance(manifest, Manifest) and manifest.kind != layout.FULL:
            continue
        damage = manifest if isinstance(manifest, str) else _damage(path, manifest, groups)
        if damage is None:
            return path
        if groups is None or groups.is_first:
            log.warning("%s; this checkpoint is skipped and the one before it is tried", damage)
    return None


def _manifest_or_finding(path: Path) -> Manifest | str:
    try:
        return Manifest.read(path)
    except CheckpointError as error:
        return str(error)


def _damage(path: Path, manifest: Manifest, groups: ParallelGroups | None) -> str | None:
    """The first finding of any rank, each of which looks at its share of the files; None where there is none."""
    names = sorted(manifest.files)
    if groups is None:
        return layout.find_damage(path, manifest, names)
    findings: list[str | None] = [None] * groups.world
    dist.all_gather_object(findings, layout.find_damage(path, manifest, names[groups.rank :: groups.world]))
    return next((finding for finding in findings if finding), None)


def load(path: Path, *, model: nn.Module, optimizer: Any, groups: ParallelGroups, with_loader: bool = True) -> Restored:
    """Fills `model` (megatron's wrapper around the transformer) and `optimizer`; all ranks call it.

    Weights and moments may come from any number of ranks. The loader's state may not: CheckpointError then, unless
    `with_loader` is False and the dataset is read from its beginning. The files are taken as they are; `newest`
    looked at them.
    """
    from nemo_summer.checkpoints import torch_dist
    from nemo_summer.checkpoints.save import sharded_parts, unwrap

    path = Path(path)
    manifest = Manifest.read(path)
    if manifest.kind != layout.FULL:
        raise CheckpointError(f"{path} has kept its weights only: resume from a newer one, or raise train.keep_full")
    if with_loader:
        _check_loader_ranks(path, manifest, groups)
    sharded, moments, names = sharded_parts(model, optimizer, loading=True)
    weights = torch_dist.read(path / layout.WEIGHTS, sharded, groups)
    state = torch_dist.read(path / layout.OPTIMIZER, {"optimizer": moments}, groups)["optimizer"]
    for index, name in names.items():
        state["param_state"][index]["param"] = weights[name]
    unwrap(model).load_state_dict({name: weights[name] for name in sharded})
    optimizer.load_state_dict(state)
    if manifest.ranks == layout.ranks_of(groups):
        restore_random_state(json.loads((path / layout.random_file(groups.rank)).read_text()))
    loader = layout.loader_file(groups.dp_rank)
    return Restored(
        step=manifest.step,
        extra=read_extra(path),
        loader_state=(path / loader).read_bytes() if with_loader and loader in manifest.files else None,
    )


def read_extra(path: Path) -> dict[str, Any]:
    """What the training loop left in the checkpoint for itself; read without touching model or optimizer."""
    found: dict[str, Any] = json.loads((Path(path) / layout.EXTRA).read_text())
    return found


def _check_loader_ranks(path: Path, manifest: Manifest, groups: ParallelGroups) -> None:
    if not any(name.startswith(f"{layout.LOADER}/") for name in manifest.files):
        return
    if manifest.ranks["data"] != groups.dp_size:
        raise CheckpointError(
            f"{path} knows the places of {manifest.ranks['data']} data-parallel rank(s) in the dataset, this run has "
            f"{groups.dp_size}: set ranks={manifest.ranks['world']}, or train.reset_data=true to keep the weights and "
            "moments and read the dataset from its beginning"
        )


def read_weights(path: Path, check: bool = True) -> dict[str, Tensor]:
    """The model's weights by name, on the CPU; one process, no megatron, whatever ranks wrote them.

    CheckpointError where a file is missing or (with `check`) not what was written.
    """
    path = Path(path)
    manifest = Manifest.read(path)
    names = [name for name in sorted(manifest.files) if name.startswith(f"{layout.WEIGHTS}/")]
    if check and (damage := layout.find_damage(path, manifest, names)):
        raise CheckpointError(damage)
    metadata = layout.read_metadata(path / layout.WEIGHTS)
    weights = {
        name: torch.empty(at.size, dtype=at.properties.dtype) for name, at in metadata.state_dict_metadata.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that one process reads, which is what we want
        dcp.load(weights, storage_reader=dcp.FileSystemReader(path / layout.WEIGHTS), no_dist=True)
    return weights


def _same_on_all(value: Any, groups: ParallelGroups | None) -> Any:
    """Rank 0's `value`: another node may see a shared folder a moment later."""
    if groups is None:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
