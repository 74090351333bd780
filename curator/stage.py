"""A stage does one thing to a record and hands on a changed copy (NeMo Curator's stage pattern, its names)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from curator.records import Clip, Video


@dataclass(kw_only=True)
class Resources:
    """What one worker of a stage occupies. Not frozen: stages are settings too, and OmegaConf fills them in."""

    cpus: float = 1.0
    gpus: float = 0.0
    gpu_memory_gb: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record on a part of the way."""

    source: Video | Clip
    records: tuple[Video | Clip, ...]
    """the record itself first, then what was cut from it; without frames"""
    seconds: dict[str, float]
    """time spent, by stage"""


def add_seconds(seconds: dict[str, float], spent: dict[str, float]) -> None:
    """Adds `spent` to `seconds`, stage by stage."""
    for stage, s in spent.items():
        seconds[stage] = seconds.get(stage, 0.0) + s


@dataclass(kw_only=True)
class Stage:
    """One step over records that come one at a time; the same record always gives the same result.

    `process` gives back a list: one record for most stages, several for one that cuts, none never (a dropped clip
    stays in the record with `dropped_by`). Records of another kind than `takes` pass it by untouched.
    """

    takes: ClassVar[type[Video] | type[Clip]] = Clip
    """The kind of record this stage works on; neighbours that take the same kind share a worker, and so the frames."""

    name: str = ""
    resources: Resources = field(default_factory=Resources)
    batch_size: int = 1

    def setup_on_node(self) -> None:
        """Before a worker begins, one at a time on each machine: download weights, make folders. Returns at once where
        an earlier worker has done it.
        """

    def setup(self) -> None:
        """Once per worker: load models, check imports, so that a missing library fails here and not per clip."""

    def process(self, record: Any) -> list[Any]:
        raise NotImplementedError(f"stage {self.name or type(self).__name__} does not say what it does")


@dataclass(kw_only=True)
class GatherStage(Stage):
    """One step that must see every record of its kind at once: look-alikes, the codec's fit, the shards. Runs where the
    command was given, so it gets records without frames."""

    def process_all(self, records: Sequence[Any]) -> list[Any]:
        raise NotImplementedError(f"stage {self.name or type(self).__name__} does not say what it does")
