"""What a run left behind, as records: the report and the benchmarks read the same numbers from the same files.

A file that is missing or damaged is `None` here and a sentence in `notes`: a report of half a run is still a report.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from energon_datasets.columns import read_columns

T = TypeVar("T")

PHASES = ("footage", "curate", "train", "ema", "convert", "sample", "report")
"""In the order of the way."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where each phase of a demo writes."""

    out: Path

    @property
    def footage(self) -> Path:
        return self.out / "footage"

    @property
    def dataset(self) -> Path:
        return self.out / "dataset"

    @property
    def train(self) -> Path:
        return self.out / "train"

    @property
    def checkpoints(self) -> Path:
        return self.train / "checkpoints"

    @property
    def ema(self) -> Path:
        return self.out / "ema"

    @property
    def model(self) -> Path:
        return self.out / "export"

    @property
    def samples(self) -> Path:
        return self.out / "samples"

    @property
    def state(self) -> Path:
        return self.out / "demo.json"

    @property
    def report(self) -> Path:
        return self.out / "report.html"


@dataclass(frozen=True, slots=True)
class Held:
    """One look at the held-out clips."""

    step: int
    levels: tuple[float, ...]
    losses: tuple[float, ...]
    baseline: tuple[float, ...]
    mean: float
    baseline_mean: float

    @property
    def ratios(self) -> tuple[float, ...]:
        """Loss over that of the best linear denoiser, per level: below 1 the model knows more."""
        return tuple(loss / base for loss, base in zip(self.losses, self.baseline, strict=True))

    @property
    def gain(self) -> float:
        """Share by which the mean loss lies below the best linear denoiser's."""
        return 1 - self.mean / self.baseline_mean


@dataclass(frozen=True, slots=True)
class Sample:
    """A generated clip."""

    path: Path
    prompt: str


@dataclass(kw_only=True)
class Facts:
    """All that the report may say."""

    folders: Folders
    footage_folder: Path
    phases: dict[str, dict] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    truth: dict[str, TruthVideo] | None = None
    manifest: dict | None = None
    clips: list[dict] | None = None
    dataset: dict | None = None
    index: list[dict] | None = None
    history: list[dict] | None = None
    held: list[Held] | None = None
    average: dict | None = None
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> list[dict]:
        return [row for row in self.clips or () if row["status"] == "kept"]

    @property
    def dropped(self) -> list[dict]:
        return [row for row in self.clips or () if row["status"] != "kept"]

    def by_rule(self) -> list[tuple[str, list[dict]]]:
        """Dropped clips under the rule that dropped them, the hardest rule first."""
        rules = Counter(row["dropped_by"] or "unknown" for row in self.dropped)
        return [
            (rule, [r for r in self.dropped if (r["dropped_by"] or "unknown") == rule])
            for rule, _ in rules.most_common()
        ]


@dataclass(frozen=True, slots=True)
class TruthVideo:
    """What is known of a video beforehand: its transitions, and what its shots are."""

    boundaries: tuple[Boundary, ...]
    shots: tuple[TruthShot, ...]


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where one shot gives way to the next."""

    time_s: float
    kind: str
    tolerance_s: float


@dataclass(frozen=True, slots=True)
class TruthShot:
    """One shot and the rule that should drop it; `None` where it should be kept, `either` where nothing is asserted."""

    start_s: float
    end_s: float
    drop: str | None
    twin: tuple[str, float] | None = None
    """of a copy: video and start second of the shot that shows the same; either of the two may be kept"""


def read_facts(out: Path, footage: Path | None = None) -> Facts:
    """Everything that lies in a demo's folder; never raises for what is missing or damaged."""
    folders, notes = Folders(Path(out)), []
    state = _try(notes, folders.state, _read_json) or {}
    given = footage or (Path(state["footage"]) if state.get("footage") else folders.footage)
    facts = Facts(folders=folders, footage_folder=given, notes=notes)
    facts.phases = dict(state.get("phases", {}))
    facts.settings, facts.versions = dict(state.get("settings", {})), dict(state.get("versions", {}))
    facts.truth = read_truth(given, notes)
    facts.manifest = _try(notes, folders.dataset / "manifest.json", _read_json)
    facts.clips = _try(notes, folders.dataset / "clips.parquet", lambda path: read_columns(path).to_pylist())
    facts.dataset = _try(notes, folders.dataset / "dataset.json", _read_json)
    facts.index = _try(notes, folders.dataset / "index" / "clips.jsonl", _read_lines)
    facts.history = _try(notes, folders.train / "history.jsonl", _read_lines)
    facts.held = _try(notes, folders.train / "validation.json", read_held)
    facts.average = _try(notes, folders.ema / "average.json", _read_json)
    facts.samples = read_samples(folders.samples, notes)
    return facts


