"""The numbers that this project promises, measured on a finished demo and on small trainings of their own.

`rows_of_demo` reads what `summer demo` left; `rows_of_samples` and `rows_of_ranks` compute something of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nemo_summer.demo.facts import Facts, read_facts

if TYPE_CHECKING:
    from nemo_summer.recipe import Recipe

RUN_LIMIT_S, MEMORY_LIMIT_GIB = 360.0, 6.0


@dataclass(frozen=True, slots=True)
class Row:
    """One number beside what it should be. `good` is None where there is nothing to compare it with."""

    what: str
    value: float | None
    """None: not measured, `note` says why"""
    unit: str = ""
    wanted: str = ""
    good: bool | None = None
    note: str = ""


def at_most(what: str, value: float, limit: float, unit: str = "") -> Row:
    return Row(what, value, unit, f"<= {limit:g}", value <= limit)


def missing(what: str, note: str) -> Row:
    return Row(what, None, note=note)


def rows_of_demo(out: Path) -> list[Row]:
    """Time, memory, loss and rows of the demo in `out`; a number that it does not have is a row that says so."""
    facts = read_facts(out)
    return [*_cost_rows(facts), *_clip_rows(facts), *_held_rows(facts), _row_length(facts)]


def _cost_rows(facts: Facts) -> list[Row]:
    done = {name: entry for name, entry in facts.phases.items() if entry.get("state") == "done"}
    if not done:
        return [missing("demo, time and memory", f"{facts.folders.state} names no finished phase: run summer demo")]
    total = sum(entry["seconds"] for entry in done.values())
    peak = max(entry["peak_bytes"] for entry in done.values()) / 2**30
    return [
        at_most("demo, from footage to report", total, RUN_LIMIT_S, "s"),
        *(Row(f"  {name}", entry["seconds"], "s") for name, entry in done.items()),
        at_most("demo, peak memory of all processes", peak, MEMORY_LIMIT_GIB, "GiB"),
    ]


def _clip_rows(facts: Facts) -> list[Row]:
    if facts.clips is None:
        return [missing("clips", "no clips.parquet")]
    return [Row("clips found", len(facts.clips)), Row("clips kept", len(facts.kept))]


def _held_rows(facts: Facts) -> list[Row]:
    """The two ends may lie above the linear denoiser, the levels between may not, the mean must be 10 % below."""
    if not facts.held:
        return [missing("held-out loss", "no validation.json")]
    last = facts.held[-1]
    ends = (0, len(last.levels) - 1)
    rows = [
        Row(f"  at t = {t:.4f}", ratio, "", "" if i in ends else "< 1", None if i in ends else ratio < 1)
        for i, (t, ratio) in enumerate(zip(last.levels, last.ratios, strict=True))
    ]
    mean = last.mean / last.baseline_mean
    rows = [at_most(f"held-out loss over the linear denoiser's, step {last.step}", mean, 0.9), *rows]
    if facts.average and "loss" in facts.average:
        rows.append(at_most("the same for the average", facts.average["loss"] / last.baseline_mean, 0.9))
    if facts.history:
        rows.append(Row("training speed", facts.history[-1]["tokens_per_s"], "tokens/s"))
    return rows


def _row_length(facts: Facts) -> Row:
    from nemo_summer.checkpoints.load import newest, read_weights

    what = "largest | ||w|| - 1 | of constrained rows in the checkpoint"
    path = newest(facts.folders.checkpoints) if facts.folders.checkpoints.is_dir() else None
    if path is None:
        return missing(what, f"no checkpoint in {facts.folders.checkpoints}")
    error = row_length_error(read_weights(path))
    return Row(what, error, "", "< 1e-06", error < 1e-6, path.name)


def row_length_error(weights: Mapping[str, Tensor]) -> float:
    """Largest distance of a constrained row's length from 1, in float64."""
    from nemo_summer.optim.config import OptimConfig
    from nemo_summer.optim.rules import rules_for

    rules = rules_for({name: tuple(w.shape) for name, w in weights.items()}, OptimConfig())
    lengths = [w.double().norm(dim=1) for name, w in weights.items() if rules[name].sphere]
    return float((torch.cat(lengths) - 1).abs().max())


