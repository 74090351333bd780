"""Synthetic footage with a truth file: the same seed gives the same pictures, and every cut in them is known.

`plan_videos` says what each video shows, `write_footage` films it. The truth says for each shot when it starts and
ends, how it begins (start, cut, fade, dissolve), what it shows, and which rule of the curator should drop it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import cv2
import numpy as np

from nemo_summer.demo.scenes import CAMERAS, COLOURS, GROUNDS, SHAPES, Scene, brighter, render, scene_of
from nemo_summer.whole_files import write_whole

TICKS_PER_S = 600
"""Time base of the files: divisible by 24, 25 and 30."""

SLIDE_TEXTS = ("Chapter one", "Questions?", "Thank you")
SUBTITLES = ("Where does it go?", "Round and round.", "Look, over there!", "It never stops.")


@dataclass(frozen=True, slots=True)
class ShotPlan:
    """One shot, on the frame grid of its video."""

    scene: Scene
    frames: int
    transition: str = "cut"
    """how it begins: start, cut, fade (through black), dissolve"""
    transition_frames: int = 0
    drop: str | None = None
    """the rule that should turn it down: short, static, dark, blur, shake, duplicate"""
    copy_of: tuple[str, int] | None = None
    """video and shot that show the same"""


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """One file."""

    name: str
    fps: int
    height: int
    width: int
    shots: tuple[ShotPlan, ...]
    bars: tuple[int, int] = (0, 0)
    """black rows above and below, black columns left and right, in pixels"""
    variable_rate: bool = False
    quality: int = 21
    """x264's crf: lower is better"""

    @property
    def frames(self) -> int:
        return sum(shot.frames for shot in self.shots)


@dataclass(frozen=True, slots=True)
class Kind:
    """What is special about a video of the collection."""

    name: str
    fps: int
    size: tuple[int, int] = (180, 320)
    transition: str = "cut"
    bars: tuple[int, int] = (0, 0)
    variable_rate: bool = False
    special: str = ""
    """what every third shot is: static, dark, short, blur, duplicate, brighter, text, shake"""
    quality: int = 21


KINDS = (
    Kind("meadow", 24),
    Kind("harbour", 25, transition="dissolve"),
    Kind("evening", 30, transition="fade"),
    Kind("lecture", 24, special="static"),
    Kind("cinema", 25, bars=(22, 0)),
    Kind("copies", 24, special="duplicate", quality=31),
    Kind("night", 24, special="dark"),
    Kind("phone", 30, special="shake", variable_rate=True),
    Kind("trailer", 25, size=(144, 256), special="short"),
    Kind("subtitled", 24, special="text"),
    Kind("portrait", 30, bars=(0, 64)),
    Kind("brighter", 25, special="brighter"),
    Kind("unfocused", 25, size=(144, 256), special="blur"),
    Kind("long", 24, transition="dissolve"),
)


def plan_videos(seed: int, seconds: float, videos: int) -> list[VideoPlan]:
    """The collection: `videos` files of about `seconds` each; same seed, same plan."""
    if videos < 1 or seconds < 4:
        raise ValueError(f"footage of {videos} videos of {seconds} s holds no clip: set videos>=1 and seconds>=4")
    subjects = list(product(SHAPES, COLOURS, GROUNDS, CAMERAS[:-1]))
    np.random.default_rng([seed, 0]).shuffle(subjects)
    plans: list[VideoPlan] = []
    for number in range(videos):
        kind = KINDS[number % len(KINDS)]
        rng = np.random.default_rng([seed, 1, number])
        plans.append(_plan_video(kind, number, seconds, rng, subjects[number * 64 :: videos] or subjects, plans))
    return plans


def _plan_video(
    kind: Kind, number: int, seconds: float, rng: np.random.Generator, subjects: list, before: list[VideoPlan]
) -> VideoPlan:
    again = number // len(KINDS)
    soft = kind.transition in ("fade", "dissolve")
    shots: list[ShotPlan] = []
    while sum(shot.frames for shot in shots) < seconds * kind.fps:
        scene = scene_of(rng, int(rng.integers(2**31)), subjects[len(shots) % len(subjects)])
        # A soft transition takes some of the shot: what is left must still be long enough for a clip.
        length_s = rng.uniform(4.4, 5.4) if soft else rng.uniform(3.4, 4.6)
        shot = ShotPlan(scene, round(length_s * kind.fps), *_transition(kind, len(shots), rng))
        shots.append(_special(shot, kind, len(shots), rng, before) if kind.special else shot)
    height, width = kind.size
    return VideoPlan(
        name=f"{number:02d}_{kind.name}{again or ''}.mp4", fps=kind.fps, height=height, width=width,
        shots=tuple(shots), bars=kind.bars, variable_rate=kind.variable_rate, quality=kind.quality,
    )  # fmt: skip


