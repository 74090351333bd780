"""`summer convert`: a checkpoint or an average as one file that `summer sample` reads, without megatron."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_summer.verbs.run_folder import AVERAGE, CHECKPOINTS, EMA, EXPORT, WEIGHTS, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from nemo_summer.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Source:
    """Trained weights and where they are from."""

    path: Path
    about: dict[str, Any]
    """an average's exponent and loss, or a checkpoint's step"""

    def read(self) -> dict[str, Tensor]:
        """The weights by name. ValueError where they are damaged."""
        if "gamma" in self.about:
            return _read_average(self.path / WEIGHTS, self.about.get("sha256"))
        from nemo_summer.checkpoints.load import read_weights

        return read_weights(self.path)


def run(recipe: Recipe) -> int:
    """Writes OUT/export."""
    from nemo_summer.checkpoints.export import write_model

    source = source_of(recipe)
    codec = Path(recipe.data.path) / "codec"
    if not (codec / "config.json").is_file():
        raise ValueError(f"there is no codec in {codec}, without which latents cannot be shown: set data=DATASET")
    extra = {
        "name": recipe.name,
        "source": {"path": str(source.path), **source.about},
        **{part: _plain(asdict(getattr(recipe, part))) for part in ("clip", "text", "objective")},
    }
    folder = write_model(Path(recipe.out) / EXPORT, source.read(), recipe.model, extra, codec=codec)
    count = recipe.model.parameter_count()
    print(f"{folder}: {count:,} parameters from {source.path}. Next: summer sample out={recipe.out}")
    return 0


def source_of(recipe: Recipe) -> Source:
    """What `input` names, else the run's average, else its newest whole checkpoint. ValueError where there is none."""
    folder = Path(recipe.input or recipe.out)
    for place in (folder, folder / EMA):
        if (place / AVERAGE).is_file():
            return Source(place, {key: value for key, value in read_json(place / AVERAGE).items() if key != "table"})
    if (folder / "manifest.json").is_file() and folder.name.startswith("step_"):
        return _checkpoint(folder)
    from nemo_summer.checkpoints.load import newest

    for place in (folder / CHECKPOINTS, folder):
        if place.is_dir() and (path := newest(place)) is not None:
            return _checkpoint(path)
    raise ValueError(f"{folder} holds no average and no whole checkpoint: set out= or input= to a run's folder")


def _checkpoint(path: Path) -> Source:
    from nemo_summer.ema.power import step_of

    return Source(path, {"step": step_of(path)})


def _read_average(path: Path, sha256: str | None) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from nemo_summer.checkpoints.layout import seal

    try:
        if sha256 is not None and seal(path).sha256 != sha256:
            raise ValueError(f"{path} is not what was written: {AVERAGE} has another sha256; run summer ema again")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error}): run summer ema again") from None


def _plain(value: Any) -> Any:
    """Settings as JSON can hold them."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value.value if isinstance(value, Enum) else value
