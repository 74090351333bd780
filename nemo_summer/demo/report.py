"""The page about a run: one file with everything in it, that asks no other computer for anything.

`write_report(out)` reads what lies in a demo's folder; what is missing is said on the page. Captions, prompts and file
names come from strangers: the template escapes all text, and the page's own policy forbids scripts and requests.
"""

from __future__ import annotations

import base64
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nemo_summer.demo import charts
from nemo_summer.demo.charts import Series, number
from nemo_summer.demo.facts import PHASES, Facts, Held, read_facts, score_rules, score_shots
from nemo_summer.whole_files import write_whole

EXAMPLES = 6
"""Thumbnails shown per rule."""

MEANINGS = {
    "short": "Shorter than a clip may be: too little to learn motion from.",
    "static": "One frozen picture: a slide, a title, a paused film.",
    "motion": "Hardly anything moves, or everything moves at once.",
    "dark": "Too dark to see what is going on.",
    "bright": "Washed out to white.",
    "flat": "A plain surface: there is next to no contrast.",
    "blur": "Out of focus.",
    "shake": "The camera shakes.",
    "monochrome": "Black and white, or nearly.",
    "duplicate": "A near copy of another clip, which was kept instead.",
}


def write_report(out: Path, footage: Path | None = None) -> Path:
    """Writes report.html into a demo's folder and returns its path; whole or not at all."""
    facts = read_facts(out, footage)
    return write_whole(facts.folders.report, render(facts))