def _transition(kind: Kind, place: int, rng: np.random.Generator) -> tuple[str, int]:
    if place == 0:
        return "start", 0
    if kind.transition == "cut":
        return "cut", 0
    return kind.transition, 2 * round(rng.uniform(0.25, 0.45) * kind.fps)


def _special(shot: ShotPlan, kind: Kind, place: int, rng: np.random.Generator, before: list[VideoPlan]) -> ShotPlan:
    """The shot as the video's kind wants it; only every third one is special, so that each video keeps some clips."""
    scene = shot.scene
    if kind.special == "shake":
        return replace(shot, scene=replace(scene, camera="shake"), drop="shake") if place % 3 == 1 else shot
    if kind.special == "text":
        return replace(shot, scene=replace(scene, text=SUBTITLES[place % len(SUBTITLES)])) if place % 2 else shot
    if place % 3 != 1:
        return shot
    if kind.special == "static":
        slide = replace(scene, frozen=True, text=SLIDE_TEXTS[place // 3 % len(SLIDE_TEXTS)])
        return replace(shot, scene=slide, drop="static")
    if kind.special == "dark":
        # Long, since a detector of fades may take night for a fade and cut it in the middle.
        return replace(shot, scene=replace(scene, gain=0.06), frames=7 * kind.fps, drop="dark")
    if kind.special == "short":
        return replace(shot, frames=round(rng.uniform(1.0, 2.2) * kind.fps), drop="short")
    if kind.special == "blur":
        return replace(shot, scene=replace(scene, blur=0.08), drop="blur")
    return _copy(shot, kind, place, before)


def _copy(shot: ShotPlan, kind: Kind, place: int, before: list[VideoPlan]) -> ShotPlan:
    """A shot that an earlier video has as well; where there is no earlier one, the shot as it was."""
    originals = [
        (video, number)
        for video in before
        for number, other in enumerate(video.shots)
        if other.drop is None and other.transition in ("start", "cut") and not any(video.bars) and not other.scene.text
    ]
    if not originals:
        return shot
    video, number = originals[(place // 3 * 5 + (3 if kind.special == "brighter" else 1)) % len(originals)]
    scene = video.shots[number].scene
    scene = brighter(scene, 1.08) if kind.special == "brighter" else scene
    frames = round(video.shots[number].frames * kind.fps / video.fps)
    return replace(shot, scene=scene, frames=frames, drop="duplicate", copy_of=(video.name, number))


def write_footage(
    folder: Path | str, seed: int = 0, seconds: float = 34.0, videos: int = 14, broken: bool = False
) -> dict:
    """Films `videos` mp4 files of about `seconds` each into `folder`, with truth.json, and returns the truth.

    `broken` adds files that no curator can use. Files are written under a temporary name and renamed; truth.json last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plans = plan_videos(seed, seconds, videos)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(lambda plan: film(plan, folder / plan.name), plans))
    truth = {
        "format": 1,
        "seed": seed,
        "seconds": seconds,
        "videos": [truth_of(plan) for plan in plans],
        "broken": write_broken(folder) if broken else [],
    }
    write_whole(folder / "truth.json", json.dumps(truth, indent=1))
    return truth


def truth_of(plan: VideoPlan) -> dict:
    """What is to be found in the video: shots that tile it, in seconds, and what each shows."""
    starts = np.cumsum([0, *(shot.frames for shot in plan.shots)]) / plan.fps
    shots = []
    for number, (shot, start_s, end_s) in enumerate(zip(plan.shots, starts[:-1], starts[1:], strict=True)):
        scene = shot.scene
        shots.append(
            {
                "shot": number,
                "start_s": round(float(start_s), 4),
                "end_s": round(float(end_s), 4),
                "transition": shot.transition,
                "transition_s": round(shot.transition_frames / plan.fps, 4),
                "shows": [{"shape": shape.kind, "colour": shape.colour} for shape in reversed(scene.shapes)],
                "ground": scene.ground,
                "camera": scene.camera,
                "text": scene.text,
                "drop": shot.drop,
                "duplicate_of": None if shot.copy_of is None else {"video": shot.copy_of[0], "shot": shot.copy_of[1]},
            }
        )
    rows, columns = plan.bars
    return {
        "video": plan.name,
        "fps": plan.fps,
        "variable_rate": plan.variable_rate,
        "height": plan.height,
        "width": plan.width,
        "seconds": round(plan.frames / plan.fps, 4),
        "bars": {"top": rows, "bottom": rows, "left": columns, "right": columns},
        "shots": shots,
    }


def pictures(plan: VideoPlan) -> Iterator[tuple[int, np.ndarray]]:
    """Frame number on the video's grid and picture, uint8 [H, W, 3]; a variable frame rate leaves some numbers out."""
    rows, columns = plan.bars
    height, width = plan.height - 2 * rows, plan.width - 2 * columns
    first = 0
    for number, shot in enumerate(plan.shots):
        for frame in range(shot.frames):
            # Every shot keeps its first frame, so that its start in the truth is a time stamp of the file.
            if plan.variable_rate and frame % 5 in (2, 4) and (first // 97 + frame // 40) % 2:
                continue
            rgb_HWC = _picture(plan, number, frame, height, width)
            if rows or columns:
                rgb_HWC = cv2.copyMakeBorder(rgb_HWC, rows, rows, columns, columns, cv2.BORDER_CONSTANT)
            yield first + frame, rgb_HWC
        first += shot.frames


def _picture(plan: VideoPlan, number: int, frame: int, height: int, width: int) -> np.ndarray:
    """The picture of a shot's frame, mixed with its neighbour's while a transition lasts."""
    shot = plan.shots[number]
    rgb_HWC = render(shot.scene, frame / plan.fps, height, width)
    half = shot.transition_frames // 2
    after = plan.shots[number + 1] if number + 1 < len(plan.shots) else None
    if frame < half:
        share = 0.5 + (frame + 0.5) / (2 * half)
        neighbour, second = plan.shots[number - 1], (plan.shots[number - 1].frames + frame) / plan.fps
        kind = shot.transition
    elif after is not None and shot.frames - frame <= after.transition_frames // 2:
        left = after.transition_frames // 2
        share = 0.5 + (shot.frames - frame - 0.5) / (2 * left)
        neighbour, second = after, (frame - shot.frames) / plan.fps
        kind = after.transition
    else:
        return rgb_HWC
    if kind == "fade":
        return cv2.convertScaleAbs(rgb_HWC, alpha=2 * share - 1)
    other_HWC = render(neighbour.scene, second, height, width)
    return cv2.addWeighted(rgb_HWC, share, other_HWC, 1 - share, 0)


def film(plan: VideoPlan, path: Path) -> None:
    """Writes the video as H.264; the bytes too are the same for the same plan, since x264 runs on one thread."""
    temporary = path.with_name(f".{path.name}.part")
    with av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=plan.fps)
        stream.width, stream.height, stream.pix_fmt = plan.width, plan.height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
        stream.options = {"preset": "ultrafast", "crf": str(plan.quality)}
        stream.thread_count = 1
        for number, rgb_HWC in pictures(plan):
            frame = av.VideoFrame.from_ndarray(rgb_HWC, format="rgb24")
            frame.pts, frame.time_base = number * TICKS_PER_S // plan.fps, Fraction(1, TICKS_PER_S)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    os.replace(temporary, path)


def write_broken(folder: Path) -> list[dict]:
    """Files that look like videos and are not; returns what each is, as the truth names it."""
    cases = {
        "broken_text.mp4": (b"These are words, not pictures.\n" * 40, "text"),
        "broken_truncated.mp4": (_truncated_mp4(folder), "truncated"),
        "broken_empty.mp4": (b"", "empty"),
    }
    for name, (data, _) in cases.items():
        write_whole(folder / name, data)
    write_audio_only(folder / "broken_audio_only.mp4")
    return [{"file": name, "kind": kind} for name, (_, kind) in cases.items()] + [
        {"file": "broken_audio_only.mp4", "kind": "audio only"}
    ]


def _truncated_mp4(folder: Path) -> bytes:
    """The first half of a good file: its index, which mp4 writes last, is missing."""
    path = folder / ".whole.mp4"
    film(plan_videos(0, 4, 1)[0], path)
    data = path.read_bytes()
    path.unlink()
    return data[: len(data) // 2]


def write_audio_only(path: Path) -> None:
    """Two seconds of a tone in an mp4 without a video stream."""
    temporary = path.with_name(f".{path.name}.part")
    with av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        wave = np.sin(np.arange(32000) * 2 * np.pi * 440 / 16000).astype(np.float32) * 0.2
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    os.replace(temporary, path)
