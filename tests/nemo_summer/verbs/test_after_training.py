"""ema, convert and sample on a run of two checkpoints, without any training; explain on a dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import load_file

from nemo_summer import cli
from nemo_summer.checkpoints import layout
from nemo_summer.checkpoints.layout import Manifest
from nemo_summer.config import write_recipe
from nemo_summer.encoders.video_vae import LinearVae
from nemo_summer.recipe import Recipe, recipe_for
from tests.energon_datasets.tiny_dataset import write_tiny_dataset
from tests.nemo_summer.checkpoints.folders import seals_of

SIZES = ["model.width=16", "model.heads=2", "model.layers=1", "model.time_width=8"]
SMALL = [*SIZES, "model.text_width=8", "text.width=8", "clip.frames=9", "clip.height=32", "clip.width=48"]


def weights_at(recipe: Recipe, step: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(step)
    state = recipe.model.build().state_dict()
    return {name: torch.randn(tensor.shape, generator=rng) * 0.1 for name, tensor in state.items()}


def write_checkpoint(recipe: Recipe, folder: Path, step: int) -> None:
    path = folder / layout.folder_of(step)
    for part in (layout.WEIGHTS, layout.OPTIMIZER):
        writer = dcp.FileSystemWriter(path / part, sync_files=False)
        dcp.save(weights_at(recipe, step), storage_writer=writer, no_dist=True)
    layout.write_flushed(path / layout.EXTRA, b"{}")
    ranks = {"world": 1, "data": 1, "tensor": 1, "pipeline": 1, "context": 1}
    layout.write_manifest(path, Manifest(step, layout.FULL, ranks, {}, seals_of(path)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a run: a dataset with a codec, two checkpoints, the recipe as `summer train` writes it."""
    out = tmp_path_factory.mktemp("run")
    write_tiny_dataset(out / "data", clips=12)
    rng = torch.Generator().manual_seed(0)
    LinearVae.fit(torch.rand(3, 9, 32, 48, generator=rng) * 2 - 1 for _ in range(6)).save(out / "data/codec")
    recipe = recipe_for("train", "toy", [*SMALL, f"data.path={out}/data", f"out={out}"])
    for step in (10, 20):
        write_checkpoint(recipe, out / "checkpoints", step)
    write_recipe(recipe, out / "recipe.yaml")
    return out


def test_a_run_goes_from_checkpoints_to_mp4s_with_its_own_recipe(run: Path, capsys) -> None:
    assert cli.main(["ema", f"out={run}", "ema.gammas=[1,4]"]) == 0, capsys.readouterr().err
    told = json.loads((run / "ema/average.json").read_text())
    assert told["loss"] == min(trial["loss"] for trial in told["table"]) and len(told["table"]) == 2
    recipe = recipe_for("ema", str(run / "recipe.yaml"), [])
    early, late, gamma = weights_at(recipe, 10), weights_at(recipe, 20), told["gamma"]
    share = 20**gamma / (10**gamma + 20**gamma)
    for name, tensor in load_file(run / "ema/weights.safetensors").items():
        torch.testing.assert_close(tensor, (1 - share) * early[name] + share * late[name], atol=1e-6, rtol=1e-5)

    assert cli.main(["convert", f"out={run}"]) == 0, capsys.readouterr().err
    exported = json.loads((run / "export/config.json").read_text())
    assert exported["extra"]["source"]["gamma"] == told["gamma"]
    assert exported["extra"]["clip"] == {"frames": 9, "height": 32, "width": 48, "fps": 24}

    prompts = ["a red ball", """it's "$(touch m)", \\"""]
    words = [*prompts, "sample.steps=2", "sample.guidance=1", f"input={run}/export", f"out={run}/other"]
    assert cli.main(["sample", *words]) == 0, capsys.readouterr().err
    made = json.loads((run / "other/samples/samples.json").read_text())["samples"]
    assert [sample["prompt"] for sample in made] == prompts
    files = sorted((run / "other/samples").glob("*.mp4"))
    assert len(files) == 2
    import av

    with av.open(str(files[0])) as video:
        assert (video.streams.video[0].height, video.streams.video[0].width, video.streams.video[0].frames) == (
            32,
            48,
            9,
        )


