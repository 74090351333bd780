"""`summer ema`: the average of a run's checkpoints that predicts the held-out clips best."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_summer.verbs.run_folder import AVERAGE, CHECKPOINTS, EMA, RECIPE, WEIGHTS
from nemo_summer.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from nemo_summer.checkpoints.layout import FileSeal
    from nemo_summer.ema.power import Choice, Weights
    from nemo_summer.recipe import Recipe


def run(recipe: Recipe) -> int:
    """Writes OUT/ema and prints what each exponent scored."""

    from nemo_summer.checkpoints.load import read_weights
    from nemo_summer.config import write_recipe
    from nemo_summer.ema.power import average, choose_exponent

    paths = checkpoints_of(recipe)
    choice = choose_exponent(paths, recipe.ema.gammas, score_of(recipe), read_weights)
    _print_table(choice, paths)
    out = Path(recipe.out) / EMA
    out.mkdir(parents=True, exist_ok=True)
    (out / AVERAGE).unlink(missing_ok=True)  # until the weights are whole, this folder holds no average
    seal = _write_weights(average(paths, choice.best.gamma, read_weights), out)
    write_recipe(recipe, out / RECIPE)
    told = {
        **asdict(choice.best),
        "sha256": seal.sha256,
        "checkpoints": [path.name for path in paths],
        "table": [asdict(t) for t in choice.table],
    }
    write_whole(out / AVERAGE, json.dumps(told, indent=1) + "\n")
    print(f"{out}: gamma {choice.best.gamma:g}. Next: summer convert out={recipe.out}")
    return 0


def _write_weights(weights: Weights, out: Path) -> FileSeal:
    """Whole or not at all. ValueError where they cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from nemo_summer.checkpoints.layout import flush_file, seal

    waiting = out / f".{WEIGHTS}"
    try:
        save_file(weights, waiting)
        flush_file(waiting)
        found = seal(waiting)
        os.replace(waiting, out / WEIGHTS)
    except (OSError, SafetensorError) as error:
        waiting.unlink(missing_ok=True)
        raise ValueError(f"{out / WEIGHTS} was not written ({error}): free space there, or set out=ANOTHER") from None
    return found


def checkpoints_of(recipe: Recipe) -> list[Path]:
    """The checkpoints to average, oldest first. ValueError where there is none."""
    from nemo_summer.checkpoints.layout import snapshots
    from nemo_summer.ema.power import step_of

    folder = Path(recipe.input) if recipe.input else Path(recipe.out) / CHECKPOINTS
    found = snapshots(folder)
    paths = [path for path in found if step_of(path) >= max(1, recipe.ema.first_step)]
    if not paths:
        why = f"all {len(found)} are before ema.first_step={recipe.ema.first_step}" if found else "train first"
        raise ValueError(f"{folder} holds no checkpoint to average ({why}): set out= or input= to a run's folder")
    return paths


def score_of(recipe: Recipe) -> Callable[[Weights], float]:
    """Validation loss of a set of weights, on plain torch layers, in this process."""
    import torch

    from energon_datasets.loader import read_validation
    from nemo_summer.checkpoints.export import check_weights
    from nemo_summer.training.validate import validate

    device = "cuda" if torch.cuda.is_available() else "cpu"
    packs = [pack.to(device) for pack in read_validation(recipe.data, recipe.seed)]
    if not packs:
        if len(recipe.ema.gammas) == 1:
            return lambda weights: 0.0
        raise ValueError(
            f"{recipe.data.path} has no held-out clip to choose the exponent by: set ema.gammas=[6.94], or curate with "
            f"more footage"
        )
    model = recipe.model.build().to(device)

    def score(weights: Weights) -> float:
        check_weights(weights, recipe.model, "the checkpoints")
        model.load_state_dict(weights)
        return validate(model, packs).mean

    return score


def _print_table(choice: Choice, paths: list[Path]) -> None:
    print(f"{len(paths)} checkpoints, {paths[0].name} to {paths[-1].name}")
    print("   gamma   width   held-out loss")
    for trial in choice.table:
        print(f"  {trial.gamma:6.2f}  {trial.sigma_rel:6.1%}   {trial.loss:.5f}{'  <' if trial == choice.best else ''}")