def render(facts: Facts) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("nemo_summer.demo", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    stations = stations_of(facts)
    pictures = pictures_of(facts)
    return environment.get_template("report.html.j2").render(
        out=facts.folders.out,
        summary=summary_of(facts),
        tiles=tiles_of(facts),
        way_wide=charts.way(stations, vertical=False),
        way_tall=charts.way(stations, vertical=True),
        curation=curation_of(facts),
        failures=failures_of(facts),
        truth=truth_of(facts),
        dataset=dataset_of(facts),
        training=training_of(facts),
        held=held_of(facts),
        average=average_of(facts),
        band=band_of(facts),
        times=times_of(facts),
        versions=sorted(facts.versions.items()),
        settings=settings_of(facts),
        notes=facts.notes,
        footer=f"Written {datetime.now():%Y-%m-%d %H:%M} from {facts.folders.out}",
        **pictures,
    )


# --- what was done, in numbers


def stations_of(facts: Facts) -> list[tuple[str, list[str]]]:
    """Each station of the way with its own numbers; a station without any was not reached."""
    last = facts.history[-1] if facts.history else None
    tokens = sum(row.get("tokens", 0) for row in facts.index or ())
    average = facts.average or {}
    return [
        ("footage", _footage_lines(facts)),
        ("clips", [f"{len(facts.clips)} found", f"{len(facts.kept)} kept"] if facts.clips else []),
        ("dataset", [f"{tokens:,} tokens", f"{len(facts.index)} clips"] if facts.index else []),
        ("training", [f"{last['step']} steps", f"loss {last['loss']:.3f}"] if last else []),
        ("average", [f"exponent {average['gamma']:g}", f"loss {average['loss']:.3f}"] if "loss" in average else []),
        ("mp4", [_counted(len(facts.samples), "clip")] if facts.samples else []),
    ]


def _footage_lines(facts: Facts) -> list[str]:
    videos = {row["video"] for row in facts.clips or ()}
    if not videos:
        return []
    seconds = sum(row["end_s"] - row["start_s"] for row in facts.clips or ())
    return [_counted(len(videos), "video"), f"{seconds / 60:.1f} min in shots"]


def summary_of(facts: Facts) -> str:
    """One or two sentences that say what came out."""
    parts = []
    if facts.clips:
        videos = len({row["video"] for row in facts.clips})
        judged = f"{_counted(len(facts.clips), 'clip')} of {_counted(videos, 'video')}"
        parts.append(f"{judged} were judged and {len(facts.kept)} kept.")
    if facts.history:
        parts.append(f"A diffusion transformer was trained on them for {facts.history[-1]['step']} steps.")
    if facts.held:
        parts.append(f"On clips it had not seen it is {_compared(facts.held[-1].gain)} the best linear denoiser.")
    if facts.samples:
        parts.append(f"It then made {_counted(len(facts.samples), 'clip')} of its own.")
    return " ".join(parts) or "Nothing has been run in this folder yet."


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _compared(gain: float) -> str:
    return f"{gain:.0%} better than" if gain >= 0 else f"{-gain:.0%} worse than"


def tiles_of(facts: Facts) -> list[dict[str, str]]:
    tiles = []
    if facts.clips:
        tiles.append(("clips kept of those found", f"{len(facts.kept)} / {len(facts.clips)}"))
    if facts.history:
        tiles.append(("steps of training", f"{facts.history[-1]['step']:,}"))
    if facts.held:
        best = facts.held[-1]
        tiles.append(("held-out loss over the linear denoiser's", f"{best.mean / best.baseline_mean:.3f}"))
    errors = [line["row_norm_error"] for line in facts.history or () if line.get("row_norm_error") is not None]
    if errors:
        tiles.append(("largest error of a row's length", number(errors[-1])))
    seconds = [phase.get("seconds", 0) for phase in facts.phases.values()]
    if seconds:
        tiles.append(("from start to end", clock(sum(seconds))))
        peak = max(phase.get("peak_bytes", 0) for phase in facts.phases.values())
        tiles.append(("peak memory", f"{peak / 2**30:.1f} GiB"))
    return [{"name": name, "value": value} for name, value in tiles]


def clock(seconds: float) -> str:
    """42 s, 3:05 min."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{int(seconds) // 60}:{int(seconds) % 60:02} min"


# --- curation


def curation_of(facts: Facts) -> dict[str, Any] | None:
    if facts.clips is None:
        return None
    rules = facts.by_rule()
    total = len(facts.clips)
    return {
        "sentence": f"{total} clips were found; {len(facts.kept)} were kept and {total - len(facts.kept)} dropped, "
        "each by the first rule that it broke.",
        "bars": charts.counts([("kept", len(facts.kept)), *((rule, len(rows)) for rule, rows in rules)]),
        "kept": len(facts.kept),
        "rules": [
            {
                "name": rule,
                "count": len(rows),
                "meaning": MEANINGS.get(rule, ""),
                "examples": [_example(facts, row) for row in rows[:EXAMPLES]],
            }
            for rule, rows in rules
        ],
        "examples": [_example(facts, row) for row in spread(facts.kept, 2 * EXAMPLES)],
    }


def _example(facts: Facts, row: Mapping[str, Any]) -> dict[str, str]:
    place = f"{row['video']}, {row['start_s']:.1f}–{row['end_s']:.1f} s"
    said = row["caption_short"] if row["status"] == "kept" else row["why_dropped"]
    thumb = facts.folders.dataset / (row["thumb"] or f"thumbs/{row['clip_id']}.jpg")
    return {"picture": data_uri(thumb, "image/jpeg"), "text": f"{said} ({place})" if said else place}


def spread(rows: Sequence[Any], count: int) -> list[Any]:
    """`count` of the rows, evenly from first to last."""
    return [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else list(rows)


def failures_of(facts: Facts) -> list[str]:
    """One line for each file that gave nothing and each warning of the curator."""
    manifest = facts.manifest or {}
    copies = [f"{copy['file']} has the same content as {copy['same_as']}" for copy in manifest.get("duplicates") or ()]
    return [_as_line(entry) for name in ("failures", "warnings") for entry in manifest.get(name) or ()] + copies


def _as_line(entry: Any) -> str:
    if isinstance(entry, Mapping):
        told, file = str(entry.get("message") or json.dumps(dict(entry))), str(entry.get("file", ""))
        return told if file in told else f"{file}: {told}"
    return str(entry)


def truth_of(facts: Facts) -> dict[str, Any] | None:
    """Shots and rules against the truth file, where there is one."""
    if facts.truth is None or facts.clips is None:
        return None
    score = score_shots(facts.truth, spans_of(facts))
    hit, total = (sum(pair[i] for pair in score.by_kind.values()) for i in (0, 1))
    return {
        "sentence": f"{hit} of {total} transitions were found (recall {score.recall:.0%}); {score.right} of "
        f"{score.found} found ones are true (precision {score.precision:.0%}).",
        "kinds": [{"kind": kind, "hit": hit, "total": total} for kind, (hit, total) in score.by_kind.items()],
        "rules": [
            {
                "kind": row.kind, "shots": row.shots, "kept": row.kept, "dropped": row.dropped,
                "by": ", ".join(f"{rule} {count}" for rule, count in row.rules.items()),
            }
            for row in score_rules(facts.truth, facts.clips)
        ],
    }  # fmt: skip


def spans_of(facts: Facts) -> dict[str, list[tuple[float, float]]]:
    """Spans of all clips, dropped ones too, by video."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for row in facts.clips or ():
        spans.setdefault(Path(row["video"]).name, []).append((row["start_s"], row["end_s"]))
    return spans


# --- dataset


def dataset_of(facts: Facts) -> dict[str, Any] | None:
    if not facts.index:
        return None
    rows = facts.index
    splits = Counter(row["split"] for row in rows)
    tokens = sum(row["tokens"] for row in rows)
    words = [row["caption"]["words"].replace(",", " ").split() for row in rows]
    texts = " ".join(row["caption"]["detailed"].lower() for row in rows)
    parts = [
        ("Length of clips", charts.histogram([row["frames"] / row["fps"] for row in rows], "s")),
        ("Tokens per clip", charts.histogram([row["tokens"] for row in rows], "")),
        ("Split", charts.counts(splits.most_common())),
        ("Colours in the captions", charts.counts(_colours_in(texts))),
        *((f"Word {place + 1} of three", charts.counts(_most(words, place))) for place in range(3)),
        ("Camera", charts.counts(Counter(row["camera"] or "unknown" for row in facts.kept).most_common(8))),
    ]
    return {
        "sentence": f"{len(rows)} clips with {tokens:,} tokens, {splits['train']} to train on and {splits['val']} held "
        f"out; {sum(bool(row['duplicate_of']) for row in facts.clips or ())} near copies were left out.",
        "parts": [{"name": name, "chart": chart} for name, chart in parts],
    }


def _most(words: Sequence[Sequence[str]], place: int) -> list[tuple[str, int]]:
    return Counter(line[place] for line in words if len(line) > place).most_common(8)


def _colours_in(text: str) -> list[tuple[str, int]]:
    names = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "black", "grey", "white")
    found = Counter(word.strip(".,;:!?") for word in text.split())
    return [(name, found[name]) for name in sorted(names, key=lambda n: -found[n]) if found[name]]


