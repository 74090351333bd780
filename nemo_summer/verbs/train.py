"""`summer train`: starts the ranks, and is what each rank runs.

`run` is the user's command, which launches torchrun; `main` is one rank, which builds the run and trains.
"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_summer.parallel.launch import BAD_INPUT, REQUEUE, die_with_parent, launch
from nemo_summer.verbs.run_folder import CHECKPOINTS, RECIPE

if TYPE_CHECKING:
    from nemo_summer.parallel.groups import ParallelGroups
    from nemo_summer.recipe import Recipe
    from nemo_summer.training.run import Run
    from nemo_summer.training.state import TrainState

ALONE_AFTER_S = 10.0
"""A rank that still lives so long after its error is the only one that met it."""


def run(recipe: Recipe) -> int:
    """Trains on `recipe.ranks` processes; 0 only where the last step was done, REQUEUE where a signal ended it."""
    from nemo_summer.config import write_recipe

    recipe.data.open_lists()  # a dataset that cannot serve is said here in one line, not once per rank
    resolved = write_recipe(recipe, Path(recipe.out) / RECIPE)
    return launch("nemo_summer.verbs.train", [str(resolved)], ranks=recipe.ranks)


def main(words: list[str]) -> int:
    """One rank, from start to exit code; what a user can mend is said in one line."""
    die_with_parent()
    from nemo_summer.config import read_recipe
    from nemo_summer.parallel.init import start, stop
    from nemo_summer.recipe import Recipe
    from nemo_summer.training.loop import train

    recipe = read_recipe(Recipe, Path(words[0]))
    groups = start(recipe.parallel, seed=recipe.seed)
    try:
        with ExitStack() as opened:
            job, state = build(recipe, groups, opened)
            state = train(job, state)
    except (ValueError, ArithmeticError, OSError) as error:
        _tell(error, groups)
        return BAD_INPUT
    stop(groups)
    return 0 if state.step >= recipe.train.steps else REQUEUE


def _tell(error: Exception, groups: ParallelGroups) -> None:
    """One line. What all ranks find the first one says: the others wait, and end with it unless they failed alone."""
    if not groups.is_first:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(ALONE_AFTER_S)
    print(f"summer: {error}" if groups.is_first else f"summer: rank {groups.rank}: {error}", file=sys.stderr)


def build(recipe: Recipe, groups: ParallelGroups, opened: ExitStack) -> tuple[Run, TrainState]:
    """The run that `recipe` describes, standing where its newest whole checkpoint left it, and where that is."""
    import torch

    from energon_datasets.loader import open_loader
    from nemo_summer.dit.megatron import MegatronDit
    from nemo_summer.optim.distributed import build_optimizer, full_shapes
    from nemo_summer.optim.rules import rules_for
    from nemo_summer.parallel.schedule import replicate
    from nemo_summer.plan.flops import peak_of
    from nemo_summer.training.log import Log
    from nemo_summer.training.run import Run
    from nemo_summer.training.stop import StopRequest
    from nemo_summer.training.watch import Watch

    out, cfg = Path(recipe.out), recipe.train
    stop = StopRequest().listen()
    dtype = torch.bfloat16 if groups.device.type == "cuda" else torch.float32
    model = replicate(MegatronDit(replace(recipe.model, seed=recipe.seed), groups, dtype), groups)
    shapes = full_shapes([model], groups)
    rules = rules_for(shapes, recipe.optim)
    optimizer = build_optimizer(recipe.optim, [model], rules, groups)
    loader = opened.enter_context(open_loader(recipe.data, "train", groups.dp_rank, groups.dp_size, recipe.seed))
    state = resume(recipe, groups, model=model, optimizer=optimizer, loader=loader)
    peak = peak_of(groups.device, dtype).flops_per_s * groups.world
    log = Log(
        out=out if groups.is_first else None,
        steps=cfg.steps,
        every=cfg.log_every,
        peak_flops_per_s=peak,
        lr_mults=sorted({rule.lr_mult for rule in rules.values()}),
    )
    log.resume_at(state.step)
    job = Run(
        cfg=cfg,
        dit=recipe.model,
        optim=recipe.optim,
        objective=recipe.objective,
        groups=groups,
        model=model,
        optimizer=optimizer,
        watch=Watch(optimizer=optimizer, rules=rules, shapes=shapes, optim=recipe.optim, every=cfg.watch_every),
        loader=loader,
        log=opened.enter_context(log),
        stop=stop,
        tasks=tasks_of(recipe, groups),
    )
    return job, state


def tasks_of(recipe: Recipe, groups: ParallelGroups) -> list[Any]:
    """Checkpoints first: a validation that fails must not cost the steps before it."""
    from energon_datasets.loader import read_validation
    from nemo_summer.training.tasks import Pictures, SaveCheckpoint
    from nemo_summer.training.validate import Validate

    out, cfg = Path(recipe.out), recipe.train
    checkpoints = SaveCheckpoint(
        folder=out / CHECKPOINTS,
        every=cfg.checkpoint_every,
        steps=cfg.steps,
        keep_full=cfg.keep_full,
        fingerprint=fingerprint_of(recipe),
    )
    tasks: list[Any] = [checkpoints]
    held_out = read_validation(recipe.data, recipe.seed)
    if held_out:
        tasks.append(Validate(packs=held_out, every=cfg.validate_every, steps=cfg.steps, out=out))
    codec = Path(recipe.data.path) / "codec"
    if cfg.pictures_every and (codec / "config.json").is_file():
        tasks.append(Pictures(sample=_strip_of(recipe, groups), every=cfg.pictures_every))
    elif cfg.pictures_every and groups.is_first:
        print(f"summer: {codec} holds no codec, so there are no pictures on the way", file=sys.stderr)
    return tasks


def resume(recipe: Recipe, groups: ParallelGroups, *, model: Any, optimizer: Any, loader: Any) -> TrainState:
    """Where the newest whole checkpoint in `out` left off, with model, optimizer and loader brought there; else step 0.

    ValueError where the checkpoint is of another model, objective or optimizer, with what differs.
    """
    from nemo_summer.checkpoints.load import load, newest, read_extra
    from nemo_summer.training.state import TrainState

    path = newest(Path(recipe.out) / CHECKPOINTS, groups)
    if path is None:
        return TrainState()
    if not recipe.train.resume:
        raise ValueError(f"{path} is there and train.resume=false: set out=ANOTHER_FOLDER, or remove it to start anew")
    if not recipe.train.accept_changes:  # first, since a model of another size could not be filled
        refuse_changes(path, read_extra(path)["fingerprint"], fingerprint_of(recipe))
    found = load(path, model=model, optimizer=optimizer, groups=groups, with_loader=not recipe.train.reset_data)
    if found.loader_state is not None:
        loader.restore(found.loader_state)
    state = TrainState(**found.extra["state"])
    if groups.is_first:
        done = "" if state.step < recipe.train.steps else ": nothing is left to do, raise train.steps to go on"
        print(f"going on from {path}, step {state.step} of {recipe.train.steps}{done}", file=sys.stderr, flush=True)
    return state


def fingerprint_of(recipe: Recipe) -> dict[str, Any]:
    """What must be the same for a checkpoint to go on to the same weights; the loader keeps its own."""
    parts = {"model": recipe.model, "objective": recipe.objective, "optim": recipe.optim}
    values = {f"{part}.{key}": _plain(value) for part, cfg in parts.items() for key, value in asdict(cfg).items()}
    return {**values, "seed": recipe.seed, "train.packs_per_step": recipe.train.packs_per_step}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def refuse_changes(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """ValueError that lists what changed since the checkpoint was written."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    changed = [f"{key} was {then.get(key)!r}, is {now.get(key)!r}" for key in keys]
    if changed:
        raise ValueError(
            f"{path} was written under other settings: {'; '.join(changed)}. Set them back, or set "
            "train.accept_changes=true to go on with the new ones, or out=ANOTHER_FOLDER to start anew"
        )


def _strip_of(recipe: Recipe, groups: ParallelGroups) -> Any:
    """Makes a strip of frames of the first prompt with the model as it stands, for TensorBoard."""
    import torch

    from nemo_summer.encoders.video_vae import load_codec
    from nemo_summer.sampler.sample import latent_shape, sample_latents, to_rgb

    codec = load_codec(Path(recipe.data.path) / "codec", device=groups.device)
    text = recipe.text.build(groups.device)
    cfg = replace(recipe.sample, steps=min(8, recipe.sample.steps))
    prompts = cfg.prompts[:1] or [""]

    def strip(model: Any) -> torch.Tensor:
        found = sample_latents(
            model, text, prompts, latent_shape(recipe.clip), cfg, recipe.objective,
            fps=recipe.clip.fps, device=groups.device,
        )  # fmt: skip
        rgb_THWC = to_rgb(codec.decode(next(iter(found))[None])[0])
        return torch.from_numpy(rgb_THWC[:: max(1, len(rgb_THWC) // 6)]).permute(1, 0, 2, 3).flatten(1, 2)

    return strip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
