"""Checkpoint folders made without megatron: torch writes the tensors, the layout's own functions the rest."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from nemo_summer.checkpoints import layout
from nemo_summer.checkpoints.layout import FileSeal, Manifest


def weights_at(step: int) -> dict[str, Tensor]:
    return {"patch_proj.weight": torch.full((40, 30), float(step)), "final_proj.bias": torch.arange(7.0) + step}


def make_checkpoint(folder: Path, step: int) -> Path:
    path = folder / layout.folder_of(step)
    for part in (layout.WEIGHTS, layout.OPTIMIZER):
        writer = dcp.FileSystemWriter(path / part, sync_files=False)
        dcp.save(weights_at(step), storage_writer=writer, no_dist=True)
    layout.write_flushed(path / layout.loader_file(0), b"place")
    layout.write_flushed(path / layout.random_file(0), b"{}")
    layout.write_flushed(path / layout.EXTRA, b"{}")
    ranks = {"world": 1, "data": 1, "tensor": 1, "pipeline": 1, "context": 1}
    layout.write_manifest(path, Manifest(step, layout.FULL, ranks, {}, seals_of(path)))
    return path


def files_of(path: Path) -> list[str]:
    """Every file of a checkpoint but its manifest."""
    names = (str(file.relative_to(path)) for file in sorted(path.rglob("*")) if file.is_file())
    return [name for name in names if name != layout.MANIFEST]


def seals_of(path: Path) -> dict[str, FileSeal]:
    return {name: layout.seal(path / name) for name in files_of(path)}


def reseal(path: Path) -> None:
    """Has the manifest approve of the files as they are, as someone who means harm would."""
    layout.write_manifest(path, replace(Manifest.read(path), files=seals_of(path)))
