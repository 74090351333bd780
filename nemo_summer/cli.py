"""`summer VERB recipe=NAME key=value ...`: finds the verb, composes the recipe, runs the verb, words the errors.

What a verb needs is imported when it runs, so that `summer --help` answers at once.
"""

from __future__ import annotations

import difflib
import os
import sys
import textwrap
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemo_summer.config.keys import Key
    from nemo_summer.recipe import Recipe

WRONG = 2
"""Exit code where the user, not the program, has to change something."""

FLAGS = {"--help": "help", "-h": "help", "--cfg": "cfg", "--json": "json", "--version": "version"}


@dataclass(frozen=True, slots=True)
class Verb:
    """What the help says about a verb; the verb itself is the module of its name in nemo_summer/verbs."""

    line: str
    what: str
    keys: tuple[str, ...]
    """the settings that the help explains; `clip.` stands for all of a group"""
    examples: tuple[str, ...]
    meaning: Mapping[str, str] = field(default_factory=dict)
    """what `input` and `out` are for this verb, where the recipe's own words are too general"""
    word: str = ""
    """the key that words without `=` set"""
    word_shown: str = ""


VERBS = {
    "demo": Verb(
        "the whole way on this machine, from footage to mp4s and a report page",
        "Draws synthetic footage (or takes yours), curates it, trains on it, averages, samples, and writes "
        "OUT/report.html, which tells what happened.",
        ("input", "out", "seed", "demo.", "train.steps", "sample.prompts"),
        ("summer demo", "summer demo footage=~/videos out=out/real"),
        meaning={"input": "Folder of your own footage; footage=DIR is the same. Empty: synthetic footage is drawn."},
    ),
    "curate": Verb(
        "raw footage in, a dataset of captioned clips out",
        "Finds videos, cuts them into shots, scores and filters the clips, captions them, drops look-alikes, and "
        "writes latents, texts and shards to OUT. clips.parquet there has one row per clip, dropped ones too, and "
        "manifest.json the counts per rule. Started again, it goes on where it was stopped.",
        ("input", "out", "clip.", "curate.", "codec.", "text."),
        (
            "summer curate input=~/videos",
            "summer curate input=~/videos out=data/mine clip.height=128 clip.width=224",
            "summer curate input=~/videos dry_run=true",
        ),
        meaning={
            "input": "Folder of footage, read with all its folders; never changed.",
            "out": "Folder of the dataset.",
        },
    ),
    "view": Verb(
        "a web page over a dataset: what training will see, and what was dropped",
        "Serves the dataset's clips with scores and captions on this machine only (127.0.0.1).",
        ("data.path", "data.where", "view."),
        ("summer view data=out/toy/data", "summer view data=out/toy/data data.where='motion > 2'"),
    ),
    "train": Verb(
        "trains the diffusion transformer on a dataset",
        "Starts the ranks and trains to train.steps, from the newest checkpoint in OUT where there is one. Writes "
        "OUT/checkpoints, OUT/tensorboard and OUT/history.jsonl. SIGTERM or SIGUSR1 saves and ends with code 75: "
        "the same command goes on.",
        ("data.", "out", "seed", "ranks", "model.", "parallel.", "objective.", "optim.", "train."),
        (
            "summer train data=out/toy/data",
            "summer train recipe=30m data=/data/clips ranks=8 train.steps=20000",
            "summer train recipe=summer-22b dry_run=true",
        ),
        meaning={
            "out": "Folder of the run.",
            "data.path": "Folder of a dataset that `summer curate` wrote; data=DIR is the same.",
        },
    ),
    "ema": Verb(
        "averages a run's checkpoints; the exponent is chosen by validation loss",
        "Reads OUT/checkpoints, averages them with weights step^gamma for each gamma of ema.gammas, keeps the "
        "average that predicts the held-out clips best, and writes it to OUT/ema.",
        ("out", "input", "data.path", "ema."),
        ("summer ema out=out/toy", "summer ema out=out/toy ema.gammas=[6.94]"),
        meaning={"out": "Folder of the run.", "input": "Another folder of checkpoints than OUT/checkpoints."},
    ),
    "sample": Verb(
        "text in, mp4s out",
        "Reads an exported model (`summer convert`), makes one clip per prompt and writes them to OUT/samples. "
        "Needs no megatron.",
        ("input", "out", "sample.", "clip."),
        (
            "summer sample 'a red ball rolls to the left' 'a blue square, still'",
            "summer sample 'a red ball' out=out/mine sample.guidance=4 sample.steps=16",
            "summer sample input=out/toy/export sample.prompts='[\"a red ball\"]'",
        ),
        word="sample.prompts",
        word_shown="[PROMPT ...]",
        meaning={"out": "Folder of the run.", "input": "Another exported model than OUT/export."},
    ),
    "convert": Verb(
        "a checkpoint or an average into one file that `sample` reads",
        "Writes OUT/export: model.safetensors, config.json, the codec and the text settings. Takes OUT/ema, or the "
        "newest checkpoint where there is no average, or input=FOLDER.",
        ("input", "out", "data.path"),
        ("summer convert out=out/toy", "summer convert input=out/toy/checkpoints/step_00000400 out=out/toy"),
        meaning={
            "out": "Folder of the run.",
            "input": "The checkpoint or average to convert, where it is not the one in OUT.",
        },
    ),
    "doctor": Verb(
        "what this machine has, and which path each part therefore takes",
        "One line per part: what was found, the path it takes, what to install for the other.",
        (),
        ("summer doctor", "summer doctor json=true"),
    ),
    "explain": Verb(
        "the story of one clip: file, seconds, every decision, caption, shard",
        "CLIP_ID or the first letters of it, as clips.parquet, the report and the viewer show it.",
        ("clip_id", "data.path"),
        ("summer explain flower-1a2b3c4d-00001200-00004800 data=out/toy/data",),
        word="clip_id",
        word_shown="CLIP_ID",
    ),
}

