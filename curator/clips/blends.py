"""Dissolves and fades: where one picture turns into another along a straight line."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

COARSE = (14, 24)
"""Rows and columns of the pictures compared: small movement inside the shots drops out."""


def coarse(rgb_HWC: np.ndarray) -> np.ndarray:
    """A blurred little picture in CIE Lab, lab_HWC, float32, 0..255."""
    lab_HWC = cv2.cvtColor(rgb_HWC, cv2.COLOR_RGB2LAB).astype(np.float32)
    smooth_HWC = cv2.GaussianBlur(lab_HWC, (0, 0), 2)
    return cv2.resize(smooth_HWC, COARSE[::-1], interpolation=cv2.INTER_AREA)


def blends(lab_THWC: Sequence[np.ndarray], half: int, straight: float, change: float) -> list[tuple[int, int]]:
    """First and last frame of every dissolve or fade.

    In a dissolve `x_t = (1 - a) A + a B`, `a` growing from 0 to 1: pictures lie in order on the line from A to B. What
    moves leaves the line: of two unlike pictures of a moving scene, the one between is no mixture. Frame t blends where
    the pictures at t - half/2, t and t + half/2 stand off the line from t - half to t + half by less than `straight` of
    its length, in order, and the ends differ by more than `change` (mean, of 255).
    """
    found: list[tuple[int, int]] = []
    for t in range(half, len(lab_THWC) - half):
        if not _is_blend([lab_THWC[t + k] for k in (-half, -(half // 2), 0, half // 2, half)], straight, change):
            continue
        begin, end = t - half, t + half
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


def _is_blend(five: Sequence[np.ndarray], straight: float, change: float) -> bool:
    first, *between, last = (picture.ravel() for picture in five)
    line = last - first
    if np.abs(line).mean() <= change:
        return False
    length = float(np.linalg.norm(line))
    shares = [float((picture - first) @ line) / length**2 for picture in between]
    if not 0.05 < shares[0] < shares[1] < shares[2] < 0.95:
        return False
    off = [float(np.linalg.norm(picture - first - share * line)) for picture, share in zip(between, shares)]
    return max(off) < straight * length
