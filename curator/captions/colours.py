"""Names for colours, and which of them a picture has."""

from __future__ import annotations

import cv2
import numpy as np

NAMES = ("black", "grey", "white", "brown", "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")

HUE_ENDS = (11, 40, 66, 160, 200, 258, 300, 340)
"""Degrees where red, orange, yellow .. end; above the last it is red again."""
HUE_NAMES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "red")


def name_pixels(rgb: np.ndarray) -> np.ndarray:
    """Index into `NAMES` of each pixel of `rgb_...C`, uint8; int64, same shape without the channels."""
    flat = rgb.reshape(1, -1, 3).astype(np.float32) / 255
    hue, saturation, value = np.moveaxis(cv2.cvtColor(flat, cv2.COLOR_RGB2HSV)[0], -1, 0)
    by_hue = np.array([NAMES.index(name) for name in HUE_NAMES])
    named = by_hue[np.searchsorted(HUE_ENDS, hue, side="right")]
    named = np.where((hue >= 46) & (hue < 66) & (value < 0.55), NAMES.index("green"), named)  # olive
    named = np.where((hue >= 11) & (hue < 46) & (value < 0.68), NAMES.index("brown"), named)
    named = np.where((hue < 11) & (value < 0.45) & (saturation < 0.7), NAMES.index("brown"), named)
    named = np.where(((hue >= 330) | (hue < 20)) & (saturation < 0.55) & (value > 0.75), NAMES.index("pink"), named)
    grey = saturation * value < 0.09
    named = np.where(grey, np.where(value > 0.82, NAMES.index("white"), NAMES.index("grey")), named)
    named = np.where(value < 0.16, NAMES.index("black"), named)
    return named.reshape(rgb.shape[:-1])


def colour_shares(rgb: np.ndarray, mask: np.ndarray | None = None) -> list[tuple[str, float]]:
    """Names with their share of the pixels (of the mask), greatest first; equal shares in the order of `NAMES`."""
    named = name_pixels(rgb if mask is None else rgb[mask])
    counts = np.bincount(named.ravel(), minlength=len(NAMES))
    order = np.argsort(-counts, kind="stable")
    return [(NAMES[i], float(counts[i] / max(1, named.size))) for i in order if counts[i]]


def standing_out(rgb_THWC: np.ndarray) -> str:
    """The colour of what a viewer would look at: vivid, rare, in one place; empty where no colour is all of that.

    A colour's score is its mean vividness times how much closer together its pixels lie than pixels anywhere would.
    """
    named_THW = name_pixels(rgb_THWC)
    _, H, W = named_THW.shape
    pixels = rgb_THWC.astype(np.float32)
    vivid_THW = (pixels.max(axis=-1) - pixels.min(axis=-1)) / 255
    y, x = np.mgrid[:H, :W]
    everywhere = float(np.sqrt((x.std() / W) ** 2 + (y.std() / W) ** 2))
    best, best_score = "", 0.13
    for index, name in enumerate(NAMES):
        mask_THW = named_THW == index
        if not 0.01 <= mask_THW.mean() <= 0.35:
            continue
        spreads = [np.hypot(x[mask].std(), y[mask].std()) / W for mask in mask_THW if mask.any()]
        score = float(vivid_THW[mask_THW].mean()) * (1.0 - float(np.mean(spreads)) / everywhere)
        if score > best_score:
            best, best_score = name, score
    return best
