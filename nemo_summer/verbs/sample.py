"""`summer sample`: prompts in, mp4s out, from an exported model; no megatron."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nemo_summer.verbs.run_folder import EXPORT, SAMPLES

if TYPE_CHECKING:
    from nemo_summer.recipe import Recipe

T = TypeVar("T")


def run(recipe: Recipe) -> int:
    """Writes OUT/samples and names each file with its prompt."""
    import torch

    from nemo_summer.checkpoints.export import CODEC, read_model
    from nemo_summer.diffusion.time import ObjectiveConfig
    from nemo_summer.encoders.text import TextConfig
    from nemo_summer.encoders.video_vae import load_codec
    from nemo_summer.sampler.sample import sample_videos

    folder = export_of(recipe)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, extra = read_model(folder)
    made = sample_videos(
        model.to(device),
        _settings(TextConfig, extra, "text", folder).build(device),
        load_codec(folder / CODEC, device=device),
        recipe.clip,
        recipe.sample,
        _settings(ObjectiveConfig, extra, "objective", folder),
        Path(recipe.out) / SAMPLES,
        device=device,
    )
    for video in made:
        print(f"{Path(recipe.out) / SAMPLES / video.file}  {video.prompt!r}")
    return 0


def export_of(recipe: Recipe) -> Path:
    """The folder of the exported model. ValueError where there is none."""
    folder = Path(recipe.input) if recipe.input else Path(recipe.out) / EXPORT
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} is no exported model: run summer convert out={recipe.out}, or set input=EXPORT_FOLDER"
        )
    return folder


def _settings(kind: type[T], extra: dict[str, Any], name: str, folder: Path) -> T:
    """Settings that the export carries, checked like a recipe's."""
    from nemo_summer.config.composed import object_of

    return object_of(kind, extra.get(name, {}), f'{folder / "config.json"} "{name}"')
