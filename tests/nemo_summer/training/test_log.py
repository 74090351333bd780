import json
from pathlib import Path

import pytest

from nemo_summer.training.log import Log, read_history
from nemo_summer.training.state import StepReport, TrainState
from nemo_summer.training.watch import BandReport


def report(loss: float = 1.0, band: BandReport | None = None, finite: bool = True) -> StepReport:
    return StepReport(
        loss=loss,
        loss_by_level=(None,) * 8,
        clips=2,
        tokens=100,
        flops=1e9,
        lr=0.1,
        grad_norm=0.5,
        finite=finite,
        seconds=0.25,
        band=band,
    )


def write_steps(out: Path, first: int, last: int, every: int = 2) -> None:
    with Log(out=out, steps=10, every=every) as log:
        log.resume_at(first - 1)
        for step in range(first, last + 1):
            log.write(TrainState(step=step), report(loss=float(step)))


def test_after_a_resume_every_logged_step_stands_once(tmp_path):
    write_steps(tmp_path, 1, 8)
    write_steps(tmp_path, 5, 10)  # a run that was killed at 8 and goes on from its checkpoint of step 4
    assert [line["step"] for line in read_history(tmp_path / "history.jsonl")] == [2, 4, 6, 8, 10]


def test_a_line_that_a_kill_cut_off_does_not_stop_the_next_run(tmp_path):
    write_steps(tmp_path, 1, 4)
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"step": 6, "lo')
    write_steps(tmp_path, 5, 10)
    assert [line["step"] for line in read_history(tmp_path / "history.jsonl")] == [2, 4, 6, 8, 10]


def test_a_skipped_step_and_a_measured_one_are_always_written(tmp_path):
    with Log(out=tmp_path, steps=10, every=100) as log:
        log.resume_at(0)
        log.write(TrainState(step=1), report())
        log.write(TrainState(step=2), report(finite=False))
        log.write(TrainState(step=3), report(band=BandReport(rotation={"w": 0.1}, band={"w": (0.05, 0.2)})))
    lines = list(read_history(tmp_path / "history.jsonl"))
    assert [line["step"] for line in lines] == [2, 3]
    assert "skipped" in lines[0] and lines[1]["band"] == {"w": [0.05, 0.2]}


def test_one_step_that_was_not_finite_does_not_spoil_the_progress_of_later_ones(tmp_path, capsys):
    with Log(out=tmp_path, steps=3, every=1) as log:
        log.resume_at(0)
        for step, loss in enumerate((1.0, float("nan"), 1.0), 1):
            log.write(TrainState(step=step), report(loss=loss))
    assert "step 3/3  loss 1.0000  " in capsys.readouterr().err


def test_other_ranks_write_nothing(tmp_path, capsys):
    with Log(out=None, steps=10, every=1) as log:
        log.resume_at(0)
        log.write(TrainState(step=1), report())
        log.say("hello")
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""


def test_numbers_reach_tensorboard_under_their_path(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Log(out=tmp_path, steps=10, every=1, lr_mults=[0.25, 1.0]) as log:
        log.resume_at(0)
        log.write(TrainState(step=1), report(loss=1.5, band=BandReport(rotation={"w": 0.5}, band={"w": (0.25, 1.0)})))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("train/loss")[0].value == 1.5
    assert events.Scalars("learning_rate/x0.25")[0].value == pytest.approx(0.25 * 0.1)  # of report()'s lr
    assert [events.Scalars(f"train/band/w/{end}")[0].value for end in (0, 1)] == [0.25, 1.0]
    assert json.loads((tmp_path / "history.jsonl").read_text())["tokens_per_s"] == 400.0
