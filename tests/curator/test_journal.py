"""A run that is killed goes on where it stopped."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from curator.journal import Journal, claimed, fingerprint_of
from curator.records import Clip, Video
from curator.runners import Record, run_inline
from curator.stage import Outcome, Stage
from curator.walk import walk
from tests.curator.made_stages import Chop, Fill, Measure, Number, Score, Tell, videos

CHILD = """
import sys
from pathlib import Path
from tests.curator.test_journal import way
from tests.curator.made_stages import videos
from curator.runners import Record, run_inline
from curator.walk import walk
root = Path(sys.argv[1])
walk(way(root), videos(8), root / "out", run_inline)
"""


def way(root: Path) -> list[Stage]:
    return [Tell(root=str(root)), Chop(), Fill(), Score(), Number()]


def test_a_run_killed_again_and_again_loses_nothing_and_repeats_only_what_was_in_hand(tmp_path: Path) -> None:
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    quiet.mkdir()
    killed.mkdir()
    undisturbed, _ = walk(way(quiet), videos(8), quiet / "out", run_inline)
    for kills in (1, 2):  # each run is killed in its fourth video
        (killed / "kill").write_text(str(4 * kills))
        child = subprocess.run([sys.executable, "-c", CHILD, str(killed)], check=False)
        assert child.returncode == -9
    records, seconds = walk(way(killed), videos(8), killed / "out", run_inline)
    assert records == undisturbed
    begun = [f"{i:03d}.mp4" for i in (0, 1, 2, 3, 3, 4, 5, 6, 6, 7)]
    assert (killed / "log").read_text().splitlines() == begun
    assert set(seconds) == {"tell", "chop", "fill", "score", "number"}


def test_what_failed_is_tried_again_by_the_same_command_and_nothing_else_is(tmp_path: Path) -> None:
    """The second run uses stages of the same settings that have meanwhile been mended."""
    broken, mended = [Mend(broken=True), Chop(), Fill(), Score()], [Mend(broken=False), Chop(), Fill(), Score()]
    first, _ = walk(broken, videos(3), tmp_path, run_inline)
    assert [v.reason for v in first if isinstance(v, Video)] == ["", "failed", ""]
    seen: list[str] = []
    second, _ = walk(mended, videos(3), tmp_path, lambda way, rs: run_inline(way, _noted(rs, seen)))
    assert seen == ["001.mp4"]
    assert second == walk(mended, videos(3), tmp_path / "fresh", run_inline)[0]


@dataclass(kw_only=True)
class Mend(Stage):
    """Fails on the second video while `broken`, which is no setting (init=False would be)."""

    takes: ClassVar[type[Video]] = Video
    name: str = "mend"
    broken: InitVar[bool] = False

    def __post_init__(self, broken: bool) -> None:
        self.fails = broken

    def process(self, record: Video) -> list[Video]:
        if self.fails and record.path == "001.mp4":
            raise RuntimeError("not today")
        return [record]


def _noted(records: Sequence[Record], seen: list[str]) -> Sequence[Record]:
    seen.extend(r.path for r in records if isinstance(r, Video))
    return records


def outcome(number: int) -> Outcome:
    video = videos(number + 1)[number]
    return Outcome(video, (replace(video, duration_s=number / 3),), {"probe": 0.5})


def test_a_line_cut_off_at_any_byte_is_taken_away_and_the_others_stay(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "probe", "f" * 32)
    journal.add(outcome(0))
    size = journal.path.stat().st_size
    journal.add(outcome(1))
    whole = journal.path.read_bytes()
    for cut in range(size, len(whole), 7):
        journal.path.write_bytes(whole[:cut])
        again = Journal(tmp_path, "probe", "f" * 32)
        assert again.of(outcome(0).source, tmp_path) == outcome(0)
        assert again.of(outcome(1).source, tmp_path) is None
        assert journal.path.stat().st_size == size
    journal.path.write_bytes(whole)
    assert Journal(tmp_path, "probe", "f" * 32).of(outcome(1).source, tmp_path) == outcome(1)


def test_a_line_with_a_flipped_bit_is_not_believed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "probe", "f" * 32)
    journal.add(outcome(1))
    data = journal.path.read_bytes()
    place = data.index(b"0.333")
    journal.path.write_bytes(data[:place] + b"0.353" + data[place + 5 :])
    assert Journal(tmp_path, "probe", "f" * 32).of(outcome(1).source, tmp_path) is None


def test_a_changed_source_a_missing_file_and_other_settings_are_done_again(tmp_path: Path) -> None:
    video = videos(1)[0]
    clip = Clip("c", video.path, video.video_id, 0, 3, thumb="thumbs/c.jpg")
    (tmp_path / "thumbs").mkdir()
    (tmp_path / "thumbs" / "c.jpg").touch()
    journal = Journal(tmp_path, "probe", "f" * 32)
    journal.add(Outcome(video, (video, clip), {}))
    assert journal.of(video, tmp_path) is not None
    assert journal.of(replace(video, root="/mounted/elsewhere"), tmp_path) is not None
    assert journal.of(replace(video, video_id="v000-other"), tmp_path) is None
    assert journal.of(replace(video, path="moved/000.mp4"), tmp_path) is None
    assert Journal(tmp_path, "probe", "e" * 32).of(video, tmp_path) is None
    (tmp_path / "thumbs" / "c.jpg").unlink()
    assert journal.of(video, tmp_path) is None


def test_a_fingerprint_depends_on_settings_and_not_on_folders() -> None:
    assert fingerprint_of([Tell(root="/a"), Chop()]) == fingerprint_of([Tell(root="/b"), Chop()])
    assert fingerprint_of([Tell(shade=1)]) != fingerprint_of([Tell(shade=2)])
    assert fingerprint_of([Chop(), Measure()]) != fingerprint_of([Measure(), Chop()])


def _hold(out: str, ready: multiprocessing.synchronize.Event) -> None:
    with claimed(Path(out)):
        ready.set()
        import time

        time.sleep(60)


def test_two_runs_do_not_share_an_output_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(str(tmp_path), ready))
    holder.start()
    try:
        assert ready.wait(20)
        line = rf"is in use by process {holder.pid} on .*: wait for it, or set another out="
        with pytest.raises(ValueError, match=line), claimed(tmp_path):
            pytest.fail("both hold it")
    finally:
        os.kill(holder.pid or 0, 9)
        holder.join()
    with claimed(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / "work" / "claim").read_text()


def test_an_output_that_cannot_be_a_folder_is_one_line_with_the_knob(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/out' cannot be made a folder \(Not a directory\): set out="):
        claimed(tmp_path / "file" / "out").__enter__()
