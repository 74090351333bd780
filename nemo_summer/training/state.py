"""Where a run stands, and what one step gives back."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from nemo_summer.training.watch import BandReport


@dataclass(slots=True)
class TrainState:
    """What a checkpoint says of progress. What is random has an address (seed, clip, visit)."""

    step: int = 0
    clips_seen: int = 0
    tokens_seen: int = 0
    skipped_in_a_row: int = 0

    def advance(self, report: StepReport) -> None:
        self.step += 1
        self.clips_seen += report.clips
        self.tokens_seen += report.tokens
        self.skipped_in_a_row = 0 if report.finite else self.skipped_in_a_row + 1

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step, the same on every rank."""

    loss: float
    """Squared error per number, averaged over the step's tokens."""
    loss_by_level: tuple[float | None, ...]
    """The same for clips whose noise level lies in each eighth of [0, 1]; None where there was no clip."""
    clips: int
    tokens: int
    flops: float
    """Of the forward and backward passes, all ranks together (plan/flops.py)."""
    lr: float
    grad_norm: float
    finite: bool
    """False where the gradients were not, and the step was left out."""
    seconds: float
    """From asking for the packs to the turned weights."""
    stop_asked: bool = False
    """Some rank was told to stop (a signal): all ranks save this step and end."""
    band: BandReport | None = None
    """How far the rows turned; None where the step was not measured."""
    clip_ids: tuple[str, ...] = ()
    """Clips of this rank, so that an odd step can be looked at again."""
