"""What lies where in the folder of a run, and which recipe its verbs start from.

OUT/recipe.yaml  OUT/checkpoints/step_00000100  OUT/ema  OUT/export  OUT/samples
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECIPE = "recipe.yaml"
CHECKPOINTS = "checkpoints"
EMA = "ema"
EXPORT = "export"
SAMPLES = "samples"

WEIGHTS = "weights.safetensors"
AVERAGE = "average.json"
"""What an average is made of; the file that says that a folder holds one."""

ON_RUNS = ("ema", "convert", "sample")
"""Verbs that go on from a trained run and therefore with its recipe, where the user names no other."""


def recipe_of_run(verb: str, words: list[str]) -> str:
    """The recipe that a verb on a run starts from: what `summer train` wrote beside what `input` or `out` names."""
    named = dict(word.partition("=")[::2] for word in words)
    places = [Path(named[key]) for key in ("input", "out") if named.get(key)]
    if verb in ON_RUNS:
        for place in places:
            for folder in (place, *list(place.absolute().parents)[:2]):
                if (folder / RECIPE).is_file():
                    return str(folder / RECIPE)
    return "toy"


def words_of_export(words: list[str]) -> list[str]:
    """`clip.frames=73 ...` as the exported model that `sample` will read was trained with; [] where there is none."""
    named = dict(word.partition("=")[::2] for word in words)
    folder = Path(named["input"]) if named.get("input") else Path(named.get("out") or "out/toy") / EXPORT
    try:
        clip = json.loads((folder / "config.json").read_text())["extra"]["clip"]
        return [f"clip.{name}={int(clip[name])}" for name in ("frames", "height", "width", "fps")]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # `sample` itself says what is wrong with the folder


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. ValueError with the file where it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, wanted is an object")
    return found
