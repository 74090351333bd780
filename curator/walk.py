"""All records along all stages, with what is done already left out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from curator.journal import Journal, fingerprint_of
from curator.progress import with_bar
from curator.records import Clip, Video, as_text, digest_of, is_settled
from curator.runners import Runner, full_disk
from curator.stage import GatherStage, Stage, add_seconds


def walk(
    way: Sequence[Stage], videos: Sequence[Video], out: Path, runner: Runner
) -> tuple[list[Video | Clip], dict[str, float]]:
    """All records after the last stage, in the order of the videos and of the clips in them, and the seconds per stage.

    Stages up to the next that gathers stream: a video's clips are decoded while the next video is searched for shots.
    What is done is in the journal, so a killed run loses the records that were being worked on and no more.
    """
    records: list[Video | Clip] = list(videos)
    seconds: dict[str, float] = {}
    passed: list[Stage] = []
    gathered = ""
    for gathers, part in groupby(way, key=lambda stage: isinstance(stage, GatherStage)):
        group = list(part)
        passed += group
        if gathers:
            for stage in group:
                records = _gather(stage, records, seconds)
            # What follows may depend on all records: the codec is fitted on them.
            gathered = digest_of("\n".join(as_text(record) for record in records).encode())
        else:
            journal = Journal(out / "work" / "journal", group[0].name, fingerprint_of(passed, gathered))
            records = _stream(group, records, journal, out, runner, seconds)
    return records, seconds


def _gather(stage: Stage, records: list[Video | Clip], seconds: dict[str, float]) -> list[Video | Clip]:
    """`records` after a stage that sees all of its kind at once; the others keep their places."""
    assert isinstance(stage, GatherStage)
    began = time.perf_counter()
    stage.setup_on_node()
    stage.setup()
    try:
        after = iter(stage.process_all([r for r in records if isinstance(r, stage.takes)]))
    except Exception as fault:
        if stop := full_disk(stage, fault):
            raise stop from fault
        raise
    records = [next(after) if isinstance(r, stage.takes) else r for r in records]
    assert next(after, None) is None, f"stage {stage.name} gave more records than it got"
    seconds[stage.name] = time.perf_counter() - began
    return records


def _stream(
    group: list[Stage],
    records: list[Video | Clip],
    journal: Journal,
    out: Path,
    runner: Runner,
    seconds: dict[str, float],
) -> list[Video | Clip]:
    """`records` after stages that take them one by one. Dropped clips that come in stay as they are."""
    outcomes: dict[int, tuple[Video | Clip, ...]] = {}
    todo: list[int] = []
    finished = 0
    for place, record in enumerate(records):
        if not isinstance(record, group[0].takes) or (isinstance(record, Clip) and record.dropped_by):
            outcomes[place] = (record,)
        elif (done := journal.of(record, out)) is not None:
            outcomes[place] = done.records
            add_seconds(seconds, done.seconds)
            finished += 1
        else:
            todo.append(place)
    waiting = [records[place] for place in todo]
    place_of = {id(record): place for record, place in zip(waiting, todo)}
    for outcome in with_bar(runner(group, waiting), waiting, finished, _label(group)):
        if all(is_settled(record) for record in outcome.records):
            journal.add(outcome)
        outcomes[place_of[id(outcome.source)]] = outcome.records
        add_seconds(seconds, outcome.seconds)
    return [record for place in range(len(records)) for record in outcomes[place]]


def _label(group: list[Stage]) -> str:
    names = [stage.name for stage in group]
    return f"{group[0].takes.__name__.lower()}s: {names[0]}" + (f" to {names[-1]}" if len(names) > 1 else "")
