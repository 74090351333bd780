"""What the camera does, in words, from the movement that most of the picture shares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from curator.pictures import Movement, movement_of
from curator.records import Clip
from curator.stage import Stage

GRID = 4
"""One flow vector in `GRID` x `GRID` pixels is looked at."""
FITS = 6
"""Rounds of reweighting; the estimate moves by less than a hundredth after five."""


@dataclass(frozen=True, slots=True)
class CameraPath:
    """Movement of the whole picture, one entry per pair of frames, P pairs."""

    shift_P2: np.ndarray
    """Content's shift to the right and down, in percent of the picture's width per second."""
    zoom_P: np.ndarray
    """Growth of the content, in percent per second."""
    resting_P: np.ndarray
    """Share of the textured pixels that do not move."""


def camera_path(movement: Movement, rest_max: float = 2.0) -> CameraPath:
    """Robust fit of `flow = shift + zoom * place` to the textured pixels of each pair (Cauchy weights, reweighted)."""
    P, H, W, _ = movement.flow_PHW2.shape
    y, x = np.mgrid[GRID // 2 : H : GRID, GRID // 2 : W : GRID]
    place_G2 = places(H, W)[y.ravel(), x.ravel()]
    flow_PG2 = movement.flow_PHW2[:, y.ravel(), x.ravel()]
    weights = [_textured(grey)[y.ravel(), x.ravel()] for grey in movement.grey_PHW()]
    textured_PG = np.stack(weights) if P else np.ones((0, len(place_G2)))
    shift_P2, zoom_P = _fit(flow_PG2, place_G2, textured_PG)
    at_rest_PG = np.linalg.norm(flow_PG2, axis=-1) < rest_max
    resting_P = (at_rest_PG * textured_PG).sum(axis=1) / textured_PG.sum(axis=1)
    return CameraPath(shift_P2, zoom_P, resting_P)


def places(H: int, W: int) -> np.ndarray:
    """Place of each pixel from the centre, `HW2`, x then y, in widths of the picture."""
    y, x = np.mgrid[:H, :W]
    return np.stack([(x + 0.5) / W - 0.5, (y + 0.5 - H / 2) / W], axis=-1).astype(np.float32)


def own_movement(movement: Movement, path: CameraPath) -> np.ndarray:
    """Flow that the camera does not explain, `flow_PHW2`, in percent of the width per second."""
    _, H, W, _ = movement.flow_PHW2.shape
    camera_PHW2 = path.shift_P2[:, None, None] + path.zoom_P[:, None, None, None] * places(H, W)
    return movement.flow_PHW2 - camera_PHW2


def _textured(grey_HW: np.ndarray) -> np.ndarray:
    """1 where flow can be seen, next to 0 on flat ground: gradients above one grey level per pixel."""
    smooth_HW = cv2.GaussianBlur(grey_HW, (5, 5), 0)
    slope_HW = np.hypot(cv2.Sobel(smooth_HW, cv2.CV_32F, 1, 0), cv2.Sobel(smooth_HW, cv2.CV_32F, 0, 1)) / 8
    return np.where(slope_HW > 1.0, 1.0, 1e-3).astype(np.float32)


def _fit(flow_PG2: np.ndarray, place_G2: np.ndarray, textured_PG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift `P2` at the centre of the picture and growth `P`."""
    weight_PG = textured_PG.copy()
    shift_P2, zoom_P = np.zeros((len(flow_PG2), 2)), np.zeros(len(flow_PG2))
    for _ in range(FITS):
        share_PG1 = (weight_PG / weight_PG.sum(axis=1, keepdims=True))[..., None]
        mean_flow_P2, mean_place_P2 = (share_PG1 * flow_PG2).sum(axis=1), (share_PG1 * place_G2).sum(axis=1)
        spread_PG2 = place_G2 - mean_place_P2[:, None]
        zoom_P = (share_PG1 * spread_PG2 * flow_PG2).sum(axis=(1, 2)) / (
            (share_PG1 * spread_PG2**2).sum(axis=(1, 2)) + 1e-9
        )
        shift_P2 = mean_flow_P2 - zoom_P[:, None] * mean_place_P2
        rest_PG2 = flow_PG2 - shift_P2[:, None] - zoom_P[:, None, None] * place_G2
        error_PG = np.linalg.norm(rest_PG2, axis=-1)
        scale_P1 = np.median(error_PG, axis=1, keepdims=True) + 0.5
        weight_PG = textured_PG / (1 + (error_PG / scale_P1) ** 2)
    return shift_P2, zoom_P


def jitter(path: CameraPath) -> float:
    """How much the speed changes from one eighth of a second to the next: median length of the change, percent of the
    width per second. A pan at any speed has none.
    """
    return float(np.median(np.linalg.norm(np.diff(path.shift_P2, axis=0), axis=-1))) if len(path.shift_P2) > 2 else 0.0


def camera_word(path: CameraPath, pan_min: float, zoom_min: float, shake_min: float) -> str:
    """One of `still`, `pan left|right|up|down`, `zoom in|out`, `shaking`, `moving`."""
    if len(path.zoom_P) == 0 or float(np.median(path.resting_P)) > 0.4:
        return "still"
    if jitter(path) > shake_min:
        return "shaking"
    right, down = path.shift_P2.mean(axis=0)
    zoom = float(path.zoom_P.mean()) / 2  # the content at the edge moves at half of it
    pan, strongest = float(np.hypot(right, down)), float(np.linalg.norm(path.shift_P2, axis=-1).mean())
    if abs(zoom) >= zoom_min / 2 and abs(zoom) >= pan:
        return "zoom in" if zoom > 0 else "zoom out"
    if pan >= pan_min and pan >= 0.6 * strongest:
        if abs(right) >= abs(down):
            return "pan left" if right > 0 else "pan right"
        return "pan up" if down > 0 else "pan down"
    return "moving" if strongest >= pan_min or abs(zoom) >= zoom_min / 2 else "still"


@dataclass(kw_only=True)
class CameraWords(Stage):
    """Names what the camera does: `still`, `pan left`, `zoom in`, `shaking`, `moving`.

    The words are a camera's: it pans left where the content moves to the right.

    Reads: frames, crop, dropped_by
    Writes: camera
    """

    name: str = "camera"
    pan_min: float = 3.0
    """Slowest movement that is called a pan, in percent of the picture's width per second."""
    zoom_min: float = 4.0
    """Slowest growth of the content that is called a zoom, in percent per second."""
    shake_min: float = 30.0
    """Speed changes above this, eighth by eighth of a second, are called shaking; percent of the width per second."""

    def process(self, record: Clip) -> list[Clip]:
        if record.dropped_by:
            return [record]
        path = camera_path(movement_of(record))
        return [replace(record, camera=camera_word(path, self.pan_min, self.zoom_min, self.shake_min))]
