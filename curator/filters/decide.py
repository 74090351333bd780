"""The limits: which clips are turned down, and the sentence that says why."""

from __future__ import annotations

from dataclasses import dataclass, replace

from curator.filters.colour import clip_colourfulness
from curator.records import Clip
from curator.stage import Stage


@dataclass(frozen=True, slots=True)
class Limit:
    """One rule: the value found, what it is, and the bound with the setting that moves it."""

    rule: str
    what: str
    value: float | None
    knob: str
    least: float | None = None
    most: float | None = None

    def complaint(self) -> str:
        """A sentence with value, limit and knob; empty where the value is inside or was not measured."""
        if self.value is None:
            return ""
        if self.least is not None and self.value < self.least:
            side, bound = "below", self.least
        elif self.most is not None and self.value > self.most:
            side, bound = "above", self.most
        else:
            return ""
        return f"{self.what} is {self.value:.3g}, {side} the limit {bound:.3g}: move it with curate.decide.{self.knob}"


@dataclass(kw_only=True)
class Decide(Stage):
    """Turns a clip down by the first limit it breaks; a score that was not measured breaks none.

    Reads: frames, crop, motion, static_share, sharpness, brightness, contrast, camera, dropped_by
    Writes: dropped_by, why_dropped
    """

    name: str = "decide"
    brightness_min: float = 0.04
    """Darkest mean luma, 0..1 (`dark`)."""
    brightness_max: float = 0.96
    """Brightest mean luma (`bright`)."""
    contrast_min: float = 0.02
    """Least standard deviation of luma, 0..1: below it lies a plain surface (`flat`)."""
    static_share_max: float = 0.9
    """Greatest share of neighbouring frames that are the same picture: slides, frozen pictures (`static`)."""
    motion_min: float = 0.2
    """Least mean optical flow, in percent of the width per second (`motion`)."""
    motion_max: float = 150.0
    """Greatest mean optical flow: whip pans, flicker (`motion`)."""
    sharpness_min: float = 6.0
    """Least variance of the Laplacian at 128 rows (`blur`)."""
    colour_min: float = 3.0
    """Least spread of the colours, in grey levels: black and white, sepia (`monochrome`); 0 keeps them."""
    keep_shaking: bool = False
    """Keep clips whose camera shakes (`shake`)."""

    def limits(self, clip: Clip) -> list[Limit]:
        """All rules, in the order in which they are asked: what a viewer would name first comes first."""
        colour = clip_colourfulness(clip) if clip.frames is not None else None
        return [
            Limit("dark", "brightness", clip.brightness, "brightness_min", least=self.brightness_min),
            Limit("bright", "brightness", clip.brightness, "brightness_max", most=self.brightness_max),
            Limit("flat", "contrast", clip.contrast, "contrast_min", least=self.contrast_min),
            Limit("static", "static_share", clip.static_share, "static_share_max", most=self.static_share_max),
            Limit("motion", "motion", clip.motion, "motion_min", least=self.motion_min),
            Limit("motion", "motion", clip.motion, "motion_max", most=self.motion_max),
            Limit("blur", "sharpness", clip.sharpness, "sharpness_min", least=self.sharpness_min),
            Limit("monochrome", "colour", colour, "colour_min", least=self.colour_min),
        ]

    def process(self, record: Clip) -> list[Clip]:
        if record.dropped_by:
            return [record]
        for limit in self.limits(record):
            if why := limit.complaint():
                return [replace(record, dropped_by=limit.rule, why_dropped=why)]
        if record.camera == "shaking" and not self.keep_shaking:
            why = "the camera shakes: keep such clips with curate.decide.keep_shaking=true"
            return [replace(record, dropped_by="shake", why_dropped=why)]
        return [record]
