"""What `summer` answers: help, settings, and one line for whatever is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nemo_summer import cli
from nemo_summer.config import recipe_names
from nemo_summer.config.keys import keys_of
from nemo_summer.recipe import Recipe, recipe_for


def said(capsys, *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    out, err = capsys.readouterr()
    return code, out, err


def test_help_answers_at_once_and_without_torch() -> None:
    code = "import sys; from nemo_summer.cli import main; main(['--help']); print('torch' in sys.modules)"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert time.perf_counter() - began < 1.5
    assert all(f"  {verb} " in done.stdout for verb in cli.VERBS)


def test_every_verb_is_a_module_with_a_run() -> None:
    folder = Path(cli.__file__).parent / "verbs"
    for verb in cli.VERBS:
        assert "def run(" in (folder / f"{verb}.py").read_text(), verb


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_help_of_a_verb_explains_settings_that_exist(verb: str, capsys) -> None:
    names = {key.name for key in keys_of(Recipe)}
    for wanted in (*cli.VERBS[verb].keys, *cli.VERBS[verb].meaning):
        assert any(name == wanted or (wanted.endswith(".") and name.startswith(wanted)) for name in names), wanted
    code, out, err = said(capsys, verb, "--help")
    assert (code, err) == (0, "")
    assert all(len(line) <= 120 for line in out.splitlines())


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_examples_of_the_help_are_commands_that_compose(verb: str) -> None:
    import shlex

    for example in cli.VERBS[verb].examples:
        program, *words = shlex.split(example)
        command = cli.read_words(words)
        assert (program, command.verb) == ("summer", verb)
        cli.composed(command)


@pytest.mark.parametrize("name", recipe_names())
def test_a_printed_recipe_is_a_recipe(name: str, capsys, tmp_path) -> None:
    code, out, _ = said(capsys, "train", f"recipe={name}", "--cfg", "data=/somewhere")
    assert code == 0
    (tmp_path / "again.yaml").write_text(out)
    assert said(capsys, "train", f"recipe={tmp_path}/again.yaml", "--cfg")[1] == out
    assert yaml.safe_load(out)["name"] == name


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_says_command_time_and_result_at_its_head(name: str) -> None:
    head = (Path(cli.__file__).parent / "recipes" / f"{name}.yaml").read_text().split("name:")[0]
    assert all(word in head for word in ("#   command  ", "#   time     ", "#   result   "))


def test_recipes_use_the_sizes_that_the_model_knows_by_name() -> None:
    from nemo_summer.dit.presets import preset

    for recipe, size in {"toy": "toy", "30m": "30m", "summer-1b": "1b", "summer-22b": "22b"}.items():
        assert replace(recipe_for("train", recipe, ["data.path=x"]).model, linear_skip=False) == preset(size)


def test_a_clip_of_the_paper_has_9680_tokens() -> None:
    recipe = recipe_for("train", "summer-22b", ["data.path=x"])
    assert (recipe.token_grid, recipe.tokens_per_clip) == ((11, 22, 40), 9680)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "there is no verb 'trian': did you mean train?"),
        (["recipe=toy"], "the verb comes first"),
        (["train", "--cgf"], "there is no option --cgf: did you mean --cfg?"),
        (["train", "--dry-run"], "settings are written without dashes: dry_run=true"),
        (["train", "recipe=toi"], "there is no recipe 'toi': did you mean toy?"),
        (["train", "recipe=/no/such.yaml"], "there is no recipe file /no/such.yaml"),
        (["train", "model.widht=3"], "there is no key model.widht; did you mean model.width?"),
        (["train", "train.step=3"], "did you mean train.steps?"),
        (["train", "model=33b"], "no model is called '33b'"),
        (["train", "model.width=130"], "model.width=130 does not divide into 4 heads"),
        (["train", "text.width=32"], "set model.text_width=32 or text.width=64"),
        (["train", "data.budget=10"], "set data.budget=224"),
        (["train", "name=../up"], "name='../up' names a folder"),
        (["train", "codec.kind=vae"], "codec.kind='vae' is not one of embedded, wan"),
        (["train", "stray"], "'stray' is not key=value"),
        (["explain", "a", "b"], "one clip_id at a time"),
        (["sample", "sample.prompts=[a"], """like sample.prompts='["one","two"]'"""),
        (["curate", "out=${oc.env:HOME}"], "not compute or read the environment"),
    ],
)
def test_a_mistake_is_answered_in_one_line_with_code_2(words: list[str], says: str, capsys) -> None:
    code, out, err = said(capsys, *words)
    assert (code, out) == (2, "")
    assert says in err
    assert err.startswith("summer: ") and err.count("\n") == 1


def test_the_traceback_comes_where_it_is_asked_for(capsys, monkeypatch) -> None:
    monkeypatch.setenv("SUMMER_TRACEBACK", "1")
    assert "Traceback" in said(capsys, "train", "model.widht=3")[2]


def test_a_key_of_a_stranger_cannot_steer_the_terminal(capsys, tmp_path) -> None:
    (tmp_path / "odd.yaml").write_text('"\\e[2Jgone": 1\n')
    _, _, err = said(capsys, "train", f"recipe={tmp_path}/odd.yaml")
    assert "\x1b" not in err and "?[2Jgone" in err


def test_short_names_and_folders_are_filled_in() -> None:
    command = cli.read_words(["train", "data=/data/clips", "model=toy", "out=~/run"])
    recipe = recipe_for("train", "toy", command.overrides)
    assert (recipe.data.path, recipe.out) == ("/data/clips", os.path.expanduser("~/run"))
    assert recipe_for("curate", "toy", []).out == recipe_for("train", "toy", []).data.path == "out/toy/data"
    assert recipe_for("train", "toy", ["name=mine"]).out == "out/mine"
    assert cli.read_words(["demo", "footage=/f"]).overrides == ["input=/f"]
    assert cli.read_words(["explain", "clip-1"]).overrides == ["clip_id=clip-1"]


def test_fields_of_settings_all_have_a_type() -> None:
    """A field without a type annotation is silently not a field."""
    import ast
    import inspect
    import typing

    for name, kind in typing.get_type_hints(Recipe).items():
        if hasattr(kind, "__dataclass_fields__"):
            body = ast.parse(inspect.getsource(kind)).body[0].body
            assert not [ast.unparse(line) for line in body if isinstance(line, ast.Assign)], name
