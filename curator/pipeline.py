"""The way from raw footage to a dataset, as a list of stages, and the command that walks it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from curator.captions.motion_words import CameraWords
from curator.captions.rules import RuleCaptions
from curator.clips.cut import CutConfig
from curator.clips.decode import DecodeConfig
from curator.clips.encode import EncodeConfig
from curator.clips.shots import ShotsConfig
from curator.dedup.embed import Embed
from curator.dedup.keep import KeepOne
from curator.filters.bars import FindBars
from curator.filters.blur import Sharpness
from curator.filters.decide import Decide
from curator.filters.motion import Motion
from curator.filters.static import Static
from curator.journal import claimed, fingerprint_of
from curator.latents.encode import EncodeLatents
from curator.latents.fit import FitCodec
from curator.manifest import Manifest, library_versions, read_manifest, tally
from curator.raw_videos.find import FindConfig, Found, find_videos
from curator.raw_videos.probe import ProbeConfig
from curator.records import TRIED_AGAIN
from curator.runners import Runner, RunnerConfig, open_runner
from curator.shards.split import Split
from curator.shards.thumbs import Thumbs
from curator.shards.write import WriteShards
from curator.stage import Stage
from curator.walk import walk
from curator.whole_files import sweep
from energon_datasets.shard_schema import (
    CODEC_FOLDER,
    COLUMNS_FILE,
    DATASET_FILE,
    INDEX_FILE,
    LATENT_STORE,
    TEXT_STORE,
    VIDEO_STORE,
)
from nemo_summer.encoders.text import TextConfig
from nemo_summer.encoders.video_vae import CodecConfig
from nemo_summer.shapes import ClipShape

MANIFEST = "manifest.json"

OWN_FOLDERS = ("work", "thumbs", CODEC_FOLDER, Path(INDEX_FILE).parent.name, LATENT_STORE, TEXT_STORE, VIDEO_STORE)
"""Folders of the output that only the curator writes to; what a kill left is looked for there and nowhere else."""


@dataclass(kw_only=True)
class ShardsConfig:
    """The dataset on disk."""

    shard_mb: float = 512.0
    """A tar file above this is closed and the next begun."""
    thumb_width: int = 160
    """Columns of the small pictures of every clip."""

    def __post_init__(self) -> None:
        if not self.shard_mb > 0:
            raise ValueError(f"curate.shards.shard_mb={self.shard_mb:g} is no size of a file: set it to 512")


@dataclass(kw_only=True)
class CurateConfig:
    """The settings of every stage, in the order of the way."""

    find: FindConfig = field(default_factory=FindConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    shots: ShotsConfig = field(default_factory=ShotsConfig)
    cut: CutConfig = field(default_factory=CutConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    bars: FindBars = field(default_factory=FindBars)
    motion: Motion = field(default_factory=Motion)
    static: Static = field(default_factory=Static)
    sharpness: Sharpness = field(default_factory=Sharpness)
    camera: CameraWords = field(default_factory=CameraWords)
    decide: Decide = field(default_factory=Decide)
    captions: RuleCaptions = field(default_factory=RuleCaptions)
    embed: Embed = field(default_factory=Embed)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    dedup: KeepOne = field(default_factory=KeepOne)
    split: Split = field(default_factory=Split)
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    runner: RunnerConfig = field(default_factory=RunnerConfig)
    device: str = "cpu"
    """Where the codec and the text encoder run: `cpu` or `cuda`."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"curate.device={self.device!r} is no device: set it to cpu or cuda")


def stages(
    cfg: CurateConfig, input: Path, out: Path, clip: ClipShape, codec: CodecConfig, text: TextConfig
) -> list[Stage]:
    """The way. Per video up to `cut`, per clip up to `encode`, over all clips from `dedup` on."""
    shortest_s, folder = cfg.cut.shortest_s, str(out)
    per_video: list[Stage] = [cfg.probe.build(shortest_s), cfg.shots.build(shortest_s), cfg.cut.build()]
    per_clip: list[Stage] = [
        cfg.decode.build(str(input), clip),
        cfg.bars,
        cfg.motion,
        cfg.static,
        cfg.sharpness,
        cfg.camera,
        cfg.decide,
        cfg.captions,
        cfg.embed,
        Thumbs(out=folder, width=cfg.shards.thumb_width),
        cfg.encode.build(folder, clip),
    ]
    together: list[Stage] = [
        cfg.dedup,
        cfg.split,
        FitCodec(out=folder, codec=codec, clip_frames=clip.frames, device=cfg.device),
        EncodeLatents(out=folder, clip_frames=clip.frames, device=cfg.device),
        WriteShards(out=folder, text=text, fps=float(clip.fps), shard_mb=cfg.shards.shard_mb, device=cfg.device),
    ]
    return per_video + per_clip + together


