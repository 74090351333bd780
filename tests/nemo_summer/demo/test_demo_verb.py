"""The demo calls the verbs in the order of the way, each with the folder that the one before it wrote."""

import json
import shutil
from pathlib import Path

import pytest

from nemo_summer.recipe import recipe_for
from nemo_summer.verbs import demo

SMALL = ["demo.videos=1", "demo.seconds=4"]
MADE = {
    "curate": ["dataset"],
    "train": ["train"],
    "ema": ["ema"],
    "convert": ["export"],
    "sample": ["samples"],
}


@pytest.fixture(scope="module")
def whole(fabricated, tmp_path_factory) -> Path:
    """A finished folder, from which the stand-ins of the verbs copy what they would make."""
    out = Path(shutil.copytree(fabricated, tmp_path_factory.mktemp("whole") / "out"))
    (out / "export").mkdir()
    (out / "export" / "config.json").write_text("{}")
    return out


@pytest.fixture()
def verbs(monkeypatch, whole):
    """Stand-ins that remember how they were called."""
    calls: list[tuple[str, object]] = []

    def stand_in(name, recipe):
        calls.append((name, recipe))
        target = Path(recipe.out) if name in ("curate", "train") else Path(recipe.out) / MADE[name][0]
        shutil.copytree(whole / MADE[name][0], target, dirs_exist_ok=True)
        return 0

    def footage(folder, *settings, **more):
        shutil.copytree(whole / "footage", folder, dirs_exist_ok=True)

    monkeypatch.setattr(demo, "verb", stand_in)
    monkeypatch.setattr(demo, "write_footage", footage)
    return calls


def recipe(out: Path, *words: str):
    return recipe_for("demo", "toy", [f"out={out}", *SMALL, *words])


def test_each_verb_reads_what_the_one_before_it_wrote(tmp_path, verbs, capsys):
    out = tmp_path / "out"
    assert demo.run(recipe(out)) == 0
    found = dict(verbs)
    assert [name for name, _ in verbs] == ["curate", "train", "ema", "convert", "sample"]
    assert found["curate"].input == str(out / "footage") and found["curate"].out == str(out / "dataset")
    assert found["train"].out == str(out / "train") and found["train"].data.path == str(out / "dataset")
    assert found["ema"].input == str(out / "train" / "checkpoints") and found["ema"].data.path == str(out / "dataset")
    assert found["convert"].input == str(out / "ema") and found["sample"].input == str(out / "export")
    said = capsys.readouterr().err
    assert str(out / "report.html") in said and (out / "report.html").exists()
    assert all(f"[{n}/7]" in said for n in range(1, 8))


def test_the_second_run_does_nothing_but_the_page(tmp_path, verbs, capsys):
    assert demo.run(recipe(tmp_path)) == 0
    verbs.clear()
    assert demo.run(recipe(tmp_path)) == 0
    assert verbs == [] and "was done before" in capsys.readouterr().err


def test_other_training_settings_train_again_on_the_same_dataset(tmp_path, verbs):
    demo.run(recipe(tmp_path))
    verbs.clear()
    demo.run(recipe(tmp_path, "train.steps=7"))
    assert [name for name, _ in verbs] == ["train", "ema", "convert", "sample"]


def test_without_prompts_the_captions_of_held_out_clips_are_sampled(tmp_path, verbs, whole):
    demo.run(recipe(tmp_path, "sample.prompts=[]"))
    asked = dict(verbs)["sample"].sample.prompts
    rows = [json.loads(line) for line in (whole / "dataset" / "index" / "clips.jsonl").read_text().splitlines()]
    assert asked == [row["caption"]["detailed"] for row in rows if row["split"] == "val"]
    verbs.clear()
    demo.run(recipe(tmp_path, 'sample.prompts=["a red star"]'))
    assert [name for name, _ in verbs] == ["sample"] and verbs[0][1].sample.prompts == ["a red star"]


def test_a_way_that_breaks_off_leaves_a_page_and_the_verbs_exit_code(tmp_path, verbs, monkeypatch, capsys):
    works = demo.verb
    monkeypatch.setattr(demo, "verb", lambda name, told: 75 if name == "train" else works(name, told))
    assert demo.run(recipe(tmp_path)) == 75
    assert "the way broke off" in capsys.readouterr().err
    assert "Nothing has been trained yet." in (tmp_path / "report.html").read_text()
    monkeypatch.setattr(demo, "verb", works)
    verbs.clear()
    assert demo.run(recipe(tmp_path)) == 0
    assert [name for name, _ in verbs] == ["train", "ema", "convert", "sample"]


def test_an_error_of_a_verb_reaches_the_user_and_the_page_stands(tmp_path, verbs, monkeypatch):
    def fails(name, told):
        raise ValueError("no clip was kept: loosen curate.decide")

    monkeypatch.setattr(demo, "verb", fails)
    with pytest.raises(ValueError, match="loosen"):
        demo.run(recipe(tmp_path))
    assert (tmp_path / "report.html").exists()


def test_given_footage_is_taken_as_it_is_and_noticed_when_it_changes(tmp_path, verbs):
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.mkdir()
    (mine / "film.mp4").write_bytes(b"film")
    words = (f"input={mine}",)
    demo.run(recipe(out, *words))
    assert dict(verbs)["curate"].input == str(mine) and not (out / "footage").exists()
    verbs.clear()
    demo.run(recipe(out, *words))
    assert verbs == []
    (mine / "second.mp4").write_bytes(b"film")
    demo.run(recipe(out, *words))
    assert [name for name, _ in verbs][:2] == ["curate", "train"]
    assert (mine / "film.mp4").read_bytes() == b"film"


def test_a_folder_of_footage_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="set footage= to one"):
        demo.run(recipe(tmp_path / "out", f"input={tmp_path / 'nowhere'}"))


def test_the_plan_names_every_phase_and_writes_nothing(tmp_path, verbs, capsys):
    lines = demo.plan(recipe(tmp_path / "out"))
    assert [line.split()[0] for line in lines[1:]] == [
        "footage",
        "curate",
        "train",
        "ema",
        "convert",
        "sample",
        "report",
    ]
    assert all("to do" in line for line in lines[1:]) and not (tmp_path / "out").exists()
    demo.run(recipe(tmp_path / "out"))
    assert sum("left out" in line for line in demo.plan(recipe(tmp_path / "out"))) == 6
