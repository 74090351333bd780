"""What lies where in a checkpoint, and how to tell a whole one from a damaged one. Needs no megatron.

    FOLDER/step_00000100/
        manifest.json         written last: format, step, kind, ranks, and size and sha256 of every other file
        weights/              the model in float32, in megatron's torch_dist format; `read_weights` needs no megatron
        optimizer/            both moments, the same format; this and what follows go once only weights are kept
        loader/00000.bin      where each data-parallel rank stands in the dataset
        random/00000.json     torch's generators of each rank
        extra.json            what the training loop wants back
    FOLDER/.tmp_step_00000200 being written, or left by a run that was killed; never read, removed by the next save

A checkpoint is complete or absent: it gets its name by a rename after everything was flushed to disk.
"""

import hashlib
import json
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from nemo_summer.parallel.groups import ParallelGroups

FORMAT = 1
FULL, WEIGHTS_ONLY = "full", "weights"
WEIGHTS, OPTIMIZER, LOADER, RANDOM = "weights", "optimizer", "loader", "random"
MANIFEST, EXTRA = "manifest.json", "extra.json"
STEP = re.compile(r"step_(\d{8,})")


class CheckpointError(ValueError):
    """A checkpoint cannot be written, read or used; one line that names the file and what to do."""


@dataclass(frozen=True, slots=True)
class FileSeal:
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The table of contents; a file that is not in it is not part of the checkpoint."""

    step: int
    kind: str
    """`full`: training can go on from it; `weights`: the model alone, for averages and samples."""
    ranks: Mapping[str, int]
    """`world`, `data`, `tensor`, `pipeline`, `context`: how many ranks wrote it."""
    versions: Mapping[str, str]
    files: Mapping[str, FileSeal]
    format: int = FORMAT

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """The manifest of the checkpoint `path`; CheckpointError where it is missing, cut off or of another format."""
        file = path / MANIFEST
        try:
            found = json.loads(file.read_text())
            if found["format"] != FORMAT:
                raise CheckpointError(f"{file} has format {found['format']}, this version reads {FORMAT}")
            seals = {name: FileSeal(**seal) for name, seal in found.pop("files").items()}
            return cls(files=seals, **found)
        except FileNotFoundError:
            raise CheckpointError(f"{path} has no {MANIFEST}: it was cut off while it was written or copied") from None
        except (OSError, KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{file} cannot be read ({type(error).__name__}: {error})") from None


def folder_of(step: int) -> str:
    return f"step_{step:08d}"


def loader_file(dp_rank: int) -> str:
    return f"{LOADER}/{dp_rank:05d}.bin"


def random_file(rank: int) -> str:
    return f"{RANDOM}/{rank:05d}.json"


def ranks_of(groups: ParallelGroups) -> dict[str, int]:
    """How many ranks there are of each kind, as a manifest says it."""
    sizes = {"tensor": groups.tp, "pipeline": groups.pp, "context": groups.cp}
    return {"world": groups.world, "data": groups.dp_size, **sizes}


def reads_data(groups: ParallelGroups) -> bool:
    """Whether this rank's loader counts: of the ranks that share a model, the first."""
    return groups.tp_group.rank() == groups.pp_group.rank() == groups.cp_group.rank() == 0


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Replaces the manifest in one go."""
    temporary = path / f".{MANIFEST}.tmp"
    write_flushed(temporary, manifest.to_json().encode())
    temporary.rename(path / MANIFEST)
    flush_folder(path)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name; -1 where it is none."""
    found = STEP.fullmatch(path.name)
    return int(found[1]) if found else -1


def checkpoints_in(folder: Path) -> list[Path]:
    """Folders that carry a checkpoint's name, oldest first, whole or not."""
    return sorted((path for path in folder.glob("step_*") if step_of(path) >= 0 and path.is_dir()), key=step_of)


def snapshots(folder: Path) -> list[Path]:
    """Checkpoints whose weights can be averaged, oldest first: all that have a readable manifest. Hashes nothing."""
    return [path for path in checkpoints_in(folder) if (path / MANIFEST).exists()]


def seal(path: Path) -> FileSeal:
    with open(path, "rb") as file:
        return FileSeal(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


def find_damage(path: Path, manifest: Manifest, names: Sequence[str]) -> str | None:
    """What is wrong with the first bad file among `names`, in words; None where all are as the manifest says."""
    for name in names:
        wanted, file = manifest.files[name], path / name
        try:
            size = file.stat().st_size
            if size != wanted.bytes:
                return f"{file} has {size:,} bytes, the manifest says {wanted.bytes:,}"
            if seal(file).sha256 != wanted.sha256:
                return f"{file} is not what was written: its sha256 differs from the manifest's"
        except OSError as error:
            return f"{file} cannot be read ({error.strerror})"
    return None


def write_flushed(path: Path, data: bytes) -> None:
    """Writes a small file through to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush_file(path: Path) -> None:
    """Writes a file that others wrote through to the disk."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def flush_folder(path: Path) -> None:
    """Makes the names in `path` (new files, renames) survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_CLASSES = """BytesStorageMetadata ChunkStorageMetadata Metadata MetadataIndex StorageMeta TensorProperties
    TensorStorageMetadata _MEM_FORMAT_ENCODING"""
_DTYPES = "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 uint8 int8 int16 int32 int64 bool"
ALLOWED = frozenset(
    [f"torch.distributed.checkpoint.metadata.{name}" for name in _CLASSES.split()]
    + [f"torch.{name}" for name in _DTYPES.split()]
    + ["torch.distributed.checkpoint.filesystem._StorageInfo", "torch.serialization._get_layout", "torch.Size"]
    + ["pathlib.PosixPath", "pathlib.PurePosixPath", "collections.OrderedDict"]
)
"""What torch's `.metadata` of tensors names; nothing here does more than hold values."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads torch's `.metadata`, which is a pickle, without running what a stranger may have put into it."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in ALLOWED:
            raise CheckpointError(f"it names {module}.{name}, which no checkpoint of ours does")
        return super().find_class(module, name)


def read_metadata(folder: Path) -> Metadata:
    """Names and places of the tensors in a torch_dist folder.

    torch and megatron read this file with plain pickle and objects in the shards likewise: call this first, and what
    they then read can only be tensors. CheckpointError for anything else.
    """
    file = folder / ".metadata"
    try:
        with open(file, "rb") as stream:
            metadata = _PlainUnpickler(stream).load()
        objects = [name for name, at in metadata.state_dict_metadata.items() if isinstance(at, BytesStorageMetadata)]
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror})") from None
    except Exception as error:
        raise CheckpointError(f"{file} is not a checkpoint's: {error}") from None
    if objects:
        raise CheckpointError(f"{folder} holds pickled objects ({objects[0]}), ours hold tensors only")
    return metadata
