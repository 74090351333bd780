"""The same stages in the same order with the same results: in this process, or on Ray. The only file that names Ray.

Neighbouring stages that take the same kind of record run in one worker, one after the other on one record, so frames
never leave it. A stage that fails on a record fails that record and no other; a full disk stops the run.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import logging
import os
import secrets
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil

from curator.records import Clip, Video, as_text, failed, from_text
from curator.stage import Outcome, Stage, add_seconds
from curator.whole_files import CannotWrite, cannot_write, disk_error_number

Record = Video | Clip
Runner = Callable[[Sequence[Stage], Sequence[Record]], Iterator[Outcome]]
"""Gives the outcome of every record, once, in any order."""


FOLDER = "summer-ray-"
"""How the folders of a Ray of our own begin; the number of its process follows."""


class RunnerKind(StrEnum):
    inline = "inline"
    ray = "ray"


@dataclass(kw_only=True)
class RunnerConfig:
    kind: RunnerKind = RunnerKind.inline
    """`inline` in this process; `ray` on the workers of this machine or a cluster."""
    address: str = "local"
    """`local` starts Ray on this machine and ends it afterwards; `auto` joins the cluster of this node."""
    workers: int = 0
    """Workers of each group of stages; 0 takes one per CPU."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"curate.runner.workers={self.workers} is no number of workers: set it to 0 or more")


@contextlib.contextmanager
def open_runner(cfg: RunnerConfig) -> Iterator[Runner]:
    """The runner that `cfg` asks for, with Ray started before and ended after where it is needed."""
    if cfg.kind is RunnerKind.inline:
        yield run_inline
        return
    with ray_started(cfg):
        yield lambda stages, records: run_on_ray(stages, records, cfg.workers)


# --- what both runners share -----------------------------------------------------------------------------------------