def curate(
    cfg: CurateConfig,
    input: Path,
    out: Path,
    clip: ClipShape,
    codec: CodecConfig,
    text: TextConfig,
    runner: Runner | None = None,
) -> Manifest:
    """Makes the dataset `out` of the videos in `input`; the manifest that was also written to `out`.

    The same call on a finished folder returns at once; after a kill it goes on. A video or clip that fails is counted
    and named in the manifest. ValueError where `input` is no folder or lies in `out`, `out` is in use, or the disk is
    full.
    """
    input, out = Path(os.path.abspath(input)), Path(os.path.abspath(out))
    began = time.perf_counter()
    keep_apart(input, out)
    if cfg.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"curate.device={cfg.device}, but torch finds no GPU here: set curate.device=cpu")
    with claimed(out):
        sweep_own(out)
        found = find_videos(input, cfg.find, skip=out)
        way = stages(cfg, input, out, clip, codec, text)
        fingerprint = fingerprint_of(way, repr(replace(found, videos=tuple(replace(v, root="") for v in found.videos))))
        if (finished := finished_manifest(out, fingerprint)) is not None:
            return finished
        (out / MANIFEST).unlink(missing_ok=True)
        with nullcontext(runner) if runner else open_runner(cfg.runner) as run:
            records, seconds = walk(way, found.videos, out, run)
        manifest = replace(
            tally(found, records),
            fingerprint=fingerprint,
            stage_seconds={stage: round(s, 3) for stage, s in seconds.items()},
            settings=plain({"input": str(input), "clip": clip, "curate": cfg, "codec": codec, "text": text}),
            versions=library_versions(),
            run_seconds=round(time.perf_counter() - began, 3),
        )
        if not found.videos and not found.failed:
            manifest.warnings.append(nothing_found(input, found, cfg.find))
        manifest.write(out / MANIFEST)
        return manifest


def keep_apart(input: Path, out: Path) -> None:
    """ValueError where the sources would lie among what is written: sources are only read."""
    if input.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"out={str(out)!r} holds the footage of input={str(input)!r}: set out= to another folder")


def sweep_own(out: Path) -> None:
    """Removes what a killed run left half-written; strangers' files in `out` stay, whatever they are called."""
    for folder in OWN_FOLDERS:
        sweep(out / folder)
    for name in (MANIFEST, DATASET_FILE, COLUMNS_FILE):
        stem, _, suffix = name.partition(".")
        for left in out.glob(f".{stem}.*.{suffix}"):
            if re.fullmatch(r"\d+", left.name.split(".")[2]):
                left.unlink(missing_ok=True)


def nothing_found(input: Path, found: Found, cfg: FindConfig) -> str:
    holds = f"{str(input)!r} holds no video ({found.other_files} other files)"
    wanted = ", ".join(cfg.suffixes[:4])
    return f"{holds}: set input= to a folder with {wanted} or other files that curate.find.suffixes names"


def finished_manifest(out: Path, fingerprint: str) -> Manifest | None:
    """The manifest of an earlier run over the same sources with the same settings that left nothing to do: its files
    are all there, and nothing failed that is to be tried again.
    """
    if not (out / MANIFEST).exists():
        return None
    manifest = read_manifest(out / MANIFEST)
    unsettled = set(TRIED_AGAIN) & (manifest.videos_failed.keys() | manifest.clips_dropped.keys())
    return manifest if manifest.fingerprint == fingerprint and not unsettled and dataset_is_whole(out) else None


def dataset_is_whole(out: Path) -> bool:
    """Whether every file that `dataset.json` names is there, the small ones (all but the shards) with their content."""
    try:
        files = dict(json.loads((out / DATASET_FILE).read_text(encoding="utf-8"))["files"])
        small = [name for name in files if not name.endswith(".tar")]
        if any(hashlib.sha256((out / name).read_bytes()).hexdigest() != files[name] for name in small):
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all((out / name).exists() for name in files)


def plain(value: Any) -> Any:
    """Settings as JSON can hold them; fields that are no settings (`init=False`) are left out."""
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.init}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value
