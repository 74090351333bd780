"""From prompts to latents to mp4s.

S tokens of a pack, N clips in it, E numbers per token, C T H W latents of a clip.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from energon_datasets.batch import PackedBatch
from energon_datasets.tokens import positions, token_grid, unpatchify
from nemo_summer.diffusion.noise import noise_for
from nemo_summer.diffusion.time import ObjectiveConfig, shift_of, time_grid
from nemo_summer.encoders.text import TextEncoder
from nemo_summer.encoders.video_vae import VideoCodec
from nemo_summer.mp4.write import write_mp4
from nemo_summer.sampler.guidance import guide
from nemo_summer.sampler.solvers import Velocity, euler_step, heun_step
from nemo_summer.shapes import LATENT_CHANNELS, LATENT_STRIDE, PATCH, ClipShape, latent_frames
from nemo_summer.whole_files import write_whole

Model = Callable[[Tensor, Tensor, PackedBatch], Tensor]
"""(noisy_SE, t_N, pack) -> v_SE."""


class SolverKind(Enum):
    heun = "heun"
    euler = "euler"


STEPS = {SolverKind.heun: heun_step, SolverKind.euler: euler_step}


@dataclass(kw_only=True)
class SampleConfig:
    """How videos are made from prompts."""

    prompts: list[str] = field(default_factory=list)
    """One video per prompt; a prompt that is named twice gives two different videos."""
    steps: int = 32
    """Steps from noise to video; heun calls the model twice per step, guidance doubles that again."""
    solver: SolverKind = SolverKind.heun
    guidance: float = 7.5
    """1 is no guidance, 0 ignores the prompt."""
    seed: int = 0
    videos_at_once: int = 8
    """Videos that are made in one pack: more is faster and takes more memory."""
    crf: int = 18
    """Quality of the mp4, 0 (lossless) to 51; 18 looks like the original."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.videos_at_once < 1:
            raise ValueError(
                f"sample.steps={self.steps} and sample.videos_at_once={self.videos_at_once} must be 1 or more"
            )


@dataclass(frozen=True, slots=True)
class Sample:
    """One video that was made, and how to make it again."""

    prompt: str
    seed: int
    file: str


def latent_shape(clip: ClipShape) -> tuple[int, int, int]:
    """Latent frames, rows and columns of the longest clip of the recipe."""
    return latent_frames(clip.frames), clip.height // LATENT_STRIDE[1], clip.width // LATENT_STRIDE[2]


def clip_seeds(seed: int, prompts: Sequence[str]) -> list[int]:
    """A seed for each prompt, from its words and how often it came before: not from its place in the list."""
    seen: Counter[str] = Counter()
    found = []
    for prompt in prompts:
        key = f"{seed}/{seen[prompt]}/{prompt}".encode(errors="surrogatepass")
        found.append(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1)
        seen[prompt] += 1
    return found


def sample_pack(text: Sequence[Tensor], shape_THW: tuple[int, int, int], seeds: Sequence[int], fps: int) -> PackedBatch:
    """A pack of clips that are still to be made: captions, places and seeds, latents of zeros."""
    grid = token_grid((LATENT_CHANNELS, *shape_THW))
    clips, tokens = len(text), grid[0] * grid[1] * grid[2]
    return PackedBatch(
        latents_SE=torch.zeros(clips * tokens, LATENT_CHANNELS * PATCH[0] * PATCH[1] * PATCH[2]),
        position_S3=positions(grid).repeat(clips, 1),
        video_ends_N=torch.arange(1, clips + 1) * tokens,
        text_LD=torch.cat(list(text)),
        text_ends_N=torch.tensor([len(one) for one in text]).cumsum(0),
        uniform_N=torch.zeros(clips, dtype=torch.float64),
        seed_N=torch.tensor(seeds),
        grid_N3=torch.tensor([grid] * clips),
        latent_frames_N=torch.full((clips,), shape_THW[0]),
        fps_N=torch.full((clips,), float(fps)),
        loss_weight_N=torch.ones(clips),
        clip_ids=tuple(f"sample_{k:04d}" for k in range(clips)),
    )


