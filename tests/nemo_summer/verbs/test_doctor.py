"""What the doctor sees, and that a broken part hides no other."""

from __future__ import annotations

import json

import pytest

from nemo_summer import cli
from nemo_summer.verbs import doctor


def test_the_doctor_names_every_part_once_and_its_path(capsys) -> None:
    assert cli.main(["doctor", "json=true"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert [finding["part"] for finding in findings] == list(doctor.CHECKS)
    assert all(finding["here"] and finding["path"] for finding in findings)
    assert all(finding["other"] for finding in findings if not finding["good"])


def test_a_part_that_raises_is_reported_and_hides_no_other(monkeypatch) -> None:
    def breaks() -> doctor.Finding:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setitem(doctor.CHECKS, "DALI", breaks)
    findings = {finding.part: finding for finding in doctor.examine()}
    assert findings["DALI"].here == "broken: OSError: libcuda.so.1: cannot open shared object file"
    assert list(findings) == list(doctor.CHECKS)


def test_a_package_called_apex_that_is_not_nvidias_is_seen_as_such(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "0.9.10" if name == "apex" else None)
    finding = doctor.apex()
    assert finding.here == "another package of that name (0.9.10)"
    assert not finding.good


@pytest.mark.parametrize(
    ("said", "here"),
    [
        ("NVIDIA H200, 143771 MiB\nNVIDIA H200, 143771 MiB", "2 x NVIDIA H200, 143771 MiB"),
        ("NVIDIA A, 1 MiB\nNVIDIA B, 2 MiB", "1 x NVIDIA A, 1 MiB; 1 x NVIDIA B, 2 MiB"),
        ("", "none"),
    ],
)
def test_gpus_are_counted_by_kind(said: str, here: str, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_said", lambda *command: said)
    assert doctor.gpus().here == here


def test_brackets_in_a_command_reach_the_reader(capsys) -> None:
    cli.main(["doctor"])
    assert "nemo-summer[curate-gpu]" in capsys.readouterr().out