SHORT = {"data": "data.path", "footage": "input"}
"""Keys with a short name: `data=DIR` is `data.path=DIR`."""


@dataclass(slots=True)
class Command:
    """The words after `summer`, sorted."""

    verb: str = ""
    recipe: str = ""
    """empty: toy, or for a verb that goes on from a run the recipe of that run"""
    overrides: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command; gives back its exit code. Errors are one line, the traceback comes with SUMMER_TRACEBACK=1."""
    # Read by OpenMP when torch is loaded, also in the ranks. Threads that spin while they wait take the cores from each
    # other on a busy machine: steps of training took 0.64 s with them and 0.50 s without, side by side on two cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return run(read_words(sys.argv[1:] if words is None else words))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has left
        return 1
    except KeyboardInterrupt:
        print("summer: stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if os.environ.get("SUMMER_TRACEBACK"):
            traceback.print_exc()
        print(f"summer: {worded(error)}", file=sys.stderr)
        return WRONG


def worded(error: BaseException) -> str:
    """The error on one line; an error of the system with the file that it is about."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.strerror}: {error.filename}"
    # A key or a file name may hold what a terminal takes for commands.
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def read_words(words: Sequence[str]) -> Command:
    """Sorts the words. ValueError for a verb or a flag that does not exist."""
    command = Command()
    bare: list[str] = []
    for word in words:
        if word.startswith("-"):
            command.flags.add(_flag(word))
        elif not command.verb:
            command.verb = _verb(word)
        elif word.startswith("recipe="):
            command.recipe = word.removeprefix("recipe=")
        elif word in ("json=true", "json=false"):
            command.flags |= {"json"} & {word.removesuffix("=true")}
        elif "=" not in word and VERBS[command.verb].word:
            bare.append(word)
        else:
            command.overrides += _settings(word)
    if bare:
        command.overrides.append(_from_bare(VERBS[command.verb].word, bare))
    return command


def _from_bare(key: str, bare: list[str]) -> str:
    """Words without `=` as the setting that they stand for: one clip, or a list of prompts."""
    if key == "sample.prompts":
        from nemo_summer.config.composed import quoted

        return f"{key}=[{','.join(quoted(word) for word in bare)}]"
    if len(bare) > 1:
        raise ValueError(f"one {key} at a time, not {len(bare)}: {' '.join(bare)}")
    return f"{key}={bare[0]}"


def _flag(word: str) -> str:
    if word in FLAGS:
        return FLAGS[word]
    near = difflib.get_close_matches(word, FLAGS, n=1)
    name, _, value = word.lstrip("-").partition("=")
    setting = f"{name.replace('-', '_')}={value or 'true'}"
    hint = f"did you mean {near[0]}?" if near else f"settings are written without dashes: {setting}"
    raise ValueError(f"there is no option {word}: {hint}")


def _verb(word: str) -> str:
    if word in VERBS:
        return word
    if "=" in word:
        raise ValueError(f"the verb comes first: summer VERB {word} (verbs: {', '.join(VERBS)})")
    near = difflib.get_close_matches(word, VERBS, n=1)
    raise ValueError(f"there is no verb {word!r}: {f'did you mean {near[0]}?' if near else f'there are {_listed()}'}")


def _listed() -> str:
    return ", ".join(VERBS)


def _settings(word: str) -> list[str]:
    """The word as `key=value`, short names made long; `model=22b` sets each size of that preset."""
    key, equals, value = word.partition("=")
    if key == "model" and equals and value[:1] not in "{$":
        from nemo_summer.dit.presets import PRESETS, preset

        preset(value)  # its ValueError names the nearest one
        return [f"model.{size}={number}" for size, number in PRESETS[value].items()]
    if equals and not key:
        raise ValueError(f"{word!r} has no key: settings are written key=value")
    if value.startswith("~/"):
        value = os.path.expanduser(value)
    return [f"{SHORT.get(key, key)}{equals}{value}"]


