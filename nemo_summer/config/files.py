"""Recipe files: YAML read as plain data, with the line of every key, and the chain of files that one builds on."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).parent.parent / "recipes"

FILE_LIMIT_BYTES = 256 * 1024
CHAIN_LIMIT = 16
"""Files that one recipe may build on, directly or not."""

_RECIPE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RecipeError(ValueError):
    """A recipe or an override that cannot be used: one line that says where, what was found and what would fit."""


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """What one YAML file says: nested values, the line of each dotted key, the files it builds on."""

    path: Path
    values: dict[str, Any]
    lines: dict[str, int]
    builds_on: tuple[str, ...] = ()

    def where(self, key: str) -> str:
        """`toy.yaml line 7: `, for messages about `key`."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.path.name} line {self.lines[key]}: " if key else f"{self.path}: "


class _Loader(yaml.SafeLoader):
    """Only plain values, each key once, no aliases: nothing in the file can grow or name a type."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise _LineError(event.start_mark.line + 1, f"*{event.anchor} is an alias; write the value itself")
        return super().compose_node(parent, index)


class _LineError(Exception):
    """A line of a file and what is wrong with it."""

    def __init__(self, line: int, finding: str) -> None:
        super().__init__(finding)
        self.line, self.finding = line, finding


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name_or_path: str, beside: Path | None = None) -> Path:
    """The file of a recipe: a path that ends in .yaml or .yml, or a name, looked for `beside` first."""
    if name_or_path.endswith((".yaml", ".yml")):
        path = (beside or Path()) / name_or_path
        if not path.is_file():
            raise RecipeError(f"there is no recipe file {path}: set recipe=PATH or recipe=NAME ({_known_recipes()})")
        return path
    for folder in (beside, RECIPES):
        if folder and _RECIPE_NAME.fullmatch(name_or_path) and (path := folder / f"{name_or_path}.yaml").is_file():
            return path
    near = difflib.get_close_matches(name_or_path, recipe_names(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {_known_recipes()}; a file of your own ends in .yaml"
    raise RecipeError(f"there is no recipe {name_or_path!r}: {hint}")


def _known_recipes() -> str:
    return ", ".join(recipe_names())


def read_file(path: Path) -> RecipeFile:
    """The file's values and lines. Raises RecipeError with file and line for anything that is not plain data."""
    lines: dict[str, int] = {}
    try:
        size = path.stat().st_size
        if size > FILE_LIMIT_BYTES:
            raise RecipeError(f"{path} has {size} bytes; a recipe has at most {FILE_LIMIT_BYTES}")
        loader = _Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        values = {} if root is None else _plain(loader, root, "", lines)
    except _LineError as unfit:
        raise RecipeError(f"{path.name} line {unfit.line}: {unfit.finding}") from None
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"{path.name}{line} is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name} is not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise RecipeError(f"{path.name} is nested too deeply for a recipe") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path.name} holds {shown(values)}; a recipe holds lines of `key: value`")
    return RecipeFile(path, values, lines, _builds_on(path, values.pop("defaults", [])))


def _plain(loader: _Loader, node: yaml.Node, key: str, lines: dict[str, int]) -> Any:
    """The node as dict, list or plain value; notes the line of every key."""
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            name = _plain(loader, key_node, key, {})
            at = key_node.start_mark.line + 1
            if not isinstance(name, str):
                raise _LineError(at, f"the key {shown(name)} is not text")
            if name in values:
                raise _LineError(at, f"the key {name} stands there twice")
            if name.startswith("_"):
                raise _LineError(at, f"{name} is not allowed: a recipe is data and cannot name code")
            full = f"{key}.{name}" if key else name
            lines[full] = at
            values[name] = _plain(loader, value_node, full, lines)
        return values
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_plain(loader, entry, key, {}) for entry in node.value]
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind not in ("str", "int", "float", "bool", "null"):
        raise _LineError(line, f"the tag {node.tag} is not allowed: write plain values, text in quotes")
    try:
        return loader.construct_object(node)
    except ValueError as error:
        raise _LineError(line, str(error)) from None


def _builds_on(path: Path, defaults: Any) -> tuple[str, ...]:
    if isinstance(defaults, list) and all(isinstance(entry, str) for entry in defaults):
        return tuple(entry for entry in defaults if entry != "_self_")
    raise RecipeError(f"{path.name}: `defaults` is a list of recipes to build on, like [toy], not {shown(defaults)}")


def chain_of(path: Path, above: tuple[Path, ...] = ()) -> list[RecipeFile]:
    """The file and all that it builds on, the first one first; later ones win."""
    if path.resolve() in above:
        raise RecipeError(f"{path.name} builds on itself: {' -> '.join(step.name for step in (*above, path))}")
    if len(above) >= CHAIN_LIMIT:
        raise RecipeError(f"{above[0].name} builds on more than {CHAIN_LIMIT} recipes, one on the other")
    own = read_file(path)
    chain: list[RecipeFile] = []
    for name in own.builds_on:
        for earlier in chain_of(_found_for(path, name), (*above, path.resolve())):
            if all(earlier.path.resolve() != known.path.resolve() for known in chain):
                chain.append(earlier)
    if len(chain) >= CHAIN_LIMIT:
        raise RecipeError(f"{path.name} builds on more than {CHAIN_LIMIT} recipes")
    return [*chain, own]


def _found_for(path: Path, name: str) -> Path:
    try:
        return find_recipe(name, beside=path.parent)
    except RecipeError as error:
        raise RecipeError(f"{path.name} builds on {name}: {error}") from None


def shown(value: Any) -> str:
    """The value for a message, on one line and not too long."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
