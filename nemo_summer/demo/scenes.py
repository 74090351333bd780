"""What the synthetic footage shows: one shot is a ground, some shapes and a camera, each a function of time.

A picture is a function of the second in its shot, so any frame rate, dissolve or copy shows the same scene.
H rows, W columns, C colours (RGB) of a picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

COLOURS = {
    "red": (214, 40, 40),
    "orange": (244, 140, 30),
    "yellow": (246, 214, 50),
    "green": (50, 168, 70),
    "cyan": (50, 200, 215),
    "blue": (40, 80, 210),
    "purple": (130, 60, 190),
    "pink": (240, 120, 180),
    "white": (245, 245, 240),
}
SHAPES = ("circle", "square", "triangle", "star")
CAMERAS = ("still", "pan left", "pan right", "zoom in", "zoom out", "pan up", "pan down", "shake")
GROUNDS = {
    "sky": ((88, 150, 214), (190, 214, 236)),
    "sand": ((188, 150, 98), (232, 208, 160)),
    "forest": ((34, 70, 44), (96, 132, 74)),
    "dusk": ((74, 50, 110), (222, 128, 96)),
    "sea": ((16, 74, 104), (70, 150, 160)),
    "stone": ((84, 84, 92), (168, 166, 160)),
    "rose": ((150, 74, 92), (232, 184, 178)),
}
TEXTURE_SPAN = 2
"""The painted ground is so many pictures wide and high; beyond it is mirrored."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One moving thing. Lengths in picture heights, the picture's middle is (0, 0)."""

    kind: str
    colour: str
    radius: float
    centre: tuple[float, float]
    swing: tuple[float, float]
    """how far it moves to each side of its centre, across and down"""
    period_s: float
    phase: float
    spin: float
    """turns per second"""


@dataclass(frozen=True, slots=True)
class Scene:
    """All that decides the pictures of one shot."""

    seed: int
    ground: str
    camera: str
    shapes: tuple[Shape, ...]
    speed: float = 0.16
    """of the camera: picture heights, or doublings, per second"""
    gain: float = 1.0
    """brightness: 1 is normal, 0.05 is night"""
    blur: float = 0.0
    """standard deviation of the lens blur in picture heights"""
    text: str = ""
    frozen: bool = False
    """the first picture for the whole shot"""


def scene_of(rng: np.random.Generator, seed: int, subject: tuple[str, str, str, str]) -> Scene:
    """A scene of (shape, colour, ground, camera) whose other numbers are drawn from `rng`."""
    kind, colour, ground, camera = subject
    others = [c for c in COLOURS if c != colour]
    shapes = [_draw_shape(rng, kind, colour, big=True)]
    if rng.random() < 0.4:
        second = str(rng.choice([s for s in SHAPES if s != kind]))
        shapes.insert(0, _draw_shape(rng, second, str(rng.choice(others)), big=False))
    return Scene(seed=seed, ground=ground, camera=camera, shapes=tuple(shapes), speed=float(rng.uniform(0.14, 0.24)))


def _draw_shape(rng: np.random.Generator, kind: str, colour: str, big: bool) -> Shape:
    radius = rng.uniform(0.20, 0.28) if big else rng.uniform(0.09, 0.13)
    sideways = rng.random() < 0.6
    far, near = rng.uniform(0.28, 0.5), rng.uniform(0.02, 0.1)
    swing = (far, near) if sideways else (near, far * 0.5)
    return Shape(
        kind=kind,
        colour=colour,
        radius=float(radius),
        centre=(float(rng.uniform(-0.25, 0.25)), float(rng.uniform(-0.1, 0.1))),
        swing=(float(swing[0]), float(swing[1])),
        period_s=float(rng.uniform(2.4, 4.0)),
        phase=float(rng.uniform(0, 2 * math.pi)),
        spin=float(rng.uniform(-0.25, 0.25)),
    )


def brighter(scene: Scene, gain: float) -> Scene:
    """The same shot in other light."""
    return replace(scene, gain=scene.gain * gain)


def render(scene: Scene, second: float, height: int, width: int) -> np.ndarray:
    """The picture at `second` of the shot: uint8 [H, W, 3]."""
    second = 0.0 if scene.frozen else second
    x, y, zoom = _camera_at(scene, second)
    rgb_HWC = _look_at_ground(scene, x, y, zoom, height, width)
    for shape in scene.shapes:
        _paint_shape(rgb_HWC, shape, second, _shake_of(scene, second), zoom)
    if scene.blur:
        rgb_HWC = cv2.GaussianBlur(rgb_HWC, (0, 0), scene.blur * height)
    if scene.gain != 1.0:
        rgb_HWC = cv2.convertScaleAbs(rgb_HWC, alpha=scene.gain)
    if scene.text:
        _paint_text(rgb_HWC, scene.text)
    return rgb_HWC


