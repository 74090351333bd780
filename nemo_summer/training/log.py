"""What a run says of itself: history.jsonl, TensorBoard, one progress line. Only rank 0 writes."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch.utils.tensorboard import SummaryWriter

from nemo_summer.training.state import StepReport, TrainState
from nemo_summer.whole_files import write_whole


@dataclass(kw_only=True)
class Log(AbstractContextManager["Log"]):
    """Writes where `out` is given; elsewhere (all ranks but 0) it keeps quiet."""

    out: Path | None
    steps: int
    every: int
    peak_flops_per_s: float = 0.0
    """Of all ranks' devices together, to say how busy they were (MFU); 0 where it is not known."""
    lr_mults: Sequence[float] = ()
    """Factors on the learning rate that the parameters have (optim/rules.py): each is a curve in TensorBoard."""

    def __post_init__(self) -> None:
        self._board: SummaryWriter | None = None
        self._began, self._first_step = time.monotonic(), 0
        self._loss: float | None = None

    @property
    def history(self) -> Path | None:
        return self.out / "history.jsonl" if self.out else None

    def resume_at(self, step: int) -> None:
        """Forgets what was written about steps after `step`: they are going to be done again."""
        self._first_step = step
        if self.out is None or self.history is None:
            return
        kept = [line for line in read_history(self.history) if line["step"] <= step]
        write_whole(self.history, "".join(json.dumps(line) + "\n" for line in kept))
        self._board = SummaryWriter(str(self.out / "tensorboard"), purge_step=step + 1)

    def write(self, state: TrainState, report: StepReport) -> None:
        if self.out is None:
            return
        if math.isfinite(report.loss):  # one bad step must not blot out the mean of all later ones
            self._loss = report.loss if self._loss is None else 0.9 * self._loss + 0.1 * report.loss
        self._show(state, report)
        if state.step % self.every == 0 or state.step == self.steps or report.band or not report.finite:
            line = self._line(state, report)
            _append_line(self.out / "history.jsonl", json.dumps(line))
            self.scalars(state.step, line)
            self.scalars(state.step, {f"x{mult:.3g}": mult * report.lr for mult in self.lr_mults}, "learning_rate")

    def scalars(self, step: int, values: Mapping[str, object], under: str = "train") -> None:
        """Every number in `values`, nested ones by their path, to TensorBoard."""
        if self._board is None:
            return
        for name, value in _leaves(values):
            self._board.add_scalar(f"{under}/{name}", value, step)

    def picture(self, step: int, name: str, rgb_HWC: torch.Tensor) -> None:
        if self._board is not None:
            self._board.add_image(name, rgb_HWC, step, dataformats="HWC")

    def say(self, text: str) -> None:
        """One line for whoever watches."""
        if self.out is not None:
            end_of_progress = "\r\033[K" if sys.stderr.isatty() else ""
            print(f"{end_of_progress}{text}", file=sys.stderr, flush=True)

    def _line(self, state: TrainState, report: StepReport) -> dict[str, object]:
        line: dict[str, object] = {
            "step": state.step,
            "loss": report.loss,
            "loss_by_level": list(report.loss_by_level),
            "lr": report.lr,
            "grad_norm": report.grad_norm,
            "clips": report.clips,
            "clips_seen": state.clips_seen,
            "tokens_seen": state.tokens_seen,
            "seconds": report.seconds,
            "tokens_per_s": report.tokens / report.seconds,
        }
        if self.peak_flops_per_s:
            line["mfu"] = report.flops / report.seconds / self.peak_flops_per_s
        if not report.finite:
            line["skipped"] = "the gradients were not finite"
        if report.band:
            line |= asdict(report.band)
        return line

    def _show(self, state: TrainState, report: StepReport) -> None:
        done, seconds = state.step - self._first_step, time.monotonic() - self._began
        eta_s = seconds / done * (self.steps - state.step)
        loss = "-" if self._loss is None else f"{self._loss:.4f}"
        text = (
            f"step {state.step}/{self.steps}  loss {loss}  lr {report.lr:.2e}  |g| {report.grad_norm:.2f}  "
            f"{report.tokens / report.seconds:,.0f} tokens/s  {seconds / done:.2f} s/step  ETA {_clock(eta_s)}"
        )
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif state.step % max(self.every * 5, 1) == 0 or state.step == self.steps:
            print(text, file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.out is not None and sys.stderr.isatty():
            print(file=sys.stderr)
        if self._board is not None:
            self._board.close()


def read_history(path: Path) -> Iterator[dict]:
    """The logged steps; a line that a kill cut off is left out."""
    if not path.exists():
        return
    for text in path.read_text().splitlines():
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            continue


def _leaves(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        elif isinstance(value, list | tuple):
            yield from _leaves({str(i): v for i, v in enumerate(value)}, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            yield f"{prefix}{name}", float(value)


def _append_line(path: Path, text: str) -> None:
    """OSError, with the file, where the disk is full: the system names none when a write fails."""
    try:
        with open(path, "a") as file:
            file.write(text + "\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