def rows_of_samples(out: Path) -> list[Row]:
    """Latents sampled from the newest checkpoint on megatron's layers against those from its export on plain torch."""
    from nemo_summer.checkpoints.load import newest

    what = "samples of the export against those of the checkpoint, largest difference"
    facts = read_facts(out)
    path = newest(facts.folders.checkpoints) if facts.folders.checkpoints.is_dir() else None
    recipe = facts.folders.train / "recipe.yaml"
    if path is None or not recipe.is_file():
        return [missing(what, f"no trained run in {facts.folders.train}")]
    error = sample_difference(path, recipe)
    return [Row(what, error, "", "<= 1e-05", error <= 1e-5, path.name)]


def sample_difference(checkpoint: Path, recipe_file: Path) -> float:
    """Largest difference of any latent number between the two ways, same seed, two prompts, four steps of Heun."""
    from nemo_summer.checkpoints.export import read_model, write_model
    from nemo_summer.checkpoints.load import read_weights
    from nemo_summer.config import read_recipe
    from nemo_summer.recipe import Recipe
    from nemo_summer.sampler.sample import latent_shape, sample_latents

    recipe = read_recipe(Recipe, recipe_file)
    cfg = replace(recipe.sample, steps=4)
    asked = ["a red star moves to the left", ""], latent_shape(recipe.clip), cfg, recipe.objective
    with tempfile.TemporaryDirectory() as scratch:
        plain, _ = read_model(write_model(Path(scratch) / "export", read_weights(checkpoint), recipe.model))
        ours = list(sample_latents(plain, recipe.text.build(), *asked))
    theirs = _sampled_on_megatron(checkpoint, recipe, asked)
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def _sampled_on_megatron(checkpoint: Path, recipe: Recipe, asked: tuple) -> list[Tensor]:
    """The way that training goes on from a checkpoint, and then samples instead."""
    from nemo_summer.parallel.init import start, stop

    groups = start(recipe.parallel)
    try:
        from nemo_summer.checkpoints.load import load
        from nemo_summer.dit.megatron import MegatronDit
        from nemo_summer.optim.distributed import build_optimizer, full_shapes
        from nemo_summer.optim.rules import rules_for
        from nemo_summer.parallel.schedule import replicate
        from nemo_summer.sampler.sample import sample_latents

        dit = MegatronDit(recipe.model, groups)
        model = replicate(dit, groups)
        rules = rules_for(full_shapes([model], groups), recipe.optim)
        optimizer = build_optimizer(recipe.optim, [model], rules, groups)
        load(checkpoint, model=model, optimizer=optimizer, groups=groups, with_loader=False)
        return list(sample_latents(dit.eval(), recipe.text.build(), *asked))
    finally:
        stop(groups)


def rows_of_ranks() -> list[Row]:
    """Five steps on one rank and on two with the distributed optimizer, the same global batch."""
    from tests.ranks.launch import run_ranks

    with tempfile.TemporaryDirectory() as scratch:
        files = {ranks: Path(scratch) / f"{ranks}.pt" for ranks in (1, 2)}
        for ranks, file in files.items():
            run_ranks("tests.ranks.train_steps", ranks, [file])
        one, two = (torch.load(files[ranks], weights_only=True) for ranks in (1, 2))
    errors = [float((two["weights"][n] - w).norm() / w.norm().clamp_min(1e-2)) for n, w in one["weights"].items()]
    loss = max(abs(a - b) / abs(a) for a, b in zip(one["loss"], two["loss"], strict=True))
    return [
        at_most("two ranks against one over 5 steps, weights, relative", max(errors), 1e-5),
        at_most("two ranks against one over 5 steps, loss, relative", loss, 1e-5),
    ]
