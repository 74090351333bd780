"""Drawings for the report as inline SVG: no script, colours from the page's style, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 14, 44


@dataclass(frozen=True, slots=True)
class Series:
    """One curve. `look` is a class of the page's style: one, two-look, three-look, faint, dashed."""

    name: str
    points: Sequence[tuple[float, float]]
    look: str = "one"
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """How numbers become places on one side of a drawing."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high end."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round numbers inside the axis, at most about eight."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            marks = [m * 10.0**d for d in decades for m in ((1,) if len(decades) > 4 else (1, 2, 5))]
        else:
            step = _round_step((self.high - self.low) / 5)
            marks = [step * i for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [m for m in marks if self.low * (1 - 1e-9) - 1e-12 <= m <= self.high * (1 + 1e-9) + 1e-12]


def axis_for(values: Sequence[float], log: bool = False, zero: bool = False) -> Axis:
    """An axis that holds all finite `values` with a little room; `zero` begins it at 0."""
    good = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0]
    low, high = min(good), max(good)
    if log:
        return Axis(low / 1.3, high * 1.3, log=True)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Axis(0.0 if zero and low >= 0 else low - room, high + room)


def _round_step(raw: float) -> float:
    scale = 10 ** math.floor(math.log10(raw))
    return scale * min(m for m in (1, 2, 2.5, 5, 10) if m * scale >= raw * 0.999)


def number(value: float) -> str:
    """Three digits for people: 0.123, 12.3, 1,234, 1.2e-06."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e7:
        return f"{value:.2g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def lines(
    series: Sequence[Series], x_name: str, y_name: str, *, log_x: bool = False, log_y: bool = False, zero: bool = False
) -> Markup:
    """Curves in one frame with a legend; points that are not finite are left out."""
    shown = [Series(s.name, _drawable(s.points, log_x, log_y), s.look, s.dots) for s in series]
    shown = [s for s in shown if s.points]
    if not shown:
        return Markup("")
    x_axis = axis_for([x for s in shown for x, _ in s.points], log_x)
    if not log_x:
        # Time and steps begin and end at the frame: room at the sides would say nothing.
        xs = [x for s in shown for x, _ in s.points]
        x_axis = Axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1)
    y_axis = axis_for([y for s in shown for _, y in s.points], log_y, zero)
    place = _placer(x_axis, y_axis)
    body = [_grid(x_axis, y_axis, x_name, y_name), *(_curve(s, place) for s in shown)]
    return _svg(WIDTH, HEIGHT, body, f"{y_name} over {x_name}") + legend([(s.name, s.look) for s in shown if s.name])


def _drawable(points: Sequence[tuple[float, float]], log_x: bool, log_y: bool) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for x, y in points
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
        if (x > 0 or not log_x) and (y > 0 or not log_y)
    ]


def _placer(x_axis: Axis, y_axis: Axis) -> Callable[[float, float], tuple[float, float]]:
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return lambda x, y: (LEFT + wide * x_axis.share(x), TOP + high * (1 - y_axis.share(y)))


def _grid(x_axis: Axis, y_axis: Axis, x_name: str, y_name: str) -> Markup:
    place = _placer(x_axis, y_axis)
    parts = []
    for tick in y_axis.ticks():
        y = place(x_axis.low, tick)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 8}" y="{y + 4:.1f}">{number(tick)}</text>')
    for tick in x_axis.ticks():
        x = place(tick, y_axis.low)[0]
        parts.append(f'<line class="grid" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="{x:.1f}" x2="{x:.1f}"/>')
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}">{number(tick)}</text>')
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text class="name mid" x="{middle_x}" y="{HEIGHT - 6}">{escape(x_name)}</text>')
    parts.append(f'<text class="name mid" transform="translate(14 {middle_y}) rotate(-90)">{escape(y_name)}</text>')
    return Markup("".join(parts))


