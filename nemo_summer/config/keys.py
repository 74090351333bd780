"""The settings that a tree of dataclasses has: names, types, defaults, and the docstrings under the fields."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Key:
    """One setting of a schema: `model.width`."""

    name: str
    type: Any
    group: type
    """The dataclass whose field it is."""

    @property
    def doc(self) -> str:
        """The docstring under the field, on one line; empty where there is none."""
        return field_docs(self.group).get(self.name.rpartition(".")[2], "")


@cache
def keys_of(schema: type, prefix: str = "") -> tuple[Key, ...]:
    """Every setting of `schema` and of the dataclasses inside it, in the order of their definition."""
    hints, keys = typing.get_type_hints(schema), []
    for entry in fields(schema):
        kind = hints[entry.name]
        inside = is_dataclass(kind)
        keys += keys_of(kind, f"{prefix}{entry.name}.") if inside else [Key(prefix + entry.name, kind, schema)]
    return tuple(keys)


@cache
def groups_of(schema: type, prefix: str = "") -> dict[str, type]:
    """The dataclasses inside `schema` by dotted name."""
    hints, groups = typing.get_type_hints(schema), {}
    for entry in fields(schema):
        if is_dataclass(kind := hints[entry.name]):
            groups |= {prefix + entry.name: kind, **groups_of(kind, f"{prefix}{entry.name}.")}
    return groups


@cache
def field_docs(schema: type) -> dict[str, str]:
    """The string under each field of a dataclass, on one line, from its source."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(schema))).body[0].body  # type: ignore[attr-defined]
    except (OSError, TypeError):
        return {}
    docs = {}
    for line, following in pairwise(body):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(following, ast.Expr):
            text = getattr(following.value, "value", None)
            docs |= {line.target.id: " ".join(text.split())} if isinstance(text, str) else {}
    return docs


def nearest_key(schema: type, wrong: str) -> str:
    """What to say about a key that does not exist: the nearest one that does, else those of its group."""
    names = [key.name for key in keys_of(schema)]
    every = names + list(groups_of(schema))
    if near := difflib.get_close_matches(wrong, every, n=1, cutoff=0.75):
        return f"did you mean {near[0]}?"
    parent, _, last = wrong.rpartition(".")
    inside = [name for name in every if name.rpartition(".")[0] == parent] if parent else []
    if near := difflib.get_close_matches(last, [name.rpartition(".")[2] for name in inside], n=1):
        return f"did you mean {parent}.{near[0]}?"
    lasts = [name.rpartition(".")[2] for name in names]
    if near := difflib.get_close_matches(last, lasts, n=1, cutoff=0.75):
        return f"did you mean {' or '.join(name for name, end in zip(names, lasts) if end == near[0])}?"
    known = inside or [entry.name for entry in fields(schema)]
    return f"{parent if inside else 'a recipe'} has {', '.join(name.rpartition('.')[2] for name in known)}"


def described(kind: Any) -> str:
    """What a value of this type is, in words: `a whole number`, `one of embedded, wan`."""
    if _is_optional(kind):
        return " or ".join([*(described(part) for part in typing.get_args(kind) if part is not type(None)), "null"])
    origin = typing.get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, Enum):
        return f"one of {', '.join(choice_word(member) for member in origin)}"
    if origin in (list, tuple):
        inner = [part for part in typing.get_args(kind) if part is not Ellipsis]
        return f"a list of {_PLURAL.get(inner[0], described(inner[0])) if inner else 'values'}"
    if origin is dict:
        return "a group of key: value"
    return _WORDS.get(origin, getattr(origin, "__name__", str(origin)))


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Any: "a value"}
_PLURAL = {int: "whole numbers", float: "numbers", str: "texts", bool: "true or false"}


def _is_optional(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def is_text(kind: Any) -> bool:
    """Whether a setting of this type holds text, which then needs no quotes on the command line."""
    parts = typing.get_args(kind) if _is_optional(kind) else (kind,)
    return set(parts) - {type(None)} == {str}


def choice_word(member: Enum) -> str:
    """How a choice is written in a recipe: its value where that is a word, else its name in small letters."""
    return member.value if isinstance(member.value, str) else member.name.lower()


def exact_choice(kind: Any, value: Any) -> Any:
    """The name of the member that `value` means, for a type that is a choice; any other value as it is."""
    parts = typing.get_args(kind) if _is_optional(kind) else (kind,)
    for choice in parts:
        if isinstance(choice, type) and issubclass(choice, Enum) and isinstance(value, str):
            for member in choice:
                if value.lower() in (member.name.lower(), str(member.value).lower()):
                    return member.name
    return value


def written(value: Any) -> str:
    """A value as a recipe or a command would write it, cut where it is long."""
    if isinstance(value, Enum):
        return choice_word(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(written(entry) for entry in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {written(entry)}" for name, entry in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
