import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nemo_summer.checkpoints.export import read_model, write_model
from nemo_summer.checkpoints.layout import CheckpointError
from nemo_summer.dit.config import DitConfig
from tests.nemo_summer.checkpoints.folders import make_checkpoint
from tests.nemo_summer.dit.packs import fill_zeros, random_pack

CFG = DitConfig(width=32, heads=2, layers=2, text_width=8, time_width=16, in_channels=12)
EXTRA = {"text": {"kind": "embedded", "width": 8}, "step": 40}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    model = CFG.build()
    fill_zeros(model)
    codec = tmp_path / "dataset" / "codec"
    codec.mkdir(parents=True)
    (codec / "config.json").write_text("{}")
    return write_model(tmp_path / "model", model.state_dict(), CFG, EXTRA, codec=codec)


def test_a_model_comes_back_with_the_same_output_to_the_bit(exported: Path) -> None:
    model = CFG.build()
    fill_zeros(model)
    again, extra = read_model(exported)
    pack = random_pack([(2, 2, 3)], [4], channels=12, text_width=8)
    with torch.no_grad():
        found, wanted = (m(pack.latents_SE, pack.uniform_N, pack) for m in (again, model.eval()))
    assert wanted.abs().max() > 0 and torch.equal(found, wanted)
    assert extra == EXTRA and again.cfg == CFG
    assert (exported / "codec" / "config.json").read_text() == "{}"


def test_reading_needs_no_megatron(exported: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 3)
    code = (
        "import sys; from pathlib import Path\n"
        "from nemo_summer.checkpoints.export import read_model\n"
        "from nemo_summer.checkpoints.load import newest, read_weights\n"
        f"read_model(Path({str(exported)!r})); read_weights(newest(Path({str(checkpoint.parent)!r})))\n"
        "assert 'megatron' not in sys.modules, 'megatron was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_exporting_again_replaces_the_model_but_nothing_else(exported: Path, tmp_path: Path) -> None:
    weights = {name: torch.zeros_like(tensor) for name, tensor in CFG.build().state_dict().items()}
    write_model(exported, weights, CFG)
    model, extra = read_model(exported)
    assert extra == {} and not any(p.any() for p in model.parameters()) and not (exported / "codec").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(CheckpointError, match=r"mine is not empty and holds no exported model: give another folder"):
        write_model(tmp_path / "mine", weights, CFG)
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_a_write_that_fails_leaves_the_old_export(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(CheckpointError, match=r"was not exported to .*model: .*No space left on device"):
        write_model(exported, CFG.build().state_dict(), CFG, codec=exported)
    assert read_model(exported)[1] == EXTRA
    assert [path.name for path in exported.parent.iterdir() if path.name.startswith(".tmp")] == []


def test_weights_of_another_model_are_refused_by_name_and_size(tmp_path: Path) -> None:
    weights = CFG.build().state_dict()
    weights["final_proj.bias"] = torch.zeros(13)
    weights["extra.weight"] = weights.pop("patch_proj.weight")
    with pytest.raises(CheckpointError) as caught:
        write_model(tmp_path / "model", weights, CFG)
    said = str(caught.value)
    assert "missing: patch_proj.weight;" in said and "not in the model: extra.weight;" in said
    assert "final_proj.bias (13,) instead of (12,)" in said and not (tmp_path / "model").exists()


def test_a_damaged_export_is_named(exported: Path) -> None:
    file = exported / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"model.safetensors is not what was exported"):
        read_model(exported)
    config = json.loads((exported / "config.json").read_text())
    del config["sha256"]  # someone else's export may have none
    (exported / "config.json").write_text(json.dumps(config))
    file.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read"):
        read_model(exported)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"has no model.safetensors"):
        read_model(exported)


def test_a_tensor_of_another_size_is_named(exported: Path) -> None:
    weights = load_file(exported / "model.safetensors")
    save_file({**weights, "blocks.0.value_mix": torch.zeros(3)}, exported / "model.safetensors")
    config = json.loads((exported / "config.json").read_text())
    (exported / "config.json").write_text(json.dumps({**config, "sha256": {}}))
    with pytest.raises(CheckpointError, match=r"of another size: blocks.0.value_mix \(3,\) instead of \(2,\)"):
        read_model(exported)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (None, "it has no config.json"),
        ("{", "cannot be read"),
        ("[]", "has format list"),
        ('{"format": 7}', "has format 7, this version reads 1"),
        ('{"format": 1}', 'has no usable "model"'),
        ('{"format": 1, "model": {"widht": 3}}', "widht"),
        ('{"format": 1, "model": {"width": 33, "heads": 2}}', "model.width=33 does not divide"),
        ('{"format": 1, "model": {"width": "wide"}}', "width"),
        ('{"format": 1, "model": {"width": 1.5}}', "width"),
        ('{"format": 1, "model": {"mlp_ratio": Infinity}}', "mlp_ratio"),
        ('{"format": 1, "model": {"layers": 1000000000}}', "holds"),
        ('{"format": 1, "model": {"width": 1099511627776}}', "holds"),
        ('{"format": 1, "model": [3]}', 'no usable "model"'),
        ('{"format": 1, "model": {}, "sha256": "x"}', 'a str as "sha256"'),
        ('{"format": 1, "model": {}, "extra": [1]}', 'a list as "extra"'),
    ],
)
def test_a_config_that_cannot_be_used_is_named(exported: Path, text: str | None, finding: str) -> None:
    config = exported / "config.json"
    config.unlink() if text is None else config.write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read_model(exported)
    assert finding in str(caught.value) and str(exported) in str(caught.value)