def test_an_average_of_which_a_byte_changed_is_not_exported(run: Path, tmp_path: Path, capsys) -> None:
    out = shutil.copytree(run, tmp_path / "run")
    assert cli.main(["ema", f"out={out}", "ema.gammas=[4]"]) == 0, capsys.readouterr().err
    file = out / "ema/weights.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert cli.main(["convert", f"out={out}"]) == 2
    assert f"{file} is not what was written" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_average(run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def full(*args: object) -> None:
        raise SafetensorError("No space left on device")

    out = shutil.copytree(run, tmp_path / "run")
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    assert cli.main(["ema", f"out={out}", "ema.gammas=[4]"]) == 2
    assert "ema/weights.safetensors was not written (No space left on device)" in capsys.readouterr().err
    assert not (out / "ema/average.json").exists()


def test_convert_takes_the_newest_checkpoint_where_there_is_no_average_or_what_it_is_told(run: Path) -> None:
    from nemo_summer.verbs.convert import source_of

    def taken(*words: str) -> dict:
        return source_of(recipe_for("convert", str(run / "recipe.yaml"), list(words))).about

    assert taken(f"input={run}/checkpoints")["step"] == 20
    assert taken(f"input={run}/checkpoints/step_00000010")["step"] == 10


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ema", "out=/nowhere"], "holds no checkpoint to average (train first): set out= or input="),
        (["ema", "ema.first_step=99"], "all 2 are before ema.first_step=99"),
        (["convert", "out=/nowhere"], "holds no average and no whole checkpoint"),
        (["convert", "data=/nowhere"], "there is no codec in /nowhere/codec"),
        (["convert", "model.width=32"], "not fit model.width=32"),
        (["sample", "out=/nowhere"], "is no exported model: run summer convert out=/nowhere"),
        (["explain"], "which clip?"),
        (["explain", "clip_9999"], "has no clip 'clip_9999' among 15"),
        (["explain", "clip"], "12 clips begin with 'clip': clip_0000-0, clip_0001-0, clip_0002-0, ..."),
        (["explain", "clip_0000-0", "data=/nowhere"], "/nowhere is no dataset"),
        (["curate"], "no footage to curate: set input=FOLDER"),
        (["curate", "input=/nowhere"], "input=/nowhere is no folder"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(words: list[str], says: str, run: Path, capsys) -> None:
    here = [] if any(word.startswith("out=") for word in words) else [f"out={run}"]
    data = [] if any(word.startswith("data=") for word in words) else [f"data={run}/data"]
    assert cli.main([*words, *here, *data]) == 2
    out, err = capsys.readouterr()
    assert says in err and err.count("\n") == 1, out + err


def test_the_story_of_a_kept_clip_ends_in_its_shard(run: Path, capsys) -> None:
    assert cli.main(["explain", "clip_0003-0", f"data={run}/data"]) == 0
    told = capsys.readouterr().out
    index = (run / "data/index/clips.jsonl").read_text().splitlines()
    entry = next(row for row in map(json.loads, index) if row["key"] == "clip_0003-0")
    for fact in (entry["video"], f"second {entry['start_s']:.2f}", entry["sha256"]["latent"], entry["shard"]):
        assert fact in told
    assert f"split         {entry['split']}" in told


def test_the_story_of_a_dropped_clip_says_by_which_rule(run: Path, capsys) -> None:
    from energon_datasets.columns import read_columns

    rows = read_columns(run / "data/clips.parquet").to_pylist()
    row = next(row for row in rows if row["status"] == "dropped")
    assert cli.main(["explain", row["clip_id"], f"data={run}/data"]) == 0
    told = capsys.readouterr().out
    assert f"dropped by    {row['dropped_by']}: {row['why_dropped']}" in told
    assert "sha256" not in told


def test_an_exported_model_cannot_smuggle_settings(run: Path, tmp_path: Path, capsys) -> None:
    from nemo_summer.config.composed import object_of
    from nemo_summer.encoders.text import TextConfig

    for values, says in (
        ({"_target_": "os.system"}, "cannot name code"),
        ({"path": "${oc.env:HOME}"}, "not compute or read the environment"),
        ({"widht": 3}, "did you mean width?"),
        ("text", "wanted is a group"),
    ):
        with pytest.raises(ValueError, match=r"config\.json") as caught:
            object_of(TextConfig, values, "config.json")
        assert says in str(caught.value)


@pytest.mark.parametrize("verb", ["train", "ema", "convert", "view", "explain", "doctor", "demo"])
def test_a_dry_run_writes_nothing(verb: str, run: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "new" if verb == "demo" else run
    before = sorted(run.rglob("*"))
    words = [verb, "dry_run=true", f"out={out}", f"data={run}/data"]
    assert cli.main([*words, "ranks=1"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip()
    assert sorted(run.rglob("*")) == before and not list(tmp_path.iterdir())


def test_a_plan_of_training_has_the_papers_numbers(capsys) -> None:
    assert cli.main(["train", "recipe=summer-22b", "dry_run=true", "data=/somewhere", "ranks=1"]) == 0
    told = capsys.readouterr().out
    assert "11x22x40 = 9,680 tokens" in told and "21,668,280,988 parameters" in told
