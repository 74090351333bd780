"""The numbers as a table and as JSON in benchmarks/results.

python -m benchmarks [out/demo] [--quick]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import loader
from benchmarks.numbers import Row, missing, rows_of_demo, rows_of_ranks, rows_of_samples
from nemo_summer.verbs.demo import versions

RESULTS = Path("benchmarks/results")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=Path("out/demo"), help="folder of a finished demo")
    parser.add_argument("--quick", action="store_true", help="leave out what starts processes: two ranks, the loader")
    told = parser.parse_args(words)
    rows = rows_of_demo(told.out) + _measured("samples", lambda: rows_of_samples(told.out))
    if not told.quick:
        rows += _measured("two ranks against one", rows_of_ranks)
    show(rows)
    print(f"\n{write(rows, told.out)}\n")
    if not told.quick:
        loader.main([])
    return 0


def _measured(what: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """One measurement that fails does not cost the others."""
    try:
        return measure()
    except Exception as error:
        return [missing(what, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")]


def show(rows: Sequence[Row]) -> None:
    """One line per number: what, value, what is wanted, verdict."""
    width = max(len(row.what) for row in rows)
    verdicts = {None: "", True: "reached", False: "missed"}
    for row in rows:
        value = "-" if row.value is None else f"{row.value:.4g}"
        line = f"{row.what:<{width}}  {value:>10} {row.unit:<9} {row.wanted:<10} {verdicts[row.good]:<8} {row.note}"
        print(line.rstrip())


def write(rows: Sequence[Row], out: Path) -> Path:
    """The numbers with the machine and versions they were measured with; returns the file."""
    cpu = cpu_name()
    name = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    file = RESULTS / f"{datetime.date.today():%Y-%m-%d}-{name}.json"
    machine = {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "versions": versions()}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps({**machine, "demo": str(out), "rows": [asdict(row) for row in rows]}, indent=1))
    os.replace(temporary, file)
    return file


def cpu_name() -> str:
    """What the processor calls itself; its architecture where it does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found[1].strip() if found else platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
