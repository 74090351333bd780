"""Footage in, mp4s out: the five verbs one after the other. `python way.py FOOTAGE OUT [key=value ...]`"""

import sys
from pathlib import Path

from nemo_summer.cli import main

RECIPE = f"recipe={Path(__file__).with_name('recipe.yaml')}"


def way(footage: str, out: str, settings: list[str]) -> int:
    """Stops at the first verb that does not end well, and gives back its exit code."""
    data, prompt = f"{out}/data", 'sample.prompts=["a red circle moves left, the camera is still"]'
    verbs = [
        ["curate", RECIPE, f"input={footage}", f"out={data}"],
        ["train", RECIPE, f"data={data}", f"out={out}"],
        ["ema", f"out={out}"],
        ["convert", f"out={out}"],
        ["sample", f"out={out}", prompt],
    ]
    for words in verbs:
        print(f"summer {' '.join(words)}", flush=True)
        if code := main([*words, *settings]):
            return code
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("wanted: way.py FOOTAGE OUT [key=value ...]")
    sys.exit(way(sys.argv[1], sys.argv[2], sys.argv[3:]))
