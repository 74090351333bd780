"""Complete or absent, also on a full disk."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from curator.whole_files import CannotWrite, sweep, whole_file, write_whole


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A quota: a file that grows above `size` bytes makes the write fail, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_with_the_path_and_what_was_there_before_stays(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_whole(path, "before")
    with files_of_at_most(1000), pytest.raises(CannotWrite) as caught:
        write_whole(path, "x" * 5000)
    line = str(caught.value)
    assert str(path) in line and "File too large" in line and "set out=" in line and "\n" not in line
    assert os.listdir(tmp_path) == ["manifest.json"] and path.read_text() == "before"


def test_no_space_left_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match="No space left on device"):
        write_whole(tmp_path / "a.txt", "text")
    assert os.listdir(tmp_path) == []


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a.tar") as temporary:
        temporary.write_text("half")
        raise RuntimeError("the rest is missing")
    assert os.listdir(tmp_path) == []


def test_a_sweep_takes_what_a_killed_writer_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "thumbs").mkdir()
    for name in ("thumbs/a-1.jpg", ".claim", "manifest.json", "thumbs/a.12.jpg"):
        write_whole(tmp_path / name, "whole")
    for path in (tmp_path / "thumbs" / "a-1.jpg", tmp_path / "noend", tmp_path / "odd\nname.mp4"):
        with whole_file(path) as temporary:
            temporary.write_text("half")
            left = temporary.with_name(temporary.name)
            os.link(temporary, tmp_path / "keep")
        os.rename(tmp_path / "keep", left)  # as if the writer had been killed here
        path.unlink()
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".claim", "a.12.jpg", "manifest.json", "thumbs"]


def test_a_file_gets_its_name_by_renaming_so_that_no_half_of_it_ever_has_it(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        written = temporary.stat().st_ino
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").stat().st_ino == written
