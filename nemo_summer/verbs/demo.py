"""`summer demo`: the whole way on this machine, from footage to mp4s and a page that tells what happened."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_summer.demo.facts import Folders, read_facts
from nemo_summer.demo.footage import KINDS, plan_videos, write_footage
from nemo_summer.demo.phases import Phase, PhaseError, line_up, listing_of, read_state, run_phases
from nemo_summer.demo.report import clock, spread, summary_of, write_report
from nemo_summer.verbs.run_folder import AVERAGE

if TYPE_CHECKING:
    from nemo_summer.recipe import Recipe

PROMPTS = 6
"""Clips that are made where the recipe names no prompt."""
LIBRARIES = ("nemo-summer", "torch", "megatron-core", "megatron-energon", "av", "numpy", "opencv-python-headless")


def run(recipe: Recipe) -> int:
    """Does what is not done yet and writes the report, also of a way that broke off; 0 where all phases are done."""
    if recipe.dry_run:
        print("\n".join(plan(recipe)))
        return 0
    folders = Folders(Path(recipe.out))
    about = {"footage": str(footage_of(recipe)), "settings": asdict(recipe), "versions": versions()}
    phases = phases_of(recipe)
    try:
        run_phases(phases, folders, about, say)
    except Exception as error:
        say(f"the way broke off; what there is: {write_report(folders.out)}")
        if isinstance(error, PhaseError):
            return error.code
        raise
    say("\n".join(["", *ending(folders)]))
    return 0


def plan(recipe: Recipe) -> list[str]:
    """What `run` would do, phase by phase, and what is done already."""
    folders = Folders(Path(recipe.out))
    lines = [f"In {folders.out}, from {footage_of(recipe) if recipe.input else 'synthetic footage'}:"]
    for step in line_up(phases_of(recipe), read_state(folders.state)):
        before = "done before, left out" if step.is_done else "goes on" if step.goes_on else "to do"
        lines.append(f"  {step.phase.name:<8} {step.phase.does} ({before})")
    return lines


def ending(folders: Folders) -> list[str]:
    """The summary and where to look."""
    facts = read_facts(folders.out)
    seconds = sum(entry.get("seconds", 0.0) for entry in facts.phases.values())
    peak = max((entry.get("peak_bytes", 0) for entry in facts.phases.values()), default=0)
    return [
        f"{summary_of(facts)} {clock(seconds)} in all, at most {peak / 2**30:.1f} GiB of memory.",
        f"  report   {folders.report}",
        *(f"  sample   {sample.path}" for sample in facts.samples),
        f"  model    {folders.model}",
        f"  dataset  {folders.dataset}",
    ]


def footage_of(recipe: Recipe) -> Path:
    """The user's folder, or that of the synthetic footage."""
    return Path(recipe.input) if recipe.input else Folders(Path(recipe.out)).footage


def phases_of(recipe: Recipe) -> list[Phase]:
    """The way as a list. Each phase calls the verb of its name with the demo's folders."""
    folders = Folders(Path(recipe.out))
    data = replace(recipe, data=replace(recipe.data, path=str(folders.dataset)), out=str(folders.out), input="")
    parts = asdict(recipe)
    parts["data"].pop("path")
    of = {name: {key: parts[key] for key in keys} for name, keys in DECIDED_BY.items()}
    return [
        _footage(recipe, folders),
        Phase(
            "curate", "cuts it into clips, judges and describes them, makes the dataset",
            lambda: verb("curate", replace(data, input=str(footage_of(recipe)), out=str(folders.dataset))),
            of["curate"], makes=folders.dataset / "dataset.json", owns=folders.dataset,
            told=lambda: _clips_told(folders),
        ),
        Phase(
            "train", f"trains a diffusion transformer for {recipe.train.steps} steps",
            lambda: verb("train", replace(data, out=str(folders.train))),
            of["train"], makes=folders.train / "history.jsonl", owns=folders.train,
            told=lambda: _held_told(folders),
        ),
        Phase(
            "ema", "averages its checkpoints",
            lambda: verb("ema", replace(data, input=str(folders.checkpoints))),
            of["ema"], told=lambda: _average_told(folders), makes=folders.ema / AVERAGE, owns=folders.ema,
        ),
        Phase(
            "convert", "writes the average as one file that needs no megatron",
            lambda: verb("convert", replace(data, input=str(folders.ema))),
            {}, makes=folders.model / "config.json", owns=folders.model,
        ),
        Phase(
            "sample", "makes clips of its own",
            lambda: verb("sample", with_prompts(replace(data, input=str(folders.model)), folders)),
            of["sample"], makes=folders.samples / "samples.json", owns=folders.samples,
            told=lambda: f"{len(list(folders.samples.glob('*.mp4')))} mp4s",
        ),
        Phase(
            "report", "writes the page", lambda: _write_report(folders),
            {}, makes=folders.report, always=True,
        ),
    ]  # fmt: skip


