"""`summer curate`: raw footage in, a dataset out; at the end a table of what each rule dropped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curator.manifest import Manifest
    from nemo_summer.recipe import Recipe


LINES = 20
"""Files without clips that are told on the terminal."""
MANIFEST = "manifest.json"


def run(recipe: Recipe) -> int:
    """Makes the dataset `recipe.out` of the footage in `recipe.input`. ValueError where no clip was kept."""
    from curator.pipeline import curate

    footage = footage_of(recipe)
    made = curate(recipe.curate, footage, Path(recipe.out), recipe.clip, recipe.codec, recipe.text)
    _print_table(made)
    for line in [*_failures(made), *made.warnings]:
        print(f"summer: {line}", file=sys.stderr)
    if made.clips_kept == 0:
        raise ValueError(_why_nothing(made))
    print(f"{made.clips_kept} clips, {made.seconds_kept:.0f} s, in {recipe.out}: summer train data={recipe.out}")
    return 0


def footage_of(recipe: Recipe) -> Path:
    """The folder of footage. ValueError where it is not said or not there."""
    if not recipe.input:
        raise ValueError("no footage to curate: set input=FOLDER")
    if not Path(recipe.input).is_dir():
        raise ValueError(f"input={recipe.input} is no folder: set input= to the folder that holds the footage")
    return Path(recipe.input)


def _why_nothing(made: Manifest) -> str:
    if made.clips_total:
        return f"all {made.clips_total} clips were dropped, the table says by which rule: loosen it, or add footage"
    if made.videos_read:
        return f"{made.videos_read} videos were read but have no shot that is long enough: lower curate.cut.shortest_s"
    return "no video could be read, so there is no dataset"


def _print_table(made: Manifest) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    for side in ("left", "right", "left"):
        table.add_column(justify=side)
    for what, count, note in _rows(made):
        table.add_row(Text(what), f"{count:,}", Text(note))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def _rows(made: Manifest) -> list[tuple[str, int, str]]:
    """Videos and clips from found to kept: what stands under a sum adds up to it."""
    copies = [("  duplicate", made.videos_duplicate, "the same content under another name")]
    share = f"{made.clips_kept / made.clips_total:.0%} of the clips" if made.clips_total else ""
    return [
        ("videos found", made.videos_found, ""),
        *((f"  {reason}", count, _examples(made, reason)) for reason, count in sorted(made.videos_failed.items())),
        *(copies if made.videos_duplicate else []),
        ("  read", made.videos_read, f"{made.seconds_found:.0f} s"),
        ("clips cut", made.clips_total, f"{made.seconds_in_clips:.0f} s"),
        *((f"  dropped by {rule}", count, "") for rule, count in sorted(made.clips_dropped.items())),
        ("  kept", made.clips_kept, f"{made.seconds_kept:.0f} s, {share}" if share else ""),
    ]


def _failures(made: Manifest) -> list[str]:
    """A line per file that gave no clips, with the finding and what to do; the manifest has all of them."""
    rest = len(made.failures) - LINES
    lines = [failure["message"] for failure in made.failures[:LINES]]
    return [*lines, f"and {rest} more files: {MANIFEST} names them all"] if rest > 0 else lines


def _examples(made: Manifest, reason: str) -> str:
    """The first files that failed for this reason."""
    files = [failure["file"] for failure in made.failures if failure["reason"] == reason]
    # A file name may hold what a terminal takes for commands.
    files = ["".join(letter if letter.isprintable() else "?" for letter in file) for file in files]
    return ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
