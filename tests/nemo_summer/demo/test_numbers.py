"""The benchmark's verdicts follow from the files of a demo, and what is missing is said."""

import json
import math

import pytest
import torch

from benchmarks.__main__ import show, write
from benchmarks.numbers import Row, row_length_error, rows_of_demo, rows_of_samples


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.what.strip(): row for row in rows}


def test_ratios_are_judged_between_the_two_ends_only(fabricated):
    rows = by_name(rows_of_demo(fabricated))
    # the made-up run is 0.8 + 0.4 exp(-4) of the linear denoiser's everywhere, and a quarter more at the last level
    for t in (k / 8 + 1 / 16 for k in range(1, 7)):
        assert rows[f"at t = {t:.4f}"].value == pytest.approx(0.8 + 0.4 * math.exp(-4))
        assert rows[f"at t = {t:.4f}"].good is True
    assert rows["at t = 0.9375"].value > 1 and rows["at t = 0.9375"].good is None
    assert rows["held-out loss over the linear denoiser's, step 40"].good is True


def test_time_and_memory_are_those_of_the_finished_phases(fabricated):
    rows = by_name(rows_of_demo(fabricated))
    told = json.loads((fabricated / "demo.json").read_text())["phases"]
    assert rows["demo, from footage to report"].value == sum(entry["seconds"] for entry in told.values())
    assert rows["demo, peak memory of all processes"].value == max(e["peak_bytes"] for e in told.values()) / 2**30


def test_an_empty_folder_gives_rows_without_values_and_a_table(tmp_path, capsys, monkeypatch):
    rows = rows_of_demo(tmp_path) + rows_of_samples(tmp_path)
    assert len(rows) >= 5 and all(row.value is None and row.note for row in rows)
    show(rows)
    assert str(tmp_path) in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    told = json.loads(write(rows, tmp_path).read_text())
    assert len(told["rows"]) == len(rows) and told["versions"]["torch"] and told["cpu"]


def test_the_length_error_sees_constrained_rows_only():
    weights = {
        "patch_proj.weight": torch.eye(4),
        "patch_proj.bias": torch.ones(4) * 9,
        "final_proj.weight": torch.zeros(2, 4),
    }
    assert row_length_error(weights) == 0
    weights["patch_proj.weight"][2] *= 1 + 1e-4
    assert row_length_error(weights) == pytest.approx(1e-4, rel=1e-3)
