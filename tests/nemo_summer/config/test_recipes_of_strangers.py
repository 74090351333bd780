"""What a recipe file may not do, and that it is said in one line with file and line."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest

from nemo_summer.config import RecipeError, load_recipe


class Colour(Enum):
    red = "red"
    blue = "blue"


@dataclass(kw_only=True)
class Wheel:
    spokes: int = 8
    """How many."""
    colour: Colour = Colour.red
    sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.spokes < 3:
            raise ValueError(f"wheel.spokes={self.spokes} does not hold a wheel: set wheel.spokes=3")


@dataclass(kw_only=True)
class Bike:
    name: str = "bike"
    label: str = ""
    weight: float = 10.0
    shares: dict[str, float] = field(default_factory=lambda: {"a": 0.5, "b": 0.5})
    wheel: Wheel = field(default_factory=Wheel)


@pytest.fixture
def recipe(tmp_path: Path):
    def write(text: str | bytes, name: str = "mine.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def refusal(path: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(Bike, path, overrides)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wheel:\n  _target_: os.system\n", "line 2: _target_ is not allowed: a recipe is data and cannot name code"),
        ("_target_: os.system\n", "line 1: _target_ is not allowed"),
        ("shares: {_target_: 1.0}\n", "_target_ is not allowed"),
        ("name: !!python/object/apply:os.system ['touch marker']\n", "line 1: the tag"),
        ("name: !!python/name:os.system\n", "the tag"),
        ("name: !include other.yaml\n", "the tag !include"),
        ("name: 2024-01-01\n", "text in quotes"),
        ("name: x\nlabel: ${oc.env:SUMMER_SECRET}\n", "line 2: label='${oc.env:SUMMER_SECRET}'"),
        ("label: ${oc.env:SUMMER_SECRET,x}\n", "not compute or read the environment"),
        ("label: ${hydra:runtime.cwd}\n", "not compute or read the environment"),
        ("label: ${now:%Y}\n", "not compute or read the environment"),
        ("label: ${${name}}\n", "only plain references"),
        ("label: '\\${name}'\n", "only plain references"),
        ("wheel: &w {spokes: 4}\nshares: *w\n", "line 2: *w is an alias"),
        ("hydra:\n  run: {dir: /tmp/x}\n", "line 1: there is no key hydra.run.dir"),
        ("defaults: [/hydra/launcher: joblib]\n", "`defaults` is a list of recipes"),
        ("defaults: [../../etc/passwd]\n", "there is no recipe '../../etc/passwd'"),
        ("defaults: [mine]\n", "builds on itself"),
        ("name: a\nname: b\n", "line 2: the key name stands there twice"),
        ("- a\n- b\n", "a recipe holds lines of `key: value`"),
        ("name: [\n", "is not YAML"),
        ("1: x\n", "the key 1 is not text"),
        (b"name: \xff\xfe\n", "is not YAML"),
        (b"name: a\x00b\n", "is not YAML"),
        ("[" * 5000, "nested too deeply"),
        ("a: " * 3 + "\n", "is not YAML"),
        ("label: ???\n", "leaves label open: set label=..."),
        ("label: ${nothing}\n", "label"),
        ("label: ${label}\n", "label"),
        ("weight: .nan\n", "line 1: weight=nan is not a number"),
    ],
)
def test_a_recipe_is_data(text: str | bytes, says: str, recipe, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SUMMER_SECRET", "hunter2")
    monkeypatch.chdir(tmp_path)
    message = refusal(recipe(text))
    assert says in message
    assert "mine.yaml" in message
    assert "hunter2" not in message
    assert not (tmp_path / "marker").exists()


def test_a_file_of_megabytes_is_refused_before_it_is_parsed(recipe) -> None:
    assert "a recipe has at most" in refusal(recipe("name: " + "x" * 300_000))


def test_references_cannot_grow_into_a_bomb(recipe) -> None:
    text = "name: " + "x" * 1000 + "\nlabel: " + "${name}" * 100 + "\n"
    assert "100 references" in refusal(recipe(text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: x\nwheel:\n  spoke: 3\n", "mine.yaml line 3: there is no key wheel.spoke; did you mean wheel.spokes?"),
        ("wheal: {spokes: 3}\n", "mine.yaml line 1: there is no key wheal.spokes; did you mean wheel.spokes?"),
        ("spokes: 3\n", "mine.yaml line 1: there is no key spokes; did you mean wheel.spokes?"),
        ("zzz: 3\n", "mine.yaml line 1: there is no key zzz; a recipe has name, label, weight, shares, wheel"),
        ("wheel: 3\n", "mine.yaml line 1: wheel is a group, not 3"),
        ("wheel: {spokes: many}\n", "mine.yaml line 1: wheel.spokes='many' is not a whole number"),
        ("wheel:\n  spokes: 3.5\n", "mine.yaml line 2: wheel.spokes=3.5 is not a whole number"),
        ("wheel: {spokes: null}\n", "wheel.spokes=null is not a whole number"),
        ("wheel: {colour: green}\n", "wheel.colour='green' is not one of red, blue"),
        ("wheel: {sizes: [1, x]}\n", "wheel.sizes=[1, 'x'] is not a list of whole numbers"),
        ("wheel: {sizes: 1}\n", "wheel.sizes=1 is not a list of whole numbers"),
        ("shares: {a: x}\n", "mine.yaml line 1: shares={'a': 'x'} is not a group of key: value"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_line_and_the_nearest_right_one(text: str, says: str, recipe) -> None:
    assert says in refusal(recipe(text))


def test_the_dataclass_has_the_last_word(recipe) -> None:
    with pytest.raises(ValueError, match=r"wheel\.spokes=2 does not hold a wheel"):
        load_recipe(Bike, recipe("wheel: {spokes: 2}\n"))


def test_a_file_that_changes_nothing_is_the_dataclass_itself(recipe) -> None:
    assert load_recipe(Bike, recipe("")) == Bike()
    assert load_recipe(Bike, recipe("# only words\n")) == Bike()


def test_later_files_win_and_a_shared_ancestor_does_not_undo_them(recipe) -> None:
    recipe("name: ground\nweight: 1\nwheel: {spokes: 10}\n", "ground.yaml")
    recipe("defaults: [ground]\nweight: 2\n", "left.yaml")
    recipe("defaults: [ground]\nlabel: right\n", "right.yaml")
    top = load_recipe(Bike, recipe("defaults: [left, right]\nwheel: {colour: blue}\n", "top.yaml"))
    assert top == Bike(name="ground", label="right", weight=2.0, wheel=Wheel(spokes=10, colour=Colour.blue))


def test_references_to_other_keys_are_followed(recipe) -> None:
    assert load_recipe(Bike, recipe("name: tandem\nlabel: the ${name}, ${wheel.spokes}\n")).label == "the tandem, 8"


@pytest.mark.parametrize(
    "spelling", ["${oc.env:HOME}", "a ${oc.env:HOME} b", "${ oc.env:HOME}", "${oc.env:HOME", "${a[0]}"]
)
def test_no_spelling_of_a_reference_reaches_the_environment(spelling: str, recipe) -> None:
    message = refusal(recipe(f'label: "{spelling}"\n'))
    assert "only plain references" in message or "not compute or read the environment" in message


def test_a_value_left_open_must_be_given(recipe) -> None:
    path = recipe("label: ???\nwheel:\n  spokes: ???\n")
    assert "mine.yaml leaves wheel.spokes open: set wheel.spokes=..." in refusal(path, "label=x")
    assert load_recipe(Bike, path, ["label=x", "wheel.spokes=4"]) == Bike(label="x", wheel=Wheel(spokes=4))
