"""From files and `key=value` words to one typed recipe, composed by Hydra."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import make_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_summer.config.files import RecipeError, chain_of, find_recipe, shown
from nemo_summer.config.keys import (
    choice_word,
    described,
    exact_choice,
    groups_of,
    is_text,
    keys_of,
    nearest_key,
)
from nemo_summer.whole_files import write_whole

T = TypeVar("T")
Where = Callable[[str], str]
"""From a dotted key to the words before a message about it: `toy.yaml line 7: `."""

REFERENCE_LIMIT = 24
"""References `${...}` in all; each repeats another key's text, so an open number of them could fill the memory."""

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_PLAIN_KEY = re.compile(r"\.*[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def load_recipe(schema: type[T], name_or_path: str | Path, overrides: Sequence[str] = ()) -> T:
    """The recipe as an object of `schema`: its files over the dataclasses' defaults, the overrides over both.

    Raises RecipeError for anything the files or overrides get wrong, and the ValueError of a dataclass that
    refuses its values.
    """
    files = chain_of(find_recipe(str(name_or_path)))
    layers = [fit_values(schema, file.values, file.where) for file in files]
    words = [_checked_override(schema, word) for word in overrides]
    _count_references(layers, words)
    _refuse_open(files[-1].path.name, layers, words)
    return _to_object(_composed(schema, layers, words), files[-1].path.name)


def to_yaml(recipe: Any) -> str:
    """The recipe as YAML, whole: a file of this text loads as the same recipe."""
    return OmegaConf.to_yaml(OmegaConf.create(_written(OmegaConf.to_container(OmegaConf.structured(recipe)))))


def write_recipe(recipe: Any, path: Path) -> Path:
    """Writes the recipe, whole or not at all; gives back `path`, which `load_recipe` reads."""
    return write_whole(path, to_yaml(recipe))


def read_recipe(schema: type[T], path: Path) -> T:
    """The recipe of one file and of those it builds on, without overrides."""
    return load_recipe(schema, path)


def object_of(schema: type[T], values: Any, where: str) -> T:
    """Settings that came from another file than a recipe, such as an exported model's, checked as a recipe is."""
    if not isinstance(values, Mapping):
        raise RecipeError(f"{where} holds {shown(values)}; wanted is a group of settings")
    fitted = fit_values(schema, values, lambda key: f"{where}: ")
    return _to_object(OmegaConf.merge(OmegaConf.structured(schema), fitted), where)


def _written(value: Any) -> Any:
    """Choices as the words that recipes use."""
    if isinstance(value, dict):
        return {key: _written(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_written(entry) for entry in value]
    return choice_word(value) if isinstance(value, Enum) else value


def _composed(schema: type, layers: Sequence[dict[str, Any]], words: Sequence[str]) -> Any:
    """Hydra's work: schema, then layers, then words. It is handed checked values only and reads no file."""
    store = ConfigStore.instance()
    store.store(name="summer_schema", node=schema)
    names = [f"summer_layer_{index}" for index in range(len(layers))]
    for name, layer in zip(names, layers):
        store.store(name=name, node=layer)
    store.store(name="summer_recipe", node={"defaults": ["summer_schema", *names, "_self_"]})
    try:
        with initialize(version_base="1.3", config_path=None):
            return compose(config_name="summer_recipe", overrides=list(words))
    except (HydraException, OmegaConfBaseException) as error:
        raise RecipeError(_one_line(error.__cause__ or error)) from None


def _refuse_open(name: str, layers: Sequence[dict[str, Any]], words: Sequence[str]) -> None:
    """`???` in a file is a value that the user must give. OmegaConf would take the default of the dataclass instead."""
    still_open: dict[str, None] = {}
    for layer in layers:
        for key, value in _leaves(layer):
            still_open.pop(key, None)
            still_open |= {key: None} if value == "???" else {}
    for word in words:
        still_open.pop(word.removeprefix("++").partition("=")[0], None)
    if still_open:
        raise RecipeError(f"{name} leaves {', '.join(still_open)} open: set {next(iter(still_open))}=...")


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _to_object(cfg: Any, name: str) -> Any:
    try:
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            raise RecipeError(f"{name} leaves {', '.join(missing)} open: set {missing[0]}=...")
        OmegaConf.resolve(cfg)
        return OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise RecipeError(f"{name}: {error.full_key}: {_one_line(error)}") from None
    except RecursionError:
        raise RecipeError(f"{name}: references `${{...}}` that lead back to themselves") from None


def _one_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


# --- values


def fit_values(schema: type, values: Mapping[str, Any], where: Where) -> dict[str, Any]:
    """`values` with choices spelt exactly. Raises RecipeError for a key or a value that does not fit `schema`."""
    kinds = {key.name: key.type for key in keys_of(schema)}
    groups = groups_of(schema)

    def fit(group: type, values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        inside: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for name, value in values.items():
            key = prefix + name
            if key in kinds:
                _refuse_odd_text(key, value, where)
                own[name] = exact_choice(kinds[key], value)
            elif key not in groups:
                raise RecipeError(f"{where(key)}there is no key {_whole(key, value)}; {_nearest(schema, key, value)}")
            elif isinstance(value, Mapping):
                inside[name] = fit(groups[key], value, key + ".")
            else:
                first = next(known for known in kinds if known.startswith(key + "."))
                raise RecipeError(f"{where(key)}{key} is a group, not {shown(value)}: set its members, like {first}=")
        _check_types(group, own, prefix, where)
        return own | inside

    return fit(schema, values, "")


def _whole(key: str, value: Any) -> str:
    """The first whole key below an unknown one, so that `modl: {width: 3}` is answered with `model.width`."""
    while isinstance(value, Mapping) and value:
        name, value = next(iter(value.items()))
        key = f"{key}.{name}"
    return key


def _nearest(schema: type, key: str, value: Any) -> str:
    if key.rpartition(".")[2].startswith("_"):
        return "a recipe is data and cannot name code"
    return nearest_key(schema, _whole(key, value))


def _check_types(group: type, own: dict[str, Any], prefix: str, where: Where) -> None:
    """RecipeError for the first of the group's own settings whose value is not of its type."""
    for name, value in own.items():
        try:
            OmegaConf.merge(_alone(group, name), {name: value})
        except OmegaConfBaseException:
            key = prefix + name
            wanted = described(get_type_hints(group)[name])
            raise RecipeError(f"{where(key)}{key}={shown(value)} is not {wanted}") from None


@cache
def _alone(group: type, name: str) -> DictConfig:
    """A schema of one setting: quick to merge with, where the whole recipe's takes a tenth of a second."""
    return OmegaConf.structured(make_dataclass(name, [(name, get_type_hints(group)[name], MISSING)]))


def _refuse_odd_text(key: str, value: Any, where: Where) -> None:
    """References must be plain, numbers must be numbers, and nothing may name code."""
    if isinstance(value, float) and math.isnan(value):
        raise RecipeError(f"{where(key)}{key}=nan is not a number")
    for text in _texts_in(value):
        references = _REFERENCE.findall(text)
        if "${" in text and (text.count("${") != len(references) or "\\${" in text):
            raise RecipeError(f"{where(key)}{key}={shown(text)}: only plain references like ${{name}} are allowed")
        for reference in references:
            if not _PLAIN_KEY.fullmatch(reference):
                raise RecipeError(
                    f"{where(key)}{key}={shown(text)}: a recipe may refer to other keys, like ${{name}}, "
                    f"but not compute or read the environment"
                )


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts_in([*value.keys(), *value.values()])
    elif isinstance(value, Sequence):
        for entry in value:
            yield from _texts_in(entry)


def _count_references(layers: Sequence[dict[str, Any]], words: Sequence[str]) -> None:
    count = sum(text.count("${") for layer in layers for text in _texts_in(layer)) + sum(w.count("${") for w in words)
    if count > REFERENCE_LIMIT:
        raise RecipeError(f"the recipe has {count} references ${{...}}; at most {REFERENCE_LIMIT} are allowed")


# --- words of the command line


def _checked_override(schema: type, word: str) -> str:
    """The word as Hydra will take it. Text needs no quotes of Hydra's kind: a file name is taken as it is."""
    key, equals, value = word.partition("=")
    if not equals:
        raise RecipeError(f"{word!r} is not key=value{_perhaps(schema, word)}")
    kinds = {known.name: known.type for known in keys_of(schema)}
    if key.startswith(("+", "~")) or "@" in key:
        raise RecipeError(f"{word}: settings can be set, not added or removed: write {key.strip('+~')}=...")
    if is_text(kinds.get(key)) and not value.startswith(("'", '"')) and value != "null":
        word = f"{key}={quoted(value)}"
    parsed = _parsed(word, kinds.get(key))
    fitted = fit_values(schema, _nested(key, parsed.value()), lambda _: "")
    choice = _value_at(fitted, key)
    # `++` because Hydra would refuse a new name in a group of free names; that the key exists is checked already.
    return f"++{key}={choice}" if exact_choice(kinds.get(key), parsed.value()) != parsed.value() else f"++{word}"


def _parsed(word: str, kind: Any) -> Override:
    key, _, value = word.partition("=")
    try:
        parsed = OverridesParser.create().parse_override(word)
    except HydraException:
        parsed = None
    if parsed is None:
        wanted = described(kind or Any)
        example = f""", like {key}='["one","two"]'""" if wanted == "a list of texts" else ""
        raise RecipeError(f"{shown_word(key, value)}: the value cannot be read as {wanted}{example}")
    if parsed.is_sweep_override():
        wanted = f"a list is written {key}=[{value}]" if described(kind).startswith("a list") else "give one value"
        raise RecipeError(f"{shown_word(key, value)}: {wanted}")
    return parsed


def shown_word(key: str, value: str) -> str:
    word = f"{key}={value}"
    return word if len(word) <= 80 else word[:77] + "..."


def quoted(text: str) -> str:
    """Text in double quotes for Hydra's grammar, in which backslashes count only before a quote or at the end."""
    return '"' + re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ('\\"' if match[2] else ""), text) + '"'


def _perhaps(schema: type, word: str) -> str:
    return f": write {word}=..." if word in {key.name for key in keys_of(schema)} else ""


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _value_at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values
