"""`key=value` words: Hydra's grammar, text as it is, and one clear line where a word does not fit."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_summer.config import RecipeError, load_recipe, read_recipe, to_yaml, write_recipe
from nemo_summer.config.composed import _checked_override
from tests.nemo_summer.config.test_recipes_of_strangers import Bike, Colour, Wheel


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipes") / "plain.yaml"
    path.write_text("name: plain\n")
    return str(path)


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("weight=1e-3", Bike(name="plain", weight=0.001)),
        ("wheel.spokes=12", Bike(name="plain", wheel=Wheel(spokes=12))),
        ("wheel.colour=blue", Bike(name="plain", wheel=Wheel(colour=Colour.blue))),
        ("wheel.colour=BLUE", Bike(name="plain", wheel=Wheel(colour=Colour.blue))),
        ("wheel.sizes=[1,2]", Bike(name="plain", wheel=Wheel(sizes=[1, 2]))),
        ("wheel={spokes: 4}", Bike(name="plain", wheel=Wheel(spokes=4))),
        ("shares={a: 1}", Bike(name="plain", shares={"a": 1.0, "b": 0.5})),
        ("label=", Bike(name="plain", label="")),
        ("label=a=b", Bike(name="plain", label="a=b")),
        ("label='quoted, as Hydra does'", Bike(name="plain", label="quoted, as Hydra does")),
        ("label=of ${name}", Bike(name="plain", label="of plain")),
    ],
)
def test_a_word_sets_one_key(word: str, wanted: Bike, plain: str) -> None:
    assert load_recipe(Bike, plain, [word]) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "$(touch m)",
        ";touch m",
        "a b (c) [d] {e}",
        "-y",
        "a,b",
        'q"u\'o"te',
        "back\\",
        'end\\"',
        "ü 🌞",
        "null ",
        "[1",
        "1e3",
    ],
)
def test_text_needs_no_quotes_whatever_is_in_it(text: str, plain: str) -> None:
    assert load_recipe(Bike, plain, [f"label={text}"]).label == text


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=20))
def test_any_file_name_arrives_in_hydra_as_it_is(text: str) -> None:
    if text.startswith(("'", '"')) or "${" in text or text == "null":
        return
    word = _checked_override(Bike, f"label={text}")
    assert OverridesParser.create().parse_override(word).value() == text


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("wheel.spoke=3", "there is no key wheel.spoke; did you mean wheel.spokes?"),
        ("spokes=3", "there is no key spokes; did you mean wheel.spokes?"),
        ("wheel.spokes=many", "wheel.spokes='many' is not a whole number"),
        ("wheel.spokes=3,4", "wheel.spokes=3,4: give one value"),
        ("wheel.sizes=3,4", "a list is written wheel.sizes=[3,4]"),
        ("wheel.spokes=[", "the value cannot be read as a whole number"),
        ("wheel", "'wheel' is not key=value"),
        ("weight", "'weight' is not key=value: write weight=..."),
        ("+extra=3", "settings can be set, not added or removed"),
        ("~weight", "'~weight' is not key=value"),
        ("label=${oc.env:HOME}", "not compute or read the environment"),
        ("hydra.run.dir=/tmp", "there is no key hydra.run.dir"),
        ("_target_=os.system", "a recipe is data and cannot name code"),
        ("weight=nan", "weight=nan is not a number"),
    ],
)
def test_a_word_that_does_not_fit_is_answered_in_one_line(word: str, says: str, plain: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(Bike, plain, [word])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_written_recipe_reads_back_as_the_same(plain: str, tmp_path) -> None:
    bike = load_recipe(Bike, plain, ["wheel.colour=blue", "weight=1e-7", "label=yes: no # [", "shares={c: 0.1}"])
    path = write_recipe(bike, tmp_path / "deep" / "recipe.yaml")
    assert read_recipe(Bike, path) == bike
    assert "colour: blue" in to_yaml(bike)
    assert [entry.name for entry in path.parent.iterdir()] == ["recipe.yaml"]
