"""`summer doctor`: what this machine has, the path that each part therefore takes, what to install for the other."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

SHM_WANTED_GIB = 1.0
MEMORY_WANTED_GIB = 6.0
"""What `summer demo` may take at most."""
DISK_WANTED_GIB = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of the machine."""

    part: str
    here: str
    """what was found"""
    path: str
    """what we therefore do"""
    other: str = ""
    """what to install for the other path; empty where there is nothing to gain"""
    good: bool = True
    """whether this is the better of the two paths"""


def run(as_json: bool = False) -> int:
    """Prints the table, or JSON; 0 also where parts are missing, since each has another path."""
    findings = examine()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print_table(findings)
    return 0


def examine() -> list[Finding]:
    """Every part of the machine. A part whose check fails is reported as such and does not hide the others."""
    return [_checked(part, check) for part, check in CHECKS.items()]


def _checked(part: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a broken install raises anything: OSError for a missing .so, RuntimeError for a driver
        said = str(error).strip().splitlines()
        return Finding(part, f"broken: {type(error).__name__}: {said[0] if said else ''}", "not used", "mend it", False)


def _print_table(findings: list[Finding]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("part", "what is here", "path it takes", "for the other path"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        cells = (finding.part, finding.here, finding.path, finding.other)
        # As Text, because rich would take the [gpu] of a pip command for one of its own tags.
        table.add_row(*map(Text, cells), style="" if finding.good else "yellow")
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _said(*command: str) -> str:
    """What a program prints; empty where it is not here or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"


# --- the parts, in the order of the table


def python() -> Finding:
    return Finding("Python", f"{platform.python_version()}, {platform.machine()}", "this one")


def gpus() -> Finding:
    cards = _said("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").splitlines()
    if not cards:
        return Finding("GPUs", "none", "gloo ranks on the CPU", "a machine with NVIDIA GPUs and their driver", False)
    kinds = [f"{cards.count(card)} x {card}" for card in dict.fromkeys(cards)]
    return Finding("GPUs", "; ".join(kinds), "one rank per GPU, NCCL")


def torch_build() -> Finding:
    import torch

    here = f"{torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU build'}"
    if torch.cuda.is_available():
        return Finding("torch", here, f"CUDA, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}")
    if torch.version.cuda:
        return Finding("torch", here, "CPU: torch sees no GPU", "a driver for this CUDA version", False)
    return Finding("torch", here, "CPU, gloo", 'a CUDA build: make setup TORCH="torch" EXTRAS=dev,gpu', False)


def megatron() -> Finding:
    version = _version("megatron-core")
    if version is None:
        return Finding("Megatron Core", "none", "no training; sampling works", "pip install megatron-core", False)
    return Finding("Megatron Core", version, "trains")


def transformer_engine() -> Finding:
    version = _version("transformer-engine") or _version("transformer_engine")
    fix = "pip install 'nemo-summer[gpu]', or NVIDIA's PyTorch image"
    if version is None:
        return Finding("Transformer Engine", "none", "torch's layers and attention", fix, False)
    importlib.import_module("transformer_engine.pytorch")
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "Transformer Engine", f"{version}, no GPU for it", "torch's layers and attention", "a GPU", False
        )
    return Finding("Transformer Engine", version, "its linear layers, attention and fused Adam")


def apex() -> Finding:
    """NVIDIA's apex has compiled modules; the package of that name on the public index is something else."""
    fix = "NVIDIA's PyTorch image, or a build from github.com/NVIDIA/apex (not `pip install apex`)"
    version = _version("apex")
    if importlib.util.find_spec("amp_C") is None or importlib.util.find_spec("apex") is None:
        here = "none" if version is None else f"another package of that name ({version})"
        return Finding("apex", here, "TE's or torch's AdamW inside the sphere optimizer", fix, False)
    importlib.import_module("apex.optimizers")
    return Finding("apex", version or "here", "its fused Adam inside the sphere optimizer, where TE is not here")


def nvdec() -> Finding:
    version = _version("PyNvVideoCodec")
    fix = "a GPU and pip install 'nemo-summer[curate-gpu]'"
    if version is None:
        return Finding("NVDEC (PyNvVideoCodec)", "none", "PyAV decodes on the CPU", fix, False)
    from curator.frames import nvdec_is_here

    if not nvdec_is_here():
        return Finding("NVDEC (PyNvVideoCodec)", f"{version}, no GPU for it", "PyAV decodes on the CPU", fix, False)
    return Finding("NVDEC (PyNvVideoCodec)", version, "decodes with curate.decode.decoder=nvdec; else PyAV does")


def dali() -> Finding:
    names = sorted(d.metadata["Name"] for d in metadata.distributions() if _is_dali(d.metadata["Name"]))
    here = f"{names[0]} {_version(names[0])}" if names else "none"
    return Finding("DALI", here, "not used in this version: PyAV or NVDEC decodes")


def _is_dali(name: str | None) -> bool:
    return bool(name) and re.fullmatch(r"nvidia[-_]dali[-_]cuda\d+", name.lower()) is not None


def ray() -> Finding:
    version = _version("ray")
    if version is None:
        return Finding("Ray", "none", "curation in one process", "pip install 'ray[data]>=2.59'", False)
    return Finding("Ray", version, "curation in one process, or on Ray with curate.runner.kind=ray")


def slurm() -> Finding:
    here = "summer train starts the ranks on this machine"
    if shutil.which("srun") is None:
        return Finding("Slurm", "none", here, "a Slurm cluster; on one machine: apt install slurm-wlm", False)
    nodes = _said("sinfo", "--noheader", "--format=%D %T").replace("\n", ", ")
    if not nodes:
        return Finding(
            "Slurm", "installed, no cluster answers", here, "a running slurmctld; SLURM_CONF names it", False
        )
    return Finding("Slurm", f"{_said('sinfo', '--version')}; nodes: {nodes}", "sbatch scripts/slurm/train.sbatch")


def ffmpeg() -> Finding:
    import av

    libraries = ", ".join(f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in ("libavcodec",))
    here = f"PyAV {av.__version__}, {libraries}"
    if "libx264" not in av.codecs_available:
        return Finding("ffmpeg libraries", f"{here}, no libx264", "reads; mp4s as MPEG-4", "pip install av", False)
    return Finding("ffmpeg libraries", f"{here}, libx264", "reads and writes H.264")


def cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("CPU cores", f"{usable} usable of {os.cpu_count()}", "shared among the ranks of this machine")


def memory() -> Finding:
    import psutil

    found = psutil.virtual_memory()
    limit = _cgroup_limit()
    total, free = min(found.total, limit or found.total), min(found.available, limit or found.available)
    here = f"{_gib(total)}, {_gib(free)} free"
    if free < MEMORY_WANTED_GIB * 2**30:
        return Finding("memory", here, f"recipe toy wants up to {MEMORY_WANTED_GIB:.0f} GiB", "recipe=tiny", False)
    return Finding("memory", here, "enough for recipe toy")


def _cgroup_limit() -> int | None:
    """The memory that a container or a Slurm job allows, where that is less than the machine's."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return int(Path(path).read_text())
        except (OSError, ValueError):
            continue
    return None


def disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    here = f"{_gib(free)} free in {Path.cwd()}"
    if free < DISK_WANTED_GIB * 2**30:
        return Finding("disk", here, "may run full", "set out= to a folder with more room", False)
    return Finding("disk", here, "out/ is written here; set out= for another place")


def shared_memory() -> Finding:
    try:
        found = shutil.disk_usage("/dev/shm")
    except OSError:
        return Finding("/dev/shm", "none", "set data.workers=0", "docker run --shm-size=8g", False)
    here = f"{_gib(found.total)}, {_gib(found.free)} free"
    if found.free < SHM_WANTED_GIB * 2**30:
        return Finding("/dev/shm", here, "may be too little for loader workers", "docker run --shm-size=8g", False)
    return Finding("/dev/shm", here, "loader workers hand over batches here")


CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": python,
    "GPUs": gpus,
    "torch": torch_build,
    "Megatron Core": megatron,
    "Transformer Engine": transformer_engine,
    "apex": apex,
    "NVDEC (PyNvVideoCodec)": nvdec,
    "DALI": dali,
    "Ray": ray,
    "Slurm": slurm,
    "ffmpeg libraries": ffmpeg,
    "CPU cores": cores,
    "memory": memory,
    "disk": disk,
    "/dev/shm": shared_memory,
}