def _shake_of(scene: Scene, second: float) -> tuple[float, float]:
    """Hand-held jitter in picture heights: three sines whose periods share no multiple."""
    if scene.camera != "shake":
        return 0.0, 0.0
    waves = [(1.3, 0.030, 0.0), (2.9, 0.018, 1.0), (5.3, 0.008, 2.0)]
    across = sum(a * math.sin(2 * math.pi * f * second + p + scene.seed % 7) for f, a, p in waves)
    down = sum(a * math.cos(2 * math.pi * f * 1.07 * second + 2 * p + scene.seed % 5) for f, a, p in waves)
    return across, down


def _camera_at(scene: Scene, second: float) -> tuple[float, float, float]:
    """Where the camera looks (picture heights) and how large it shows things."""
    way = scene.speed * second
    if scene.camera == "shake":
        return *_shake_of(scene, second), 1.0
    if scene.camera.startswith("pan"):
        across, down = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[scene.camera.split()[1]]
        return across * way, down * way, 1.0
    if scene.camera == "zoom in":
        return 0.0, 0.0, 2**way
    if scene.camera == "zoom out":
        return 0.0, 0.0, 1.8 * 2**-way
    return 0.0, 0.0, 1.0


@lru_cache(maxsize=64)
def _ground(seed: int, name: str, height: int, width: int) -> np.ndarray:
    """A painted plane, uint8 [H, W, 3]: a gradient of two colours under clouds whose strength falls with fineness."""
    rng = np.random.default_rng([seed, 77])
    low, high = (np.array(c, np.float32) for c in GROUNDS[name])
    angle = rng.uniform(0, 2 * math.pi)
    down, across = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    mix = 0.5 + 0.35 * (math.cos(angle) * across + math.sin(angle) * down)
    tint = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((3, 0.22), (7, 0.16), (16, 0.09), (36, 0.05), (90, 0.06)):
        coarse = rng.standard_normal((cells, cells * 2, 4)).astype(np.float32)
        fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        mix += strength * fine[..., 0]
        tint += strength * 30 * fine[..., 1:]
    return np.clip(low + (high - low) * np.clip(mix, -0.2, 1.2)[..., None] + tint, 0, 255).astype(np.uint8)


def _look_at_ground(scene: Scene, x: float, y: float, zoom: float, height: int, width: int) -> np.ndarray:
    ground = _ground(scene.seed, scene.ground, TEXTURE_SPAN * height, TEXTURE_SPAN * width)
    middle_x = TEXTURE_SPAN * width / 2 + x * height
    middle_y = TEXTURE_SPAN * height / 2 + y * height
    back = np.array([[1 / zoom, 0, middle_x - width / 2 / zoom], [0, 1 / zoom, middle_y - height / 2 / zoom]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(ground, back, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _outline(kind: str, turn: float) -> np.ndarray:
    """Corners of the shape around (0, 0), radius 1."""
    if kind == "circle":
        angles, radii = np.linspace(0, 2 * math.pi, 48, endpoint=False), np.ones(48)
    elif kind == "star":
        angles, radii = np.arange(10) * math.pi / 5, np.where(np.arange(10) % 2, 0.45, 1.15)
    else:
        corners = {"triangle": 3, "square": 4}[kind]
        upright = math.pi / 4 if kind == "square" else 0.0
        angles, radii = np.arange(corners) * 2 * math.pi / corners + upright, np.full(corners, 1.12)
    angles = angles - math.pi / 2 + turn
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


def _paint_shape(rgb_HWC: np.ndarray, shape: Shape, second: float, shake: tuple[float, float], zoom: float) -> None:
    height, width = rgb_HWC.shape[:2]
    wave = math.sin(2 * math.pi * second / shape.period_s + shape.phase)
    x = (shape.centre[0] + shape.swing[0] * wave - shake[0]) * zoom
    y = (shape.centre[1] + shape.swing[1] * wave - shake[1]) * zoom
    middle = np.array([width / 2 + x * height, height / 2 + y * height])
    radius = shape.radius * zoom * height
    outline = _outline(shape.kind, 2 * math.pi * shape.spin * second)
    colour = np.array(COLOURS[shape.colour], np.float32)
    # Three sizes, each lighter: a rim, a face and a glint, so that a shape is not one flat colour.
    for size, light, off in ((1.0, 0.62, 0.0), (0.88, 1.0, 0.0), (0.45, 1.18, 0.16)):
        points = middle + radius * (outline * size - off * np.array([1.0, 1.0]) / math.sqrt(2))
        fixed = np.round(points * 16).astype(np.int32)
        cv2.fillPoly(rgb_HWC, [fixed], np.clip(colour * light, 0, 255).tolist(), cv2.LINE_AA, 4)


def _paint_text(rgb_HWC: np.ndarray, text: str) -> None:
    height, width = rgb_HWC.shape[:2]
    size = height / 180 * 0.62
    (long, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, size, 1)
    x, y = max(2, (width - long) // 2), int(height * 0.9)
    # The rim is the same text moved by a pixel: a thicker pen also makes the letters wider.
    for across, down, colour in ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, 255)):
        place = (x + across, y + down)
        cv2.putText(rgb_HWC, text, place, cv2.FONT_HERSHEY_DUPLEX, size, (colour,) * 3, 1, cv2.LINE_AA)