def groups_of(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Neighbouring stages that take the same kind of record: each group is the work of one kind of worker."""
    return [list(group) for _, group in groupby(stages, key=lambda stage: stage.takes)]


def carry(stages: Sequence[Stage], record: Record) -> tuple[list[Record], dict[str, float]]:
    """`record` through `stages`: what came of it, without frames, and the seconds each stage took."""
    records, seconds = [record], {}
    for stage in stages:
        began = time.perf_counter()
        records = [after for before in records for after in _step(stage, before)]
        seconds[stage.name] = time.perf_counter() - began
    # Through text, as on Ray and in the journal, so that all ways give the same numbers.
    return [from_text(as_text(r)) for r in records], seconds


def _step(stage: Stage, record: Record) -> list[Record]:
    if not isinstance(record, stage.takes):
        return [record]
    try:
        after = stage.process(record)
    except CannotWrite:
        raise
    except Exception as fault:  # whatever a stage runs into costs one record, not the run; but a full disk ends it
        if stop := full_disk(stage, fault):
            raise stop from fault
        return [_failed(record, stage.name, fault)]
    return after or [_failed(record, stage.name, ValueError("the stage gave no record back"))]


def full_disk(stage: Stage, fault: Exception) -> CannotWrite | None:
    """The line that ends the run where a stage met a full or faulty disk; `None` for every other fault."""
    if not disk_error_number(fault):
        return None
    path = getattr(fault, "filename", None) or getattr(stage, "out", None) or f"output of stage {stage.name}"
    return cannot_write(path, fault)


def _failed(record: Record, stage: str, fault: Exception) -> Record:
    cause = " ".join(f"{type(fault).__name__}: {fault}".split())
    if isinstance(record, Video):
        return failed(record, stage, "failed", f"failed in stage {stage} ({cause}): the rest went on without it")
    # A clip that was dropped before keeps its rule; that its thumbnail failed is no better reason.
    return (
        record if record.dropped_by else replace(record, dropped_by="failed", why_dropped=f"in stage {stage}: {cause}")
    )


def _lost(record: Record, stages: Sequence[Stage]) -> Record:
    """For a record whose worker died on it each time."""
    finding = f"ended its worker each time in one of the stages {', '.join(stage.name for stage in stages)}"
    if isinstance(record, Video):
        return failed(record, stages[0].name, "lost", f"{finding}: see that it plays, or take it out of input=")
    return record if record.dropped_by else replace(record, dropped_by="lost", why_dropped=finding)


# --- in this process ------------------------------------------------------------------------------------------------


def run_inline(stages: Sequence[Stage], records: Sequence[Record]) -> Iterator[Outcome]:
    """One record after the other, each through all stages, in the order they came."""
    groups = groups_of(stages)
    for stage in stages:
        stage.setup_on_node()
        stage.setup()
    for source in records:
        now: list[Record] = [source]
        seconds: dict[str, float] = {}
        for group in groups:
            parts = [carry(group, record) for record in now]
            now = [record for after, _ in parts for record in after]
            for _, spent in parts:
                add_seconds(seconds, spent)
        yield Outcome(source, tuple(now), seconds)


# --- on Ray ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ray_started(cfg: RunnerConfig) -> Iterator[None]:
    """A Ray of our own on this machine, with a token and without dashboard; or the cluster at `address`."""
    if cfg.address != "local":
        import ray

        ray.init(address=cfg.address, log_to_driver=False)
        try:
            yield
        finally:
            ray.shutdown()
        return
    # Sockets live in this folder, and their paths must stay short: not inside out=.
    _remove_left_folders()
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
    try:
        with _environment(folder):
            _start_local(folder, cfg.workers)
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_folders() -> None:
    """Folders of Rays whose process was killed before it could tidy up; Ray itself ends with its process."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        pid = folder.name.removeprefix(FOLDER).split("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)) and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _token() -> str:
    """One token per process: Ray reads it once and keeps it, so a second Ray with another one would be refused."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """What Ray reads while it is imported and started: a token of this run, which only this user can read."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(_token())
    wanted = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_BACKEND_LOG_LEVEL": "fatal"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ |= wanted
    try:
        yield
    finally:
        import ray

        ray.shutdown()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_local(folder: Path, workers: int) -> None:
    import ray

    # Two groups of stages need a worker each, also on a machine with one CPU.
    cpus = max(2, workers or os.cpu_count() or 2)
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=str(folder),
    )
    import ray.data  # sets its own log levels when it is imported

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def _alone_on_this_machine() -> Iterator[None]:
    with open(Path(tempfile.gettempdir()) / f"{FOLDER}{os.getuid()}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Worker:
    """One group of stages in a process of its own. A row is one record as text, with its place in the order."""

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages
        self.fault = ""
        for stage in stages:
            try:
                with _alone_on_this_machine():
                    stage.setup_on_node()
                stage.setup()
            except Exception as fault:  # an exception from here would come out as a page of Ray's own lines
                self.fault = f"stage {stage.name} cannot start: {fault}"
                return

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        record = from_text(row["record"])
        if not isinstance(record, self.stages[0].takes) or row["stop"]:
            return [row]
        if self.fault:
            return [row | {"stop": self.fault}]
        try:
            records, seconds = carry(self.stages, record)
        except CannotWrite as fault:
            return [row | {"stop": str(fault), "disk": True}]
        add_seconds(seconds, json.loads(row["seconds"]))
        assert len(records) == 1 or row["place"] == 0, "only the first group may cut a record into several"
        texts = [as_text(record) for record in records]
        spent = [json.dumps(seconds)] + ["{}"] * len(texts)
        places = [row["place"], *range(1, len(texts))]
        # The first row names the others, so that one that gets lost on the way can be named too.
        rest = [json.dumps(texts[1:]) if len(texts) > 1 else row["rest"]] + ["[]"] * len(texts)
        return [
            row | {"record": text, "seconds": s, "place": place, "rest": others}
            for text, s, place, others in zip(texts, spent, places, rest)
        ]


def run_on_ray(stages: Sequence[Stage], records: Sequence[Record], workers: int = 0) -> Iterator[Outcome]:
    """The same outcomes as `run_inline`, as they become ready, by Ray Data. Ray must be started.

    A worker that dies is replaced and its record tried twice more; a record that never comes back is named.
    """
    if not records:
        return
    groups = groups_of(stages)
    rows = [
        {"source": i, "place": 0, "record": as_text(r), "rest": "[]", "seconds": "{}", "stop": "", "disk": False}
        for i, r in enumerate(records)
    ]
    waiting: dict[int, dict[int, dict[str, Any]]] = {i: {} for i in range(len(records))}
    for row in _flow(rows, groups, workers):
        if row["stop"]:
            raise (CannotWrite if row["disk"] else ValueError)(row["stop"])
        arrived = waiting[row["source"]]
        arrived[row["place"]] = row
        if 0 in arrived and len(arrived) == 1 + len(json.loads(arrived[0]["rest"])):
            yield _outcome(records[row["source"]], waiting.pop(row["source"]), groups)
    for i, arrived in waiting.items():
        yield _outcome(records[i], arrived, groups)


def _flow(rows: list[dict[str, Any]], groups: list[list[Stage]], workers: int) -> Iterator[dict[str, Any]]:
    """Rows through all groups, each group a pool of workers, all pools at work at once."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a block that fails is a record we then name, not the end of the run
    context.target_max_block_size = 1  # a row is a block of its own: what is lost together, and what is shared out
    most = workers or int(ray.cluster_resources().get("CPU", 1))
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    for group in groups:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the two names below get other ones in Ray 2.64; we are held below 2.61
            data = data.flat_map(
                _Worker,
                fn_constructor_args=(group,),
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
                num_cpus=max(stage.resources.cpus for stage in group),
                num_gpus=sum(stage.resources.gpus for stage in group) or None,
                # Never a finite max_restarts: Ray Data then waits for ever for an actor that is gone (ray issue 62746).
                max_restarts=-1,
                max_task_retries=2,
            )
    yield from data.iter_rows()


def _outcome(source: Record, arrived: dict[int, dict[str, Any]], groups: list[list[Stage]]) -> Outcome:
    """All that came of `source`, in the order of `run_inline`; what did not come back is named as lost."""
    if 0 not in arrived:
        return Outcome(source, (_lost(source, groups[0]),), {})
    expected = [None, *(from_text(text) for text in json.loads(arrived[0]["rest"]))]
    came = {place: from_text(row["record"]) for place, row in arrived.items()}
    records = [came.get(place) or _lost(before, groups[-1]) for place, before in enumerate(expected)]
    seconds: dict[str, float] = {}
    for row in arrived.values():
        add_seconds(seconds, json.loads(row["seconds"]))
    return Outcome(source, tuple(records), seconds)
