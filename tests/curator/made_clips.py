"""Clips whose answers are known because they are made here: textures that pan, zoom, rest, and shapes that move."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from curator.records import Clip, Frames

FPS = 24.0


@lru_cache(maxsize=8)
def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A colourful texture without repetition, rgb_HWC, with as much of every size of detail as a photograph has."""
    rng = np.random.default_rng(seed)
    mixed_HWC = np.zeros((height, width, 3), np.float32)
    for detail in (4, 8, 16, 32, 64):
        coarse_HWC = rng.normal(size=(height // detail + 2, width // detail + 2, 3)).astype(np.float32)
        mixed_HWC += cv2.resize(coarse_HWC, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 45 * mixed_HWC / mixed_HWC.std(axis=(0, 1)), 0, 255).astype(np.uint8)


def clip_of(rgb_THWC: np.ndarray, fps: float = FPS, **fields: object) -> Clip:
    """A clip as the decoder hands it on."""
    T, H, W, _ = rgb_THWC.shape
    given = {"clip_id": "clip-0", "video": "a.mp4", "video_id": "a-0", "source_height": H, "source_width": W}
    times = {"start_s": 0.0, "end_s": T / fps, "source_fps": fps, "frame_count": T}
    return Clip(**(given | times | fields), frames=Frames(np.ascontiguousarray(rgb_THWC), fps))


def camera(
    frames: int, right: float = 0.0, down: float = 0.0, grow: float = 1.0, size=(108, 192), seed: int = 0
) -> np.ndarray:
    """A camera over a texture: per frame the content moves `right` and `down` by so many pixels and grows by `grow`."""
    H, W = size
    world = texture(3 * H, 3 * W, seed)
    pictures = []
    for t in range(frames):
        scale = grow**t
        shift = np.array(
            [[scale, 0, right * t + W / 2 - 1.5 * W * scale], [0, scale, down * t + H / 2 - 1.5 * H * scale]]
        )
        pictures.append(cv2.warpAffine(world, shift, (W, H), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return np.stack(pictures)


def still(frames: int = 49, seed: int = 0) -> np.ndarray:
    """One picture, again and again."""
    return np.repeat(camera(1, seed=seed), frames, axis=0)


def moving_square(
    frames: int = 49, step: float = 2.0, colour=(220, 30, 30), ground=(60, 110, 60), side: int = 24
) -> np.ndarray:
    """A plain square that moves to the right by `step` pixels a frame over a faintly textured ground."""
    H, W = 108, 192
    shade = (texture(H, W, seed=3).mean(axis=-1, keepdims=True) - 128) * 0.25
    ground_HWC = np.clip(np.array(ground) + shade, 0, 255).astype(np.uint8)
    pictures = []
    for t in range(frames):
        picture = ground_HWC.copy()
        x = round(10 + step * t) % (W - side)
        picture[40 : 40 + side, x : x + side] = colour
        pictures.append(picture)
    return np.stack(pictures)
