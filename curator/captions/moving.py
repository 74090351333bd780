"""The one thing that moves most on its own: its size, colour and direction."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from curator.captions.colours import colour_shares
from curator.captions.motion_words import CameraPath, own_movement
from curator.pictures import Movement


@dataclass(frozen=True, slots=True)
class MovingThing:
    """A region that moves against its background."""

    colour: str
    area: float
    """Mean share of the picture, 0..1."""
    right: float
    """Mean speed to the right and down, percent of the picture's width per second."""
    down: float
    speed: float
    """Mean speed in any direction."""

    def direction(self) -> str:
        """`left`, `right`, `up`, `down`; empty where it goes to and fro."""
        if np.hypot(self.right, self.down) < 0.5 * self.speed:
            return ""
        if abs(self.right) >= abs(self.down):
            return "right" if self.right > 0 else "left"
        return "down" if self.down > 0 else "up"


def find_moving(movement: Movement, path: CameraPath, speed_min: float = 4.0) -> MovingThing | None:
    """The largest region that moves on its own, taken over all pairs; None where there is none in a fifth of them."""
    own_PHW2 = own_movement(movement, path)
    speed_PHW = np.linalg.norm(own_PHW2, axis=-1)
    # what the fit of a moving camera leaves over is parallax, not something that moves
    least_P = np.maximum(speed_min, 0.6 * np.linalg.norm(path.shift_P2, axis=-1))
    masks = [_largest(speed_HW, least) for speed_HW, least in zip(speed_PHW, least_P)]
    seen = [pair for pair, mask in enumerate(masks) if mask.any()]
    if len(seen) * 5 < len(masks) or not seen:
        return None
    mask_PHW = np.stack([masks[pair] for pair in seen])
    flow_M2 = own_PHW2[seen][mask_PHW]
    right, down = (float(value) for value in flow_M2.mean(axis=0))
    colour = _colour_of(movement.rgb_PHWC[seen], mask_PHW)
    speed = float(np.linalg.norm(flow_M2, axis=-1).mean())
    return MovingThing(colour=colour, area=float(mask_PHW.mean()), right=right, down=down, speed=speed)


def _colour_of(rgb_PHWC: np.ndarray, mask_PHW: np.ndarray) -> str:
    """The colour that the region has more of than the whole picture: its rim is always background."""
    usual = dict(colour_shares(rgb_PHWC))
    surplus = [(share - usual[name], name) for name, share in colour_shares(rgb_PHWC, mask_PHW)]
    return max(surplus)[1]


def _largest(speed_HW: np.ndarray, speed_min: float, area_min: float = 0.004) -> np.ndarray:
    """Mask of the largest connected region that is faster than its surroundings; empty where it is a speck or all."""
    limit = max(speed_min, 3.0 * float(np.median(speed_HW)), 0.25 * float(speed_HW.max()))
    count, label_HW, stats, _ = cv2.connectedComponentsWithStats((speed_HW > limit).astype(np.uint8))
    if count < 2:
        return np.zeros(speed_HW.shape, bool)
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    share = stats[best, cv2.CC_STAT_AREA] / speed_HW.size
    return (label_HW == best) & (area_min <= share <= 0.6)