def run(command: Command) -> int:
    """Does what the command says and gives back the exit code."""
    if "version" in command.flags:
        print(f"nemo-summer {metadata.version('nemo-summer')}")
        return 0
    if not command.verb:
        print(help_on_all())
        return 0 if "help" in command.flags else WRONG
    if "help" in command.flags:
        print(help_on(command.verb))
        return 0
    if command.verb == "doctor" and "cfg" not in command.flags:
        return import_module("nemo_summer.verbs.doctor").run(as_json="json" in command.flags)
    return _run_recipe(command)


def _run_recipe(command: Command) -> int:
    recipe = composed(command)
    if "cfg" in command.flags:
        from nemo_summer.config import to_yaml

        print(to_yaml(recipe), end="")
        return 0
    if recipe.dry_run:
        from nemo_summer.verbs.dry_run import tell

        return tell(command.verb, recipe)
    return import_module(f"nemo_summer.verbs.{command.verb}").run(recipe)


def composed(command: Command) -> Recipe:
    """The recipe that the command means."""
    from nemo_summer.recipe import recipe_for
    from nemo_summer.verbs.run_folder import recipe_of_run, words_of_export

    words = command.overrides
    if command.recipe:
        return recipe_for(command.verb, command.recipe, words)
    before = words_of_export(words) if command.verb == "sample" else []
    return recipe_for(command.verb, recipe_of_run(command.verb, words), [*before, *words])


# --- help


def help_on_all() -> str:
    """`summer --help`"""
    lines = [
        "summer VERB [recipe=NAME] [key=value ...]",
        "",
        "From raw footage to a video model of your own, and its mp4s.",
        "",
        *(f"  {name:9}{verb.line}" for name, verb in VERBS.items()),
        "",
        "  recipe=NAME     a recipe that comes with the package, or PATH.yaml. Where nothing is said it is toy; for",
        "                  ema, convert and sample the one that the run in OUT was trained with",
        "  key=value       changes one setting of the recipe: model.width=256, out=out/mine",
        "  dry_run=true    says what would be done, with sizes and memory, and stops",
        "  --cfg           prints the whole recipe as it would be used, as YAML",
        "  --help          after a verb: its settings, with meaning and default",
        "",
        f"Recipes: {', '.join(_recipes())}. The way, with one command: summer demo",
    ]
    return "\n".join(lines)


def _recipes() -> list[str]:
    # Not config.recipe_names(): it brings Hydra along, and help should answer at once.
    return sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("*.yaml"))


def help_on(name: str) -> str:
    """`summer VERB --help`: what it does, its settings from the dataclasses, examples."""
    verb = VERBS[name]
    word = f" {verb.word_shown}" if verb.word else ""
    options = " [json=true]" if name == "doctor" else " [recipe=NAME] [key=value ...]"
    lines = [
        f"summer {name}{word}{options}",
        "",
        f"{verb.line[0].upper()}{verb.line[1:]}.",
        "",
        *_wrapped(verb.what, ""),
    ]
    lines += ["", "Examples:", *(f"  {example}" for example in verb.examples)]
    if verb.keys:
        lines += ["", "Settings (default of the recipe toy):", *_settings_help(name, verb)]
        lines += ["", f"All settings with their values: summer {name} --cfg"]
    return "\n".join(lines)


def _settings_help(name: str, verb: Verb) -> list[str]:
    from nemo_summer.config.keys import keys_of
    from nemo_summer.recipe import Recipe, recipe_for

    toy = recipe_for(name, "toy", [])
    lines: list[str] = []
    for wanted in verb.keys:
        lines += [""] if wanted.endswith(".") and lines[-1:] != [""] else []
        for key in keys_of(Recipe):
            if _means(wanted, key.name):
                lines += _key_help(key, toy, verb.meaning.get(key.name, key.doc))
    return lines


def _means(wanted: str, name: str) -> bool:
    """Whether the help on `wanted` tells of the setting; what a stage occupies is left to `--cfg`."""
    plumbing = name.startswith("curate.") and (name.endswith((".name", ".batch_size")) or ".resources." in name)
    return name == wanted or (wanted.endswith(".") and name.startswith(wanted) and not plumbing)


def _key_help(key: Key, toy: Recipe, meaning: str) -> list[str]:
    from nemo_summer.config.keys import written

    value: object = toy
    for part in key.name.split("."):
        value = getattr(value, part)
    return [f"  {key.name}={written(value)}", *_wrapped(meaning, "      ")]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent=indent)


if __name__ == "__main__":
    sys.exit(main())