# --- training


def training_of(facts: Facts) -> dict[str, Any] | None:
    history = [line for line in facts.history or () if line.get("loss") is not None]
    if not history:
        return None
    loss = [(line["step"], line["loss"]) for line in history]
    held = [(look.step, look.mean) for look in facts.held or ()]
    speed = statistics.median(line["tokens_per_s"] for line in history)
    busy = [line["mfu"] for line in history if line.get("mfu")]
    base = [(x, facts.held[-1].baseline_mean) for x in (loss[0][0], loss[-1][0])] if facts.held else []
    return {
        "sentence": f"{history[-1]['step']} steps at {speed:,.0f} tokens per second"
        + (f" ({statistics.median(busy):.0%} of what the processor could do at best)" if busy else "") + ".",
        "loss": charts.lines(
            [
                Series("each logged step", loss, "faint"),
                Series("running mean", smooth(loss), "one"),
                Series("held out", held, "two-look", dots=True),
                Series("best linear denoiser, held out", base, "dashed"),
            ],
            "step", "loss",
        ),
        "rates": charts.lines(
            [
                Series("learning rate", [(line["step"], line["lr"]) for line in history], "one"),
                Series("gradient norm", [(line["step"], line["grad_norm"]) for line in history], "three-look"),
            ],
            "step", "value", log_y=True,
        ),
    }  # fmt: skip


def smooth(points: Sequence[tuple[float, float]], share: float = 0.15) -> list[tuple[float, float]]:
    """Running mean in which each new point counts `share`."""
    mean, found = None, []
    for x, y in points:
        mean = y if mean is None else (1 - share) * mean + share * y
        found.append((x, mean))
    return found


def held_of(facts: Facts) -> dict[str, Any] | None:
    """Loss per noise level against the best linear denoiser, after the last step."""
    if not facts.held:
        return None
    last: Held = facts.held[-1]
    curve = [(i / 100, 1 / ((1 - i / 100) ** 2 + (i / 100) ** 2)) for i in range(101)]
    series = [Series("", list(zip(h.levels, h.losses, strict=True)), "faint") for h in facts.held[:-1]]
    series += [
        Series("best linear denoiser, 1/((1−t)²+t²)", curve, "dashed"),
        Series(f"model after step {last.step}", list(zip(last.levels, last.losses, strict=True)), "one", dots=True),
    ]
    beaten = sum(ratio < 1 for ratio in last.ratios)
    return {
        "sentence": f"After step {last.step} the model beats the best linear denoiser at {beaten} of "
        f"{len(last.levels)} noise levels and is {_compared(last.gain)} it on their mean. Faint: earlier looks.",
        "chart": charts.lines(series, "noise level t (0 is clean, 1 is noise)", "squared error", zero=True),
        "rows": [
            {
                "level": f"{t:.4f}",
                "loss": f"{loss:.4f}",
                "baseline": f"{base:.4f}",
                "ratio": f"{r:.3f}",
                "better": r < 1,
            }
            for t, loss, base, r in zip(last.levels, last.losses, last.baseline, last.ratios, strict=True)
        ],
        "mean": f"{last.mean:.4f}",
        "baseline_mean": f"{last.baseline_mean:.4f}",
        "ratio": f"{last.mean / last.baseline_mean:.3f}",
        "better": last.gain > 0,
    }


