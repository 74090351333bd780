"""The embedded captioner: rules that put colours, light, movement and the camera into words, without any weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from curator.captions.colours import colour_shares, standing_out
from curator.captions.motion_words import camera_path
from curator.captions.moving import MovingThing, find_moving
from curator.pictures import Movement, at_height, inside_bars, movement_of, spread
from curator.records import Clip
from curator.stage import Stage

CAMERA_SENTENCES = {
    "still": "The camera stands still.",
    "moving": "The camera moves about.",
    "shaking": "The camera shakes.",
}


@dataclass(frozen=True, slots=True)
class Sight:
    """What the rules found in a clip; the sentences are made from this and nothing else."""

    colours: tuple[str, ...]
    """One or two names, the greatest share first."""
    accent: str
    """A vivid colour in one place; empty where there is none."""
    light: str
    """`dark`, `bright` or empty."""
    texture: str
    """`plain`, `soft` or `detailed`."""
    motion: float
    """Mean optical flow, percent of the width per second."""
    camera: str
    """As in `Clip.camera`; empty where nobody looked."""
    moving: MovingThing | None

    def thing(self) -> str:
        """The moving thing with size and colour: `a small green shape`; empty where there is none."""
        if self.moving is None:
            return ""
        size = "small" if self.moving.area < 0.05 else "large" if self.moving.area > 0.2 else ""
        words = " ".join(word for word in (size, self.moving.colour, "shape") if word)
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def see(rgb_THWC: np.ndarray, movement: Movement, motion: float | None, camera: str) -> Sight:
    """Looks at up to 8 frames and at the movement between pairs."""
    shares = colour_shares(rgb_THWC)
    colours = [shares[0][0]] + [name for name, share in shares[1:2] if share >= 0.15]
    luma_THW = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in rgb_THWC])
    brightness = float(luma_THW.mean()) / 255
    slope = float(np.mean([np.abs(cv2.Laplacian(luma, cv2.CV_32F)).mean() for luma in luma_THW]))
    speed = float(np.linalg.norm(movement.flow_PHW2, axis=-1).mean()) if len(movement.flow_PHW2) else 0.0
    return Sight(
        colours=tuple(colours),
        accent=standing_out(rgb_THWC),
        light="dark" if brightness < 0.25 else "bright" if brightness > 0.65 else "",
        texture="plain" if slope < 4 else "soft" if slope < 14 else "detailed",
        motion=speed if motion is None else motion,
        camera=camera,
        moving=find_moving(movement, camera_path(movement)) if len(movement.flow_PHW2) else None,
    )


def detailed(sight: Sight) -> str:
    """Up to three sentences: the scene, what moves, the camera."""
    looks = " ".join(word for word in (sight.light, sight.texture) if word)
    accent = f" with something {sight.accent}" if sight.accent and sight.accent not in sight.colours else ""
    path = f"The camera {_verb(sight.camera)}{_pace(sight.motion)}."
    camera = CAMERA_SENTENCES.get(sight.camera, path) if sight.camera else ""
    sentences = [f"A {looks} scene in {' and '.join(sight.colours)}{accent}.", _movement_sentence(sight), camera]
    return " ".join(sentence for sentence in sentences if sentence)


def short(sight: Sight) -> str:
    """One sentence: the most telling thing."""
    scene, subject = _a(f"{sight.colours[0]} scene"), _subject(sight)
    if sight.moving is not None:
        return f"{sight.thing().capitalize()} moves {sight.moving.direction() or 'about'} in {scene}."
    shown = f"something {subject} in {scene}" if subject != sight.colours[0] else scene
    if sight.camera in ("moving", "shaking"):
        return f"{_a(sight.camera).capitalize()} camera shows {shown}."
    if sight.camera not in ("", "still"):
        return f"The camera {_verb(sight.camera)}, showing {shown}."
    return f"{shown.capitalize()}; {'little' if sight.motion >= 0.5 else 'hardly anything'} moves."


def three_words(sight: Sight) -> str:
    """Subject, motion, scene: the colour of what one looks at, what it or the camera does, the colour of the rest."""
    return f"{_subject(sight)} {_motion_word(sight)} {sight.colours[0]}"


def _subject(sight: Sight) -> str:
    """Colour of what moves where the scene has another one, else of what stands out, else of the picture."""
    if sight.moving is not None and sight.moving.colour != sight.colours[0]:
        return sight.moving.colour
    return sight.accent or sight.colours[-1]


def _motion_word(sight: Sight) -> str:
    camera = {"pan": "panning", "zoom": "zooming", "shaking": "shaking"}.get(sight.camera.split(" ")[0])
    if camera:
        return camera
    if sight.moving is not None:
        return "moving"
    return "still" if sight.motion < 0.4 else "drifting" if sight.motion < 5 else "moving"


def _movement_sentence(sight: Sight) -> str:
    """Empty where the camera moves and nothing else was found: its own sentence says it."""
    if sight.moving is None:
        if sight.camera not in ("", "still"):
            return ""
        return f"{'Hardly anything' if sight.motion < 0.5 else 'Little'} moves."
    where = sight.moving.direction()
    to = {"": "to and fro", "left": "to the left", "right": "to the right"}.get(where, where)
    return f"{sight.thing().capitalize()} moves {to}{_pace(sight.moving.speed)}."


def _verb(camera: str) -> str:
    """`pan left` to `pans left`."""
    first, _, rest = camera.partition(" ")
    return f"{first}s {rest}".strip()


def _pace(speed: float) -> str:
    return " slowly" if speed < 8 else " fast" if speed > 40 else ""


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


@dataclass(kw_only=True)
class RuleCaptions(Stage):
    """Describes a clip by rules at three levels: sentences, one sentence, three words. Plain ASCII, always the same.

    Reads: frames, crop, motion, camera, dropped_by
    Writes: caption_detailed, caption_short, caption_words
    """

    name: str = "captions"

    def process(self, record: Clip) -> list[Clip]:
        if record.dropped_by:
            return [record]
        rgb_THWC = inside_bars(record)
        small_THWC = at_height(rgb_THWC[spread(len(rgb_THWC), 8)], 48)
        sight = see(small_THWC, movement_of(record), record.motion, record.camera)
        return [
            replace(
                record,
                caption_detailed=detailed(sight),
                caption_short=short(sight),
                caption_words=three_words(sight),
            )
        ]
