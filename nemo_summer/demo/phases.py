"""Phases of a long way: timed, their memory watched, and left out where they were done before with the same inputs.

`demo.json` in the output folder says what was done. A phase is written down as started before it begins and as done
after it ended, so a run that was killed at any moment goes on with the phase it was in.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from nemo_summer.demo.facts import Folders
from nemo_summer.whole_files import write_whole

SAMPLE_EVERY_S = 0.2


class PhaseError(RuntimeError):
    """A phase ended with an exit code other than 0, which is kept."""

    def __init__(self, name: str, code: int):
        super().__init__(f"{name} ended with exit code {code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Phase:
    """One station of the way."""

    name: str
    does: str
    """one sentence for the plan"""
    do: Callable[[], int | None]
    """returns an exit code; None is 0"""
    inputs: Mapping[str, Any]
    """settings and files that decide its result, as JSON: together with those of the phases before, they are its key"""
    makes: Path
    """a file or folder that is there once the phase is done"""
    owns: Path | None = None
    """folder that is emptied before the phase is done anew with other inputs; None where nothing may be removed"""
    told: Callable[[], str] = field(default=lambda: "")
    """what came out, in a few words"""
    always: bool = False
    """do it also where nothing has changed"""


@dataclass(frozen=True, slots=True)
class Step:
    """A phase with its key, and what is known of it from an earlier run."""

    phase: Phase
    key: str
    before: Mapping[str, Any]

    @property
    def is_done(self) -> bool:
        same = self.before.get("key") == self.key and self.before.get("state") == "done"
        return same and self.phase.makes.exists() and not self.phase.always

    @property
    def goes_on(self) -> bool:
        """Started before with the same inputs: what it left behind is kept, and it continues from there."""
        return self.before.get("key") == self.key


def line_up(phases: Sequence[Phase], state: Mapping[str, Any]) -> list[Step]:
    """Phases with their keys; a key depends on all phases before, so a change early on does the rest again."""
    steps, key = [], ""
    for phase in phases:
        text = json.dumps({"before": key, "phase": phase.name, "inputs": phase.inputs}, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()
        steps.append(Step(phase, key, state.get("phases", {}).get(phase.name, {})))
    return steps


def run_phases(phases: Sequence[Phase], folders: Folders, about: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Does what is not done yet, in order; `about` (settings, versions) is kept in demo.json. PhaseError for a code."""
    state = read_state(folders.state)
    state |= dict(about)
    steps = line_up(phases, state)
    phases_before = state.get("phases", {})
    state["phases"] = {step.phase.name: phases_before[step.phase.name] for step in steps if step.goes_on}
    for number, step in enumerate(steps, start=1):
        head = f"[{number}/{len(steps)}] {step.phase.name:<8}"
        if step.is_done:
            say(f"{head} was done before ({step.before['seconds']:.1f} s)  {step.phase.told()}")
            continue
        say(f"{head} {step.phase.does}")
        told = _do(step, state, folders)
        say(f"{head} done in {told['seconds']:.1f} s, peak {told['peak_bytes'] / 2**30:.2f} GiB  {step.phase.told()}")


def _do(step: Step, state: dict[str, Any], folders: Folders) -> Mapping[str, Any]:
    """One phase from started to done in demo.json; returns its entry."""
    phase = step.phase
    if phase.owns is not None and not step.goes_on and phase.owns.exists():
        _empty(phase.owns, folders.out)
    was_cut_off = step.goes_on and step.before.get("state") == "started"
    earlier_s = step.before.get("seconds", 0.0) if was_cut_off else 0.0
    entry = {"key": step.key, "state": "started", "seconds": earlier_s, "peak_bytes": 0}
    state["phases"][phase.name] = entry
    write_state(folders.state, state)
    with Watch() as watch:
        try:
            code = phase.do() or 0
        finally:
            entry |= {"seconds": round(earlier_s + watch.seconds, 3), "peak_bytes": watch.peak_bytes}
            write_state(folders.state, state)
    if code:
        raise PhaseError(phase.name, code)
    entry |= {"state": "done", "seconds": round(earlier_s + watch.seconds, 3), "peak_bytes": watch.peak_bytes}
    write_state(folders.state, state)
    return entry


def _empty(folder: Path, out: Path) -> None:
    """Removes what an earlier run with other inputs left; only ever a folder directly inside `out`."""
    if folder.is_symlink() or folder.parent != out:
        raise ValueError(f"{folder} is no folder of the demo in {out}: remove it yourself, or set another out=")
    shutil.rmtree(folder)


class Watch:
    """Seconds and peak memory of a block of code: resident bytes of this process and all it started, added up.

    Pages that several processes share count once for each, so this is what the machine needs at most.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._over = threading.Event()

    def __enter__(self) -> Watch:
        self._began = time.perf_counter()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def _look(self) -> None:
        me = psutil.Process()
        while True:
            self.peak_bytes = max(self.peak_bytes, tree_bytes(me))
            if self._over.wait(SAMPLE_EVERY_S):
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()


def tree_bytes(process: psutil.Process) -> int:
    """Resident bytes of the process and its descendants; those that end meanwhile count nothing."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_info().rss
        except psutil.Error:
            continue
    return total


def read_state(path: Path) -> dict[str, Any]:
    """What an earlier run wrote; nothing where there was none, or where the file cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("phases", {}), dict) else {}


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """demo.json, whole or as it was."""
    write_whole(path, json.dumps(state, indent=1, default=str))


def listing_of(folder: Path, skip: Path) -> list[list[Any]]:
    """Name, size and time of each file under `folder`, without `skip`: equal lists mean that nobody touched it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(skip))
    return [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
