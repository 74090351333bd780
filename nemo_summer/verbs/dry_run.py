"""`dry_run=true`: what a verb would do, in sentences, with sizes and an estimate of the memory; nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemo_summer.recipe import Recipe

CAPTION_TOKENS = 16
"""Tokens of a middling caption, for sizes; the real number depends on the dataset."""


def tell(verb: str, recipe: Recipe) -> int:
    """Prints the plan of `verb`. ValueError where the verb could not even begin."""
    print("\n".join(PLANS[verb](recipe)))
    return 0


def plan_demo(recipe: Recipe) -> list[str]:
    from nemo_summer.verbs.demo import plan

    return [*plan(recipe), *_training(recipe)]


def plan_curate(recipe: Recipe) -> list[str]:
    from curator.pipeline import keep_apart, stages
    from curator.raw_videos.find import find_videos
    from nemo_summer.verbs.curate import footage_of

    footage, out = footage_of(recipe), Path(recipe.out)
    keep_apart(footage, out)
    found = find_videos(footage, recipe.curate.find, skip=out)
    way = stages(recipe.curate, footage, out, recipe.clip, recipe.codec, recipe.text)
    size = sum(video.size_bytes for video in found.videos)
    return [
        f"{footage} holds {len(found.videos)} videos ({size / 2**20:.1f} MiB), {len(found.duplicates)} duplicates, "
        f"{len(found.failed)} that cannot be read and {found.other_files} other files.",
        f"Stages: {', '.join(stage.name for stage in way)}; run by {recipe.curate.runner.kind.value}.",
        _clip_sentence(recipe),
        f"The dataset would be written to {out}{' (goes on from what is there)' if out.exists() else ''}.",
    ]


def plan_train(recipe: Recipe) -> list[str]:
    return [_dataset_sentence(recipe), *_training(recipe), f"The run would be written to {recipe.out}."]


def _training(recipe: Recipe) -> list[str]:
    import torch

    from nemo_summer.parallel.launch import Nodes, nodes_of_slurm, ranks_per_node
    from nemo_summer.plan.flops import train_flops
    from nemo_summer.plan.memory import estimate_memory

    nodes = nodes_of_slurm(os.environ) or Nodes()
    ranks = ranks_per_node(recipe.ranks, nodes.count) * nodes.count
    rounds = recipe.train.rounds(ranks)
    clips = recipe.data.budget // recipe.tokens_per_clip
    tokens = recipe.tokens_per_clip * clips * recipe.train.packs_per_step
    text = CAPTION_TOKENS * clips
    on_gpu = torch.cuda.is_available()
    memory = estimate_memory(recipe.model, recipe.data.budget + text, ranks, bytes_per_number=2 if on_gpu else 4)
    flops = train_flops(recipe.model, [recipe.tokens_per_clip] * clips, [CAPTION_TOKENS] * clips)
    return [
        _clip_sentence(recipe),
        f"{ranks} {'rank' if ranks == 1 else 'ranks'} on {'GPUs in bfloat16' if on_gpu else 'the CPU in float32'}, "
        f"{rounds} {'pack' if rounds == 1 else 'packs'} per rank and step.",
        f"A pack holds {recipe.data.budget:,} tokens, {clips} of the longest clips; a step has about {tokens:,} tokens "
        f"and {flops * recipe.train.packs_per_step:.2e} FLOPs, all {recipe.train.steps:,} steps "
        f"{flops * recipe.train.packs_per_step * recipe.train.steps:.2e}.",
        *memory.sentences(),
        f"{-(-recipe.train.steps // recipe.train.checkpoint_every)} checkpoints, one every "
        f"{recipe.train.checkpoint_every} steps.",
    ]


def plan_ema(recipe: Recipe) -> list[str]:
    from nemo_summer.verbs.ema import checkpoints_of

    paths = checkpoints_of(recipe)
    gammas = ", ".join(f"{gamma:g}" for gamma in recipe.ema.gammas)
    return [
        f"{len(paths)} checkpoints, {paths[0].name} to {paths[-1].name}, would be averaged with gamma {gammas},",
        f"scored on the held-out clips of {recipe.data.path}, and the best written to {recipe.out}/ema.",
        f"Memory: two copies of {recipe.model.parameter_count():,} parameters and the model itself.",
    ]


def plan_convert(recipe: Recipe) -> list[str]:
    from nemo_summer.verbs.convert import source_of

    source = source_of(recipe)
    about = ", ".join(f"{key} {value:g}" for key, value in source.about.items() if isinstance(value, int | float))
    size = recipe.model.parameter_count() * 4
    return [f"{source.path} ({about}) would be written to {recipe.out}/export, {size / 2**20:.1f} MiB in float32."]


def plan_sample(recipe: Recipe) -> list[str]:
    from nemo_summer.sampler.sample import SolverKind
    from nemo_summer.verbs.sample import export_of

    cfg, (t, h, w) = recipe.sample, recipe.token_grid
    calls = cfg.steps * (2 if cfg.solver is SolverKind.heun else 1) * (1 if cfg.guidance in (0, 1) else 2)
    return [
        f"From the model in {export_of(recipe)}, {len(cfg.prompts)} clips would be written to {recipe.out}/samples:",
        *(f"  {prompt!r}" for prompt in cfg.prompts),
        f"each {_clip_size(recipe)}, {t}x{h}x{w} = {recipe.tokens_per_clip:,} tokens;",
        f"{cfg.steps} steps of {cfg.solver.value}, guidance {cfg.guidance:g}: {calls} calls of the model, "
        f"up to {cfg.videos_at_once} clips at once.",
    ]


def plan_view(recipe: Recipe) -> list[str]:
    return [_dataset_sentence(recipe), "A page over it would be served on this machine only."]


def plan_explain(recipe: Recipe) -> list[str]:
    return [f"The story of clip {recipe.clip_id or 'CLIP_ID'} would be read from {recipe.data.path} and printed."]


def plan_doctor(recipe: Recipe) -> list[str]:
    return ["The parts of this machine would be looked at and a table printed; nothing is changed."]


def _dataset_sentence(recipe: Recipe) -> str:
    """What is known of the dataset, which need not be there yet for a plan."""
    from energon_datasets.shard_schema import DATASET_FILE, INDEX_FILE

    folder = Path(recipe.data.path)
    if not (folder / DATASET_FILE).is_file():
        return f"There is no dataset in {folder} yet: summer curate input=FOOTAGE out={folder}"
    with (folder / INDEX_FILE).open(encoding="utf-8") as index:
        count = sum(1 for _ in index)
    among = f", of which those with {recipe.data.where} are meant" if recipe.data.where else ""
    return f"The dataset {folder} holds {count:,} clips{among}."


def _clip_sentence(recipe: Recipe) -> str:
    t, h, w = recipe.token_grid
    return f"A clip is at most {_clip_size(recipe)}: {t}x{h}x{w} = {recipe.tokens_per_clip:,} tokens."


def _clip_size(recipe: Recipe) -> str:
    clip = recipe.clip
    return (
        f"{clip.frames} frames of {clip.height}x{clip.width} pixels at {clip.fps} fps ({clip.frames / clip.fps:.1f} s)"
    )


PLANS: dict[str, Callable[[Recipe], list[str]]] = {
    "demo": plan_demo,
    "curate": plan_curate,
    "view": plan_view,
    "train": plan_train,
    "ema": plan_ema,
    "sample": plan_sample,
    "convert": plan_convert,
    "doctor": plan_doctor,
    "explain": plan_explain,
}
