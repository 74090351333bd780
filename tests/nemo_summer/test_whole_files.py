import os
import resource
from pathlib import Path

import pytest

from nemo_summer.whole_files import write_whole


def test_a_full_disk_names_the_file_and_leaves_the_old_text_and_nothing_else(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "new folder" / "a.json", "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))  # stands for a full disk
    try:
        with pytest.raises(OSError, match=r"a\.json") as caught:
            write_whole(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(path)
    assert path.read_text() == "old" and os.listdir(path.parent) == ["a.json"]


def test_a_second_write_replaces_the_first(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "one")
    assert write_whole(tmp_path / "a", "zwei \N{SNOWMAN}").read_text(encoding="utf-8") == "zwei \N{SNOWMAN}"
