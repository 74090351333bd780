"""A way of several phases does each once, goes on where it was cut off, and never removes what is not its own."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nemo_summer.demo.facts import Folders
from nemo_summer.demo.phases import Phase, PhaseError, Watch, line_up, listing_of, read_state, run_phases


class Way:
    """Three phases that write one file each and remember that they ran."""

    def __init__(self, out: Path, **inputs: int):
        self.folders, self.ran, self.said = Folders(out), [], []
        self.phases = [self.phase(name, {"value": inputs.get(name, 0)}) for name in ("one", "two", "three")]

    def phase(self, name: str, inputs: dict) -> Phase:
        folder = self.folders.out / name

        def do() -> None:
            self.ran.append(name)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "done").write_text(name)

        return Phase(name, f"does {name}", do, inputs, makes=folder / "done", owns=folder)

    def run(self) -> list[str]:
        run_phases(self.phases, self.folders, {"settings": {}}, self.said.append)
        return self.ran


def test_phases_run_in_order_once_and_not_again(tmp_path):
    assert Way(tmp_path).run() == ["one", "two", "three"]
    again = Way(tmp_path)
    assert again.run() == []
    assert all("was done before" in line for line in again.said)


def test_a_changed_input_does_that_phase_and_all_after_it_again(tmp_path):
    Way(tmp_path).run()
    (tmp_path / "two" / "leftover").write_text("of other inputs")
    assert Way(tmp_path, two=1).run() == ["two", "three"]
    assert not (tmp_path / "two" / "leftover").exists()


def test_a_phase_whose_result_was_removed_is_done_again(tmp_path):
    Way(tmp_path).run()
    (tmp_path / "two" / "done").unlink()
    assert Way(tmp_path).run() == ["two"]


def test_a_phase_that_fails_stops_the_way_and_the_next_run_goes_on_with_what_it_left(tmp_path):
    way = Way(tmp_path)

    def fails() -> int:
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "half").write_text("way")
        return 75

    way.phases[1] = replace(way.phases[1], do=fails)
    with pytest.raises(PhaseError, match="two ended with exit code 75") as found:
        way.run()
    assert found.value.code == 75 and way.ran == ["one"]
    again = Way(tmp_path)
    assert again.run() == ["two", "three"]
    assert (tmp_path / "two" / "half").exists()


def _killed_in_two(out: Path) -> None:
    way = Way(out)
    way.phases[1] = replace(way.phases[1], do=lambda: os.kill(os.getpid(), signal.SIGKILL))
    way.run()


def test_a_run_killed_in_the_middle_of_a_phase_goes_on_with_that_phase(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_killed_in_two, args=(tmp_path,))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    state = read_state(tmp_path / "demo.json")
    assert {name: entry["state"] for name, entry in state["phases"].items()} == {"one": "done", "two": "started"}
    assert Way(tmp_path).run() == ["two", "three"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"phases": 3}', "\x00"])
def test_a_damaged_state_file_is_like_none(tmp_path, text):
    (tmp_path / "demo.json").write_text(text)
    assert Way(tmp_path).run() == ["one", "two", "three"]
    assert json.loads((tmp_path / "demo.json").read_text())["phases"]["three"]["state"] == "done"


def test_a_folder_that_lies_elsewhere_or_is_a_link_is_never_emptied(tmp_path):
    out, precious = tmp_path / "out", tmp_path / "precious"
    precious.mkdir()
    (precious / "film").write_text("the only copy")
    Way(out).run()
    for owned in (precious, out / "link"):
        if owned.name == "link":
            owned.symlink_to(precious)
        way = Way(out, two=len(owned.name))
        way.phases[1] = replace(way.phases[1], owns=owned)
        with pytest.raises(ValueError, match="remove it yourself"):
            way.run()
    assert (precious / "film").read_text() == "the only copy"


def test_the_key_of_a_phase_depends_on_all_before_it_and_on_nothing_after(tmp_path):
    keys = [step.key for step in line_up(Way(tmp_path).phases, {})]
    changed = [step.key for step in line_up(Way(tmp_path, two=1).phases, {})]
    assert [a == b for a, b in zip(keys, changed, strict=True)] == [True, False, False]


def _hold(megabytes: int, ready, go_on) -> None:
    data = bytearray(os.urandom(1 << 20) * megabytes)
    ready.set()
    go_on.wait(20)
    del data


def test_the_peak_counts_the_memory_of_processes_that_were_started():
    context = multiprocessing.get_context("fork")
    ready, go_on = context.Event(), context.Event()
    with Watch() as quiet:
        time.sleep(0.05)
    with Watch() as watch:
        process = context.Process(target=_hold, args=(200, ready, go_on))
        process.start()
        assert ready.wait(20)
        time.sleep(0.5)
        go_on.set()
        process.join()
    assert watch.peak_bytes - quiet.peak_bytes > 190 * 2**20
    assert watch.seconds > 0.5


def test_a_listing_changes_when_a_file_does(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"1")
    before = listing_of(tmp_path, skip=tmp_path / "out")
    assert before == listing_of(tmp_path, skip=tmp_path / "out")
    (tmp_path / "a.mp4").write_bytes(b"22")
    assert before != listing_of(tmp_path, skip=tmp_path / "out")