def guided_velocity(model: Model, pack: PackedBatch, empty_LD: Tensor, scale: float) -> Velocity:
    """v(x, t) of a pack at one noise level for all clips; guided by a second call with empty captions."""
    clips = len(pack.clip_ids)
    ends_N = (torch.arange(1, clips + 1) * len(empty_LD)).to(pack.text_ends_N)
    bare = replace(pack, text_LD=empty_LD.to(pack.text_LD).repeat(clips, 1), text_ends_N=ends_N)

    def v(x_SE: Tensor, t: float) -> Tensor:
        t_N = torch.full((clips,), t, dtype=torch.float32, device=x_SE.device)
        if scale == 0:
            return model(x_SE, t_N, bare)
        cond_SE = model(x_SE, t_N, pack)
        return cond_SE if scale == 1 else guide(cond_SE, model(x_SE, t_N, bare), scale)

    return v


@torch.no_grad()
def sample_latents(
    model: Model,
    text_encoder: TextEncoder,
    prompts: Sequence[str],
    shape_THW: tuple[int, int, int],
    cfg: SampleConfig,
    objective: ObjectiveConfig,
    *,
    fps: int = 24,
    device: torch.device | str = "cpu",
    after_step: Callable[[], None] = lambda: None,
) -> Iterator[Tensor]:
    """One z_CTHW per prompt, float32, on `device`, pack by pack, in the order of the prompts.

    A prompt gives the same video whatever else is sampled beside it (up to the rounding of larger matrix products).
    """
    (empty_LD,) = text_encoder.encode([""])
    seeds = clip_seeds(cfg.seed, prompts)
    grid = token_grid((LATENT_CHANNELS, *shape_THW))
    times = time_grid(cfg.steps, float(shift_of(grid[0] * grid[1] * grid[2], objective))).tolist()
    for start in range(0, len(prompts), cfg.videos_at_once):
        some = slice(start, start + cfg.videos_at_once)
        pack = sample_pack(text_encoder.encode(list(prompts[some])), shape_THW, seeds[some], fps).to(device)
        x_SE = noise_for(pack.seed_N, pack.lengths_N(), pack.latents_SE.shape[1]).to(device)
        v = guided_velocity(model, pack, empty_LD, cfg.guidance)
        for t, t_next in pairwise(times):
            x_SE = STEPS[cfg.solver](v, x_SE, t, t_next)
            after_step()
        for tokens_SE in x_SE.split(pack.lengths_N().tolist()):
            yield unpatchify(tokens_SE, grid, shape_THW[0])


def sample_videos(
    model: Model,
    text_encoder: TextEncoder,
    codec: VideoCodec,
    clip: ClipShape,
    cfg: SampleConfig,
    objective: ObjectiveConfig,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    show_progress: bool = True,
) -> list[Sample]:
    """Writes one mp4 per prompt and samples.json, which says how each was made, to `out`."""
    if not cfg.prompts:
        raise ValueError("""there is no prompt to sample from: set sample.prompts='["a red ball rolls to the left"]'""")
    out.mkdir(parents=True, exist_ok=True)
    packs = -(-len(cfg.prompts) // cfg.videos_at_once)
    made: list[Sample] = []
    with Progress(disable=not show_progress, transient=True) as progress:
        task = progress.add_task("sampling", total=packs * cfg.steps)
        found = sample_latents(
            model, text_encoder, cfg.prompts, latent_shape(clip), cfg, objective,
            fps=clip.fps, device=device, after_step=lambda: progress.advance(task),
        )  # fmt: skip
        for prompt, seed, z_CTHW in zip(cfg.prompts, clip_seeds(cfg.seed, cfg.prompts), found, strict=True):
            sample = Sample(prompt, seed, f"{len(made):03d}_{file_words(prompt)}.mp4")
            write_mp4(out / sample.file, to_rgb(codec.decode(z_CTHW[None])[0]), clip.fps, crf=cfg.crf)
            made.append(sample)
    _write_record(out / "samples.json", cfg, made)
    return made


def to_rgb(x_CTHW: Tensor) -> np.ndarray:
    """Pixels in [-1, 1] as rgb_THWC, uint8."""
    return ((x_CTHW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()


def file_words(prompt: str) -> str:
    """The prompt's first words as part of a file name: small letters, digits and dashes, never empty."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt[:200].lower()).strip("-")
    return words[:40].strip("-") or "video"


def _write_record(file: Path, cfg: SampleConfig, made: Sequence[Sample]) -> None:
    settings = {"steps": cfg.steps, "solver": cfg.solver.value, "guidance": cfg.guidance, "seed": cfg.seed}
    write_whole(file, json.dumps({**settings, "samples": [asdict(sample) for sample in made]}, indent=2) + "\n")
