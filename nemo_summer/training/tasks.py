"""What happens once in a while: checkpoints and pictures (validation has a file of its own)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from nemo_summer.checkpoints.save import save
from nemo_summer.training.run import Run
from nemo_summer.training.state import TrainState


@dataclass(kw_only=True)
class SaveCheckpoint:
    """A whole checkpoint every `every` steps, after the last one, and when a signal ends the run."""

    folder: Path
    every: int
    steps: int
    keep_full: int
    fingerprint: dict[str, object]
    before_stopping: bool = True

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.steps

    def do(self, run: Run, state: TrainState) -> None:
        save(
            self.folder,
            state.step,
            model=run.model,
            optimizer=run.optimizer,
            groups=run.groups,
            loader_state=run.loader.state(),
            extra={"state": state.to_json(), "fingerprint": self.fingerprint},
            keep_full=self.keep_full,
        )


@dataclass(kw_only=True)
class Pictures:
    """Frames of a sampled clip to TensorBoard, so that progress can be seen and not only read."""

    sample: Callable[[nn.Module], Tensor]
    """gives rgb_HWC, uint8: a strip of frames"""
    every: int
    before_stopping: bool = False

    def due(self, step: int) -> bool:
        return self.every > 0 and step % self.every == 0

    def do(self, run: Run, state: TrainState) -> None:
        picture = self.sample(run.model)
        run.log.picture(state.step, "sample", picture)