def _try(notes: list[str], path: Path, read: Callable[[Path], T]) -> T | None:
    """What `read` finds in `path`, or `None` and a note that names the file and the finding."""
    if not path.exists():
        notes.append(f"{path} is not there yet")
        return None
    try:
        return read(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        notes.append(f"{path} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
        return None


def _read_json(path: Path) -> dict:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"a JSON object is wanted, found {type(found).__name__}")
    return found


def _read_lines(path: Path) -> list[dict]:
    """JSON lines; the last one may have been cut off by a kill and is then left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise ValueError(f"line {number} is no JSON") from None
    return rows


def read_held(path: Path) -> list[Held]:
    """The looks at held-out clips, first to last."""
    return [
        Held(
            step=int(entry["step"]),
            levels=tuple(entry["levels"]),
            losses=tuple(entry["losses"]),
            baseline=tuple(entry["baseline"]),
            mean=float(entry["mean"]),
            baseline_mean=float(entry["baseline_mean"]),
        )
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]


def read_samples(folder: Path, notes: list[str]) -> list[Sample]:
    """Generated clips in the order of their names, each with its prompt where samples.json tells it."""
    found = sorted(folder.glob("*.mp4")) if folder.is_dir() else []
    told = _try(notes, folder / "samples.json", _read_json) if found else None
    prompts = {entry["file"]: entry["prompt"] for entry in (told or {}).get("samples", ())}
    return [Sample(path, prompts.get(path.name, "")) for path in found]


def read_truth(folder: Path, notes: list[str]) -> dict[str, TruthVideo] | None:
    """Truth by video: truth.json of the synthetic footage, or NAME.truth.json beside a video; `None` without any."""
    found: dict[str, TruthVideo] = {}
    if (folder / "truth.json").exists():
        found |= _try(notes, folder / "truth.json", _read_synthetic) or {}
    for path in sorted(folder.glob("*.truth.json")) if folder.is_dir() else ():
        found |= _try(notes, path, _read_boundaries) or {}
    return found or None


def _read_synthetic(path: Path) -> dict[str, TruthVideo]:
    videos = _read_json(path)["videos"]
    starts = {(video["video"], shot["shot"]): shot["start_s"] for video in videos for shot in video["shots"]}
    return {video["video"]: _synthetic_truth(video, starts) for video in videos}


def _read_boundaries(path: Path) -> dict[str, TruthVideo]:
    entry = _read_json(path)
    return {entry["video"]: _boundary_truth(entry)}


def _synthetic_truth(entry: Mapping, starts: Mapping[tuple[str, int], float]) -> TruthVideo:
    frame_s, shots = 1 / entry["fps"], entry["shots"]
    boundaries = tuple(
        Boundary(shot["start_s"], shot["transition"], shot["transition_s"] / 2 + 3 * frame_s) for shot in shots[1:]
    )
    return TruthVideo(boundaries, tuple(_synthetic_shot(shot, starts) for shot in shots))


def _synthetic_shot(shot: Mapping, starts: Mapping[tuple[str, int], float]) -> TruthShot:
    original = shot["duplicate_of"]
    twin = original and (original["video"], starts[original["video"], original["shot"]])
    return TruthShot(shot["start_s"], shot["end_s"], shot["drop"], twin or None)


def _boundary_truth(entry: Mapping) -> TruthVideo:
    boundaries = tuple(
        Boundary(b["time_s"], b["kind"], b["tolerance_frames"] / entry["fps"]) for b in entry["boundaries"]
    )
    faulty = {name: name for name in ("static", "monochrome", "short", "shake")} | {"near-duplicate": "duplicate"}
    shots: list[TruthShot] = []
    first: dict[str, tuple[str, float]] = {}
    for segment in entry.get("segments", ()):
        faults = [faulty[tag] for tag in segment["tags"] if tag in faulty]
        free = "either" if "either" in segment["tags"] else None
        names = [tag for tag in segment["tags"] if tag.startswith("id:")]
        twin = next((first[name] for name in names if name in first), None) if "duplicate" in faults else None
        first |= {name: (entry["video"], segment["start_s"]) for name in names if name not in first}
        shots.append(TruthShot(segment["start_s"], segment["end_s"], faults[0] if faults else free, twin))
    return TruthVideo(boundaries, tuple(shots))


@dataclass(frozen=True, slots=True)
class ShotScore:
    """How the shots that were found agree with the truth, by kind of transition."""

    found: int
    right: int
    by_kind: dict[str, tuple[int, int]]
    """kind: how many of the true transitions were found, of how many"""

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        hit, total = (sum(pair[i] for pair in self.by_kind.values()) for i in (0, 1))
        return hit / total if total else 1.0


PIECES_ALIKE_S = 0.07
"""Pieces of one shot differ in length by a frame at most."""


def score_shots(truth: Mapping[str, TruthVideo], found: Mapping[str, Sequence[tuple[float, float]]]) -> ShotScore:
    """Compares spans (start, end in seconds) per video with the truth. One transition may be found as two edges: the
    end of one span and the start of the next, with the transition between them left out."""
    edges_found = edges_right = 0
    by_kind: Counter = Counter()
    hits: Counter = Counter()
    for video, spans in found.items():
        known = truth.get(video)
        if known is None:
            continue
        edges = inner_edges(spans)
        right = [any(_touches(edge, b) for b in known.boundaries) for edge in edges]
        edges_right += sum(right)
        # A long shot is cut into pieces of one length: where such pieces meet, nobody said that a shot ends.
        edges_found += sum(is_right or not piece for is_right, piece in zip(right, pieces_meet(spans)))
        for boundary in known.boundaries:
            by_kind[boundary.kind] += 1
            hits[boundary.kind] += any(_touches(edge, boundary) for edge in edges)
    return ShotScore(edges_found, edges_right, {kind: (hits[kind], total) for kind, total in sorted(by_kind.items())})


def inner_edges(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Gaps between neighbouring spans, as (end of one, start of the next); both are the same second at a plain cut."""
    ordered = sorted(spans)
    return [(first[1], max(first[1], second[0])) for first, second in zip(ordered[:-1], ordered[1:])]  # noqa: RUF007


def pieces_meet(spans: Sequence[tuple[float, float]]) -> list[bool]:
    """For each of `inner_edges`: whether two spans of equal length touch there."""
    ordered = sorted(spans)
    return [
        abs(second[0] - first[1]) < 1e-3 and abs((second[1] - second[0]) - (first[1] - first[0])) < PIECES_ALIKE_S
        for first, second in zip(ordered[:-1], ordered[1:])  # noqa: RUF007
    ]


def _touches(edge: tuple[float, float], boundary: Boundary) -> bool:
    # Either end, not the gap between them: a gap as long as a lost shot must not count for both of its transitions.
    return any(abs(end - boundary.time_s) <= boundary.tolerance_s for end in edge)


@dataclass(frozen=True, slots=True)
class Expectation:
    """One kind of shot in the truth and what became of the clips that lie in it."""

    kind: str
    shots: int
    kept: int
    dropped: int
    rules: dict[str, int]


def score_rules(truth: Mapping[str, TruthVideo], clips: Sequence[Mapping]) -> list[Expectation]:
    """What became of each kind of shot. Of a shot and its copy, the one that was dropped counts as the copy."""
    inside = _clips_in_shots(truth, clips)
    kinds = {(video, shot.start_s): shot.drop or "keep" for video, known in truth.items() for shot in known.shots}
    for video, known in truth.items():
        for shot in known.shots:
            here, there = (video, shot.start_s), shot.twin
            if there in kinds and _was_copy(inside.get(there, ())) and not _was_copy(inside.get(here, ())):
                kinds[here], kinds[there] = kinds[there], kinds[here]
    found: dict[str, Expectation] = {}
    for place, kind in kinds.items():
        rows = inside.get(place, ())
        before = found.get(kind, Expectation(kind, 0, 0, 0, {}))
        lost = Counter(row["dropped_by"] or "unknown" for row in rows if row["status"] != "kept")
        kept = sum(row["status"] == "kept" for row in rows)
        rules = dict(Counter(before.rules) + lost)
        found[kind] = Expectation(kind, before.shots + 1, before.kept + kept, before.dropped + lost.total(), rules)
    return sorted(found.values(), key=lambda row: -row.shots)


def _clips_in_shots(
    truth: Mapping[str, TruthVideo], clips: Sequence[Mapping]
) -> dict[tuple[str, float], list[Mapping]]:
    """Clips by video and start of the shot that holds their middle."""
    inside: dict[tuple[str, float], list[Mapping]] = {}
    for row in clips:
        video, middle = Path(row["video"]).name, (row["start_s"] + row["end_s"]) / 2
        for shot in truth[video].shots if video in truth else ():
            if shot.start_s <= middle < shot.end_s:
                inside.setdefault((video, shot.start_s), []).append(row)
    return inside


def _was_copy(rows: Sequence[Mapping]) -> bool:
    return any(row["dropped_by"] == "duplicate" for row in rows)