def average_of(facts: Facts) -> dict[str, Any] | None:
    """What each exponent scored, and which was kept."""
    table = (facts.average or {}).get("table")
    if not table:
        return None
    best, count = facts.average["gamma"], len(facts.average.get("checkpoints", ()))
    return {
        "sentence": f"{count} checkpoints, weighted by a power of their step; the exponent {best:g} predicts the "
        "held-out clips best and is what the clips above are made with.",
        "rows": [
            {
                "gamma": f"{row['gamma']:g}", "width": f"{row['sigma_rel']:.1%}", "loss": f"{row['loss']:.5f}",
                "best": row["gamma"] == best,
            }
            for row in table
        ],
    }  # fmt: skip


def band_of(facts: Facts) -> dict[str, Any] | None:
    """The median rotation of each weight's rows between its predicted bounds, over steps at the highest rate."""
    measured = [line for line in facts.history or () if line.get("rotation") and line.get("band")]
    if not measured:
        return None
    highest = max(line["lr"] for line in measured)
    lines = [line for line in measured if line["lr"] > 0.99 * highest]
    rows = []
    for name, (low, high) in lines[-1]["band"].items():
        angles = [line["rotation"][name] for line in lines if name in line["rotation"]]
        rows.append((name.removesuffix(".weight"), low, high, statistics.median(angles)))
    inside = sum(low <= angle <= high for _, low, high, angle in rows)
    least, most = (pick(angle / low for _, low, _, angle in rows) for pick in (min, max))
    return {
        "sentence": "Rows of these weights have length 1, so a step can only turn them. The band reaches from the "
        "angle that pure noise would give (left end) to that of perfectly agreeing gradients (right end); the dot is "
        f"the median of {len(lines)} measured steps at the highest learning rate. {inside} of {len(rows)} weights lie "
        f"inside; the angles are {least:.2f} to {most:.2f} times the left end. The left end is for noise of one size: "
        "gradients that are large in one step and small in the next turn the rows less.",
        "chart": charts.bands(rows, "mean angle in radians"),
    }


# --- generated clips


def pictures_of(facts: Facts) -> dict[str, Any]:
    """What needs the codec: samples with their nearest training clips, and a clip before and after the codec."""
    plain = {"samples": [_sample_alone(s.path, s.prompt) for s in facts.samples], "likeness_text": "", "codec": None}
    if not facts.dataset or not facts.index:
        return plain
    try:
        from nemo_summer.demo.likeness import look_at

        found = look_at(facts)
    except (OSError, ValueError, KeyError) as error:
        facts.notes.append(f"generated clips could not be compared with training clips: {error}")
        return plain
    return {
        "samples": [
            _sample_beside(sample, near) for sample, near in zip(plain["samples"], found.neighbours, strict=True)
        ],
        "likeness_text": found.sentence,
        "codec": found.reconstruction
        and {
            "sentence": found.reconstruction.sentence,
            "before": bytes_uri(found.reconstruction.before_mp4, "video/mp4"),
            "after": bytes_uri(found.reconstruction.after_mp4, "video/mp4"),
        },
    }


def _sample_alone(path: Path, prompt: str) -> dict[str, str]:
    return {"video": data_uri(path, "video/mp4"), "prompt": prompt, "near_video": "", "text": path.name}


def _sample_beside(sample: dict[str, str], near: Any) -> dict[str, str]:
    if near is None:
        return sample
    text = f"nearest: {near.caption} ({near.key}), distance {near.distance:.2f}"
    return sample | {"near_video": bytes_uri(near.mp4, "video/mp4") if near.mp4 else "", "text": text}


# --- times, settings


def times_of(facts: Facts) -> dict[str, Any] | None:
    done = [(name, facts.phases[name]) for name in PHASES if facts.phases.get(name, {}).get("state") == "done"]
    if not done:
        return None
    total = sum(phase["seconds"] for _, phase in done)
    most, who = max((phase.get("peak_bytes", 0), name) for name, phase in done)
    return {
        "sentence": f"{clock(total)} in all; the most memory, {most / 2**30:.2f} GiB, was needed by {who}.",
        "seconds": charts.counts([(name, round(phase["seconds"], 1)) for name, phase in done], " s"),
        "memory": charts.counts([(name, round(phase.get("peak_bytes", 0) / 2**20)) for name, phase in done]),
    }


def settings_of(facts: Facts) -> list[tuple[str, str]]:
    parts = [("recipe of the run", facts.settings), ("manifest of the curation", facts.manifest or {})]
    return [(name, json.dumps(value, indent=1, ensure_ascii=False)[:60000]) for name, value in parts if value]


def data_uri(path: Path, kind: str) -> Markup | str:
    """The file inside the page; empty where it is not there."""
    return bytes_uri(path.read_bytes(), kind) if path.is_file() else ""


def bytes_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
