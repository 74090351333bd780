"""How much moves in a clip."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from curator.pictures import movement_of
from curator.records import Clip
from curator.stage import Stage


def mean_motion(flow_PHW2: np.ndarray) -> float:
    """Mean length of the flow vectors, in the flow's own unit; 0 where there is no pair of frames."""
    return float(np.linalg.norm(flow_PHW2, axis=-1).mean()) if len(flow_PHW2) else 0.0


@dataclass(kw_only=True)
class Motion(Stage):
    """Measures how much moves: mean optical flow over all pixels, in percent of the picture's width per second.

    Reads: frames, crop, dropped_by
    Writes: motion
    """

    name: str = "motion"

    def process(self, record: Clip) -> list[Clip]:
        if record.dropped_by:
            return [record]
        return [replace(record, motion=round(mean_motion(movement_of(record).flow_PHW2), 4))]
