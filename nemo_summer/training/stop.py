"""A polite end: a signal asks, the loop saves the step it is in and ends."""

from __future__ import annotations

import signal
from types import FrameType


class StopRequest:
    """Knows whether this rank was told to stop. Slurm sends SIGUSR1 ahead of time and SIGTERM at preemption."""

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Only a note: saving from inside a handler could fall into the middle of a collective or of another save.
        self.asked = True
