"""One recipe: what every verb is told, as a tree of the components' own settings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from curator.pipeline import CurateConfig
from energon_datasets.loader import DataConfig
from nemo_summer.config import load_recipe
from nemo_summer.diffusion.time import ObjectiveConfig
from nemo_summer.dit.config import DitConfig
from nemo_summer.ema.power import EmaConfig
from nemo_summer.encoders.text import TextConfig
from nemo_summer.encoders.video_vae import CodecConfig
from nemo_summer.optim.config import OptimConfig
from nemo_summer.parallel.groups import ParallelConfig
from nemo_summer.sampler.sample import SampleConfig
from nemo_summer.shapes import LATENT_STRIDE, PATCH, ClipShape, latent_frames
from nemo_summer.training.config import TrainConfig


@dataclass(kw_only=True)
class ViewConfig:
    """The page of `summer view`."""

    port: int = 8400
    """Port on this machine; 0 takes any that is free."""


@dataclass(kw_only=True)
class DemoConfig:
    """The footage that `summer demo` draws where it is given none."""

    videos: int = 14
    """How many videos are drawn."""
    seconds: float = 476.0
    """Length of all of them together."""


@dataclass(kw_only=True)
class Recipe:
    """Everything that a verb needs to know. A verb reads the parts that it names in `summer VERB --help`."""

    name: str = "toy"
    """Names the run and its folder: letters, digits, `.`, `_` and `-`."""
    input: str = ""
    """What the verb reads. curate, demo: the folder of footage; ema, convert, sample: another folder than in `out`."""
    out: str = ""
    """Folder to write to. Empty: out/NAME, for curate out/NAME/data, for demo out/demo."""
    seed: int = 0
    """Of everything random that has no seed of its own."""
    ranks: int = 0
    """Processes that train, on all nodes together. 0: one per GPU, and one per node where there is no GPU."""
    dry_run: bool = False
    """Says what would be done, with sizes and an estimate of the memory, and stops."""
    clip_id: str = ""
    """explain: the clip whose story is told."""

    clip: ClipShape = field(default_factory=ClipShape)
    curate: CurateConfig = field(default_factory=CurateConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    text: TextConfig = field(default_factory=TextConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: DitConfig = field(default_factory=DitConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    demo: DemoConfig = field(default_factory=DemoConfig)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", self.name):
            raise ValueError(f"name={self.name!r} names a folder: set name to letters, digits, `.`, `_` and `-`")
        if self.ranks < 0:
            raise ValueError(f"ranks={self.ranks} is no number of processes: set ranks=0 for one per GPU or node")
        if self.model.text_width != self.text.width:
            raise ValueError(
                f"the text encoder gives {self.text.width} numbers per caption token, the model takes "
                f"{self.model.text_width}: set model.text_width={self.text.width} or text.width={self.model.text_width}"
            )
        if self.data.budget < self.tokens_per_clip:
            raise ValueError(
                f"data.budget={self.data.budget} tokens do not hold one clip of clip.frames={self.clip.frames} frames, "
                f"which has {self.tokens_per_clip} tokens: set data.budget={self.tokens_per_clip} or shorter clips"
            )

    @property
    def token_grid(self) -> tuple[int, int, int]:
        """Tokens of the longest clip along time, rows and columns."""
        _, stride_h, stride_w = LATENT_STRIDE
        t = -(-latent_frames(self.clip.frames) // PATCH[0])
        return t, self.clip.height // stride_h // PATCH[1], self.clip.width // stride_w // PATCH[2]

    @property
    def tokens_per_clip(self) -> int:
        """Tokens of the longest clip."""
        t, h, w = self.token_grid
        return t * h * w


def recipe_for(verb: str, name_or_path: str | Path, overrides: list[str]) -> Recipe:
    """The recipe with the folders of `verb` filled in where it leaves them open."""
    recipe = load_recipe(Recipe, name_or_path, overrides)
    folder = f"out/{recipe.name}"
    data = recipe.data if recipe.data.path else replace(recipe.data, path=f"{folder}/data")
    where = {"curate": data.path, "demo": "out/demo"}.get(verb, folder)
    return replace(recipe, data=data, out=recipe.out or where)
