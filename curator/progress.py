"""How far the work is, on a terminal; silent elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from curator.records import Clip, Video
from curator.stage import Outcome


class Rate(ProgressColumn):
    """Megabytes of footage, or clips, per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or 0.0
        amount = f"{speed / 1e6:.1f} MB/s" if task.fields["weigh"] == "bytes" else f"{speed:.1f}/s"
        return Text(amount if speed else "", style="progress.data.speed")


def weight_of(record: Video | Clip) -> int:
    """What the bar counts a record as: the size of a video, since their lengths differ so much; 1 for a clip."""
    return max(1, record.size_bytes) if isinstance(record, Video) else 1


def with_bar(outcomes: Iterable[Outcome], todo: list[Video | Clip], done: int, what: str) -> Iterator[Outcome]:
    """`outcomes` as they are, with a bar, the rate and the time left. `done` records were finished before."""
    if not sys.stderr.isatty() or not todo:
        yield from outcomes
        return
    weigh = "bytes" if isinstance(todo[0], Video) else "records"
    counter = TextColumn("{task.fields[count]}")
    columns = (TextColumn(what), BarColumn(), counter, Rate(), TimeRemainingColumn(), TextColumn("left"))
    total = done + len(todo)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=sum(map(weight_of, todo)), count=f"{done}/{total}", weigh=weigh)
        for number, outcome in enumerate(outcomes, start=done + 1):
            bar.update(task, advance=weight_of(outcome.source), count=f"{number}/{total}")
            yield outcome