DECIDED_BY: Mapping[str, tuple[str, ...]] = {
    "curate": ("clip", "curate", "codec", "text", "seed"),
    "train": ("data", "model", "parallel", "objective", "optim", "train", "ranks", "seed"),
    "ema": ("ema",),
    "sample": ("sample", "seed"),
}
"""The parts of the recipe on which the result of a phase depends, beside the phases before it."""


def _footage(recipe: Recipe, folders: Folders) -> Phase:
    """Draws the footage, or looks at what the user gives: when a file there changes, all that follows is done again."""
    if recipe.input:
        folder = footage_of(recipe)
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder of footage: set footage= to one, or leave it out to draw some")
        files = listing_of(folder.resolve(), skip=folders.out.resolve())
        return Phase("footage", f"takes {len(files)} files of {folder}", lambda: None, {"files": files}, makes=folder)
    videos, seconds = recipe.demo.videos, recipe.demo.seconds / max(1, recipe.demo.videos)
    plan_videos(recipe.seed, seconds, videos)  # refuses what cannot be drawn, before anything is done
    return Phase(
        "footage", f"draws {videos} videos of {seconds:.0f} s in {min(videos, len(KINDS))} kinds, and broken files",
        lambda: _draw(folders, recipe.seed, seconds, videos),
        {"videos": videos, "seconds": seconds, "seed": recipe.seed},
        makes=folders.footage / "truth.json", owns=folders.footage,
    )  # fmt: skip


def _draw(folders: Folders, seed: int, seconds: float, videos: int) -> None:
    write_footage(folders.footage, seed, seconds, videos, broken=True)


def _write_report(folders: Folders) -> None:
    write_report(folders.out)


def verb(name: str, recipe: Recipe) -> int:
    """Runs another verb; imported only when it is its turn."""
    act: Callable[[Any], int] = import_module(f"nemo_summer.verbs.{name}").run
    return act(recipe)


def with_prompts(recipe: Recipe, folders: Folders) -> Recipe:
    """The recipe with something to sample: where it names no prompt, the captions of clips that were held out."""
    if recipe.sample.prompts:
        return recipe
    index = read_facts(folders.out).index or []
    rows = [row for row in index if row["split"] == "val"] or index
    prompts = [row["caption"]["detailed"] for row in spread(rows, PROMPTS)]
    return replace(recipe, sample=replace(recipe.sample, prompts=prompts))


def _average_told(folders: Folders) -> str:
    average = read_facts(folders.out).average
    return f"exponent {average['gamma']:g}, held-out loss {average['loss']:.4f}" if average else ""


def _clips_told(folders: Folders) -> str:
    facts = read_facts(folders.out)
    return f"{len(facts.kept)} clips kept of {len(facts.clips)}" if facts.clips else ""


def _held_told(folders: Folders) -> str:
    held = read_facts(folders.out).held
    return f"held-out loss {held[-1].mean / held[-1].baseline_mean:.3f} of the linear denoiser's" if held else ""


def versions() -> dict[str, str]:
    """Of what the numbers depend on; a library that is not here is left out."""
    found = {"python": platform.python_version(), "machine": f"{platform.machine()}, {platform.system()}"}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def say(text: str) -> None:
    """To where progress goes: results of verbs may be piped."""
    print(text, file=sys.stderr, flush=True)
