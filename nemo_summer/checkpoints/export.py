"""The model as one safetensors file beside a config.json, for sampling and for others; no megatron, no pickle.

DIR/model.safetensors    weights by the names of nemo_summer/dit
DIR/config.json          format, sizes of the model, sha256 of the weights, what the caller adds (text, clip)
DIR/codec/               the video codec's folder, copied, where one was given
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nemo_summer.checkpoints import layout
from nemo_summer.checkpoints.layout import CheckpointError
from nemo_summer.config.composed import object_of
from nemo_summer.dit.config import DitConfig
from nemo_summer.dit.model import Dit

FORMAT = 1
MODEL, CONFIG, CODEC = "model.safetensors", "config.json", "codec"


def write_model(
    folder: Path,
    weights: Mapping[str, Tensor],
    dit_cfg: DitConfig,
    extra: Mapping[str, Any] | None = None,
    codec: Path | None = None,
) -> Path:
    """Writes `folder` whole or not at all, and gives it back; `extra` is plain JSON that `read_model` gives back.

    CheckpointError where the weights are not those of a model of `dit_cfg`, or `folder` holds something else.
    """
    folder = Path(folder)
    check_weights(weights, dit_cfg, "what is to be exported")
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder} is not empty and holds no exported model: give another folder to write to")
    temporary = folder.with_name(f".tmp_{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary / MODEL)
        if codec is not None:
            shutil.copytree(codec, temporary / CODEC)
        for file in (path for path in temporary.rglob("*") if path.is_file()):
            layout.flush_file(file)
        sha256 = layout.seal(temporary / MODEL).sha256
        config = {"format": FORMAT, "model": asdict(dit_cfg), "sha256": {MODEL: sha256}, "extra": dict(extra or {})}
        layout.write_flushed(temporary / CONFIG, json.dumps(config, indent=1).encode())
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"the model was not exported to {folder}: {error}") from error
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    layout.flush_folder(folder.parent)
    return folder


def read_model(folder: Path) -> tuple[Dit, dict[str, Any]]:
    """The model on plain torch layers, ready to sample, and the `extra` of the export.

    CheckpointError, naming the file, where something is missing, damaged or of another size than config.json says.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    dit_cfg = _sizes_in(config, folder / CONFIG)
    extra, sha256 = (_group(config, name, folder / CONFIG) for name in ("extra", "sha256"))
    weights = _read_tensors(folder / MODEL, sha256.get(MODEL))
    _check_count(weights, dit_cfg, folder)
    check_weights(weights, dit_cfg, str(folder / MODEL))
    model = dit_cfg.build()
    model.load_state_dict(weights)
    return model.eval(), extra


def _sizes_in(config: Mapping[str, Any], file: Path) -> DitConfig:
    try:
        return object_of(DitConfig, config["model"], f'"model" of {file}')
    except (KeyError, ValueError) as error:
        known = ", ".join(field.name for field in fields(DitConfig))
        raise CheckpointError(f'{file} has no usable "model" ({error}); it may hold {known}') from None


def _group(config: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    found = config.get(name, {})
    if not isinstance(found, dict):
        raise CheckpointError(f'{file} holds a {type(found).__name__} as "{name}", wanted is an object')
    return found


def _check_count(weights: Mapping[str, Tensor], dit_cfg: DitConfig, folder: Path) -> None:
    """Before anything is built: a config of a million layers must cost nothing. Smaller lies `check_weights` names."""
    told, held = dit_cfg.parameter_count(), sum(tensor.numel() for tensor in weights.values())
    if told > 2 * held:
        raise CheckpointError(f"{folder / CONFIG} tells of a model of {told:,} numbers, {MODEL} holds {held:,}")


def check_weights(weights: Mapping[str, Tensor], dit_cfg: DitConfig, where: str) -> None:
    """CheckpointError where names or sizes are not those of a model of `dit_cfg`; says the first three."""
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in _empty_model(dit_cfg).state_dict().items()}
    missing, unknown = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    sizes = [
        f"{name} {tuple(weights[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    findings = [("missing", missing), ("not in the model", unknown), ("of another size", sizes)]
    if told := "; ".join(f"{what}: {_first(items)}" for what, items in findings if items):
        raise CheckpointError(
            f"{where} does not fit model.width={dit_cfg.width} layers={dit_cfg.layers} heads={dit_cfg.heads}: {told}"
        )


def _empty_model(dit_cfg: DitConfig) -> Dit:
    from nemo_summer.dit.linear import PlainLinears

    return Dit(dit_cfg, PlainLinears())


def _first(items: list[str], most: int = 3) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{file.parent} is no exported model: it has no {CONFIG}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{file} cannot be read ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{file} has format {found}, this version reads {FORMAT}")
    return config


def _read_tensors(file: Path, sha256: str | None) -> dict[str, Tensor]:
    try:
        if sha256 is not None and layout.seal(file).sha256 != sha256:
            raise CheckpointError(f"{file} is not what was exported: its sha256 differs from config.json's")
        return load_file(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file.parent} is no exported model: it has no {MODEL}") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read ({error})") from None