def _curve(series: Series, place: Callable[[float, float], tuple[float, float]]) -> Markup:
    spots = [place(x, y) for x, y in series.points]
    look = escape(series.look)
    parts = [f'<polyline class="curve {look}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in spots)}"/>']
    if series.dots:
        parts += [
            f'<circle class="dot {look}" cx="{px:.1f}" cy="{py:.1f}" r="4">'
            f"<title>{escape(series.name)}: {number(x)}, {number(y)}</title></circle>"
            for (px, py), (x, y) in zip(spots, series.points, strict=True)
        ]
    return Markup("".join(parts))


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Names with their colours; wraps on narrow screens."""
    items = "".join(
        f'<span class="key"><i class="swatch {escape(look)}"></i>{escape(name)}</span>' for name, look in entries
    )
    return Markup(f'<div class="legend">{items}</div>')


def bands(rows: Sequence[tuple[str, float, float, float]], x_name: str) -> Markup:
    """One row per weight: the predicted span (low, high) as a bar and the measured value as a dot, on a log axis."""
    good = [row for row in rows if all(math.isfinite(v) and v > 0 for v in row[1:])]
    if not good:
        return Markup("")
    left, step, top = 170, 20, 8
    height = top + step * len(good) + 40
    axis = axis_for([v for row in good for v in row[1:]], log=True)
    wide = WIDTH - left - RIGHT
    bottom = top + step * len(good)
    parts = []
    for tick in axis.ticks():
        x = left + wide * axis.share(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{bottom + 16}">{number(tick)}</text>')
    for place, (name, low, high, found) in enumerate(good):
        y = top + step * (place + 0.5)
        x_low, x_high, x = (left + wide * axis.share(v) for v in (low, high, found))
        look = "in" if low <= found <= high else "out"
        parts.append(f'<text class="tick end" x="{left - 8}" y="{y + 4:.1f}">{escape(name)}</text>')
        span = f'x="{x_low:.1f}" width="{max(1, x_high - x_low):.1f}"'
        parts.append(f'<rect class="band" y="{y - 6:.1f}" {span} height="12" rx="3"/>')
        told = f"{escape(name)}: {number(found)}, predicted {number(low)} to {number(high)}"
        parts.append(f'<circle class="mark {look}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{told}</title></circle>')
    parts.append(f'<text class="name mid" x="{left + wide / 2}" y="{height - 4}">{escape(x_name)}</text>')
    return _svg(WIDTH, height, [Markup("".join(parts))], x_name)


def counts(pairs: Sequence[tuple[str, float]], unit: str = "") -> Markup:
    """Names with bars and numbers: a table that needs no axis."""
    most = max((value for _, value in pairs), default=0) or 1
    rows = "".join(
        f'<div class="count"><span class="what">{escape(name)}</span>'
        f'<span class="bar"><i style="width:{100 * value / most:.1f}%"></i></span>'
        f'<span class="value">{number(value)}{escape(unit)}</span></div>'
        for name, value in pairs
    )
    return Markup(f'<div class="counts">{rows}</div>')


def histogram(values: Sequence[float], unit: str, bins: int = 8) -> Markup:
    """How the values spread, as `counts` of equal bins."""
    good = [v for v in values if math.isfinite(v)]
    if not good:
        return Markup("")
    low, high = min(good), max(good)
    if high - low < 1e-9:
        return counts([(f"{number(low)} {unit}", len(good))])
    step = _round_step((high - low) / bins)
    first, last = math.floor(low / step + 1e-9), math.floor(high / step + 1e-9)
    found = [0] * (last - first + 1)
    for value in good:
        found[min(last, math.floor(value / step + 1e-9)) - first] += 1
    return counts([(f"{(first + i) * step:.4g} – {(first + i + 1) * step:.4g} {unit}", n) for i, n in enumerate(found)])


def way(stations: Sequence[tuple[str, Sequence[str]]], vertical: bool) -> Markup:
    """Stations joined by arrows, each with its lines of numbers: one row on wide screens, one column on phones."""
    box_w, box_h, gap = (300, 84, 26) if vertical else (150, 86, 26)
    parts = []
    for place, (name, told) in enumerate(stations):
        x, y = (0, place * (box_h + gap)) if vertical else (place * (box_w + gap), 0)
        done = "done" if told else "missing"
        parts.append(
            f'<rect class="station {done}" x="{x + 1}" y="{y + 1}" width="{box_w - 2}" height="{box_h - 2}" rx="12"/>'
        )
        parts.append(f'<text class="title" x="{x + 14}" y="{y + 27}">{escape(name)}</text>')
        for line, text in enumerate(told or ["not run"]):
            parts.append(f'<text class="told" x="{x + 14}" y="{y + 49 + 19 * line}">{escape(text)}</text>')
        if place:
            parts.append(_arrow(x, y, box_w, box_h, gap, vertical))
    long = len(stations) * ((box_h if vertical else box_w) + gap) - gap
    size = (box_w, long) if vertical else (long, box_h)
    return _svg(*size, [Markup("".join(parts))], "the way from footage to mp4")


def _arrow(x: float, y: float, box_w: float, box_h: float, gap: float, vertical: bool) -> str:
    """From the station before to the one at (x, y)."""
    if vertical:
        middle = x + box_w / 2
        return f'<path class="arrow" d="M{middle} {y - gap + 3}V{y - 4}M{middle - 6} {y - 9}l6 6l6 -6"/>'
    middle = y + box_h / 2
    return f'<path class="arrow" d="M{x - gap + 3} {middle}H{x - 4}M{x - 9} {middle - 6}l6 6l-6 6"/>'


def _svg(width: float, height: float, parts: Sequence[Markup], label: str) -> Markup:
    body = Markup("").join(parts)
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}" '
        f'preserveAspectRatio="xMidYMid meet">{body}</svg>'
    )
