"""Generated clips beside the training clips they resemble most, and what the codec makes of a clip.

Everything is compared in the codec's latent space, where each number has unit variance over the training clips.
T H W C latent frames, rows, columns, channels.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from energon_datasets.shard_schema import CODEC_FOLDER, LATENT, LATENT_STORE, VIDEO, VIDEO_STORE
from nemo_summer.demo.facts import Facts
from nemo_summer.encoders.video_vae import VideoCodec, load_codec
from nemo_summer.mp4.write import write_mp4
from nemo_summer.shapes import whole_frames


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The training clip nearest to something, and how near: root mean square of the latents' difference."""

    key: str
    distance: float
    caption: str = ""
    mp4: bytes | None = None


def read_members(folder: Path, suffix: str, keys: set[str] | None = None) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of the members with `suffix` in the shards of one store, shard by shard."""
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                key = member.name.removesuffix(suffix)
                if member.isfile() and member.name.endswith(suffix) and (keys is None or key in keys):
                    yield key, archive.extractfile(member).read()


def read_latents(dataset: Path, keys: set[str]) -> dict[str, Tensor]:
    """Latents z_CTHW by key, float32."""
    found = read_members(dataset / LATENT_STORE, LATENT, keys)
    return {key: load(data)["latent"].float() for key, data in found}


def read_pixels(file: Path) -> tuple[Tensor, float]:
    """A video as x_CTHW in [-1, 1] with 4 n + 1 frames, and its frame rate."""
    with av.open(str(file)) as container:
        fps = float(container.streams.video[0].average_rate or 24)
        rgb = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    rgb_THWC = np.stack(rgb[: whole_frames(len(rgb))])
    return torch.from_numpy(rgb_THWC).permute(3, 0, 1, 2).float() / 127.5 - 1, fps


def distance(first_CTHW: Tensor, second_CTHW: Tensor) -> float:
    """Root mean square of the difference over the frames that both have; infinite where the pictures differ in size."""
    if first_CTHW.shape[0] != second_CTHW.shape[0] or first_CTHW.shape[2:] != second_CTHW.shape[2:]:
        return float("inf")
    frames = min(first_CTHW.shape[1], second_CTHW.shape[1])
    return float((first_CTHW[:, :frames] - second_CTHW[:, :frames]).square().mean().sqrt())


def nearest(z_CTHW: Tensor, among: Mapping[str, Tensor]) -> Neighbour | None:
    """The nearest of `among`; `None` where none has the same size."""
    found = min(
        (Neighbour(key, distance(z_CTHW, other)) for key, other in among.items()),
        key=lambda n: n.distance,
        default=None,
    )
    return found if found is not None and np.isfinite(found.distance) else None


def usual_distance(held_out: Sequence[Tensor], among: Mapping[str, Tensor]) -> float | None:
    """Median distance of real clips that were not trained on to their nearest training clip: what to compare with."""
    found = [n.distance for z_CTHW in held_out if (n := nearest(z_CTHW, among))]
    return float(np.median(found)) if found else None


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """A clip before and after the codec."""

    before_mp4: bytes
    after_mp4: bytes
    psnr_db: float

    @property
    def sentence(self) -> str:
        return f"The signal stands {self.psnr_db:.1f} dB above the codec's error: sharper than this no model can be."


@dataclass(frozen=True, slots=True)
class Likeness:
    """What the report shows beside the generated clips."""

    neighbours: list[Neighbour | None]
    """one per sample, in their order"""
    sentence: str
    reconstruction: Reconstruction | None


def reconstruct(codec: VideoCodec, clip_mp4: bytes) -> Reconstruction:
    """What is left of a clip's pixels after encoding and decoding; PSNR over all pixels, peak 255."""
    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch) / "before.mp4", Path(scratch) / "after.mp4"
        before.write_bytes(clip_mp4)
        x_CTHW, fps = read_pixels(before)
        again_CTHW = codec.decode(codec.encode(x_CTHW[None]))[0]
        rgb_THWC = ((again_CTHW.permute(1, 2, 3, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy()
        write_mp4(after, rgb_THWC, fps)
        error = float((again_CTHW - x_CTHW).square().mean()) * 127.5**2
        return Reconstruction(clip_mp4, after.read_bytes(), 10 * float(np.log10(255**2 / max(error, 1e-9))))


def clip_mp4(dataset: Path, key: str) -> bytes | None:
    """The mp4 of one clip, from the video shards."""
    return next((data for _, data in read_members(dataset / VIDEO_STORE, VIDEO, {key})), None)


@torch.no_grad()
def look_at(facts: Facts) -> Likeness:
    """Compares the samples of a run with its training clips. OSError or ValueError where the dataset is damaged."""
    dataset = facts.folders.dataset
    rows = {row["key"]: row for row in facts.index or ()}
    latents = read_latents(dataset, set(rows))
    train = {key: z for key, z in latents.items() if rows[key]["split"] == "train"}
    held_out = {key: z for key, z in latents.items() if rows[key]["split"] == "val"}
    codec = load_codec(dataset / CODEC_FOLDER)
    found = [nearest(codec.encode(read_pixels(sample.path)[0][None])[0], train) for sample in facts.samples]
    shown = [near and _told(near, dataset, rows) for near in found]
    usual = usual_distance(list(held_out.values()), train)
    return Likeness(shown, _likeness_sentence(found, usual), _reconstruction(codec, dataset, sorted(held_out or train)))


def _told(near: Neighbour, dataset: Path, rows: Mapping[str, Mapping]) -> Neighbour:
    return Neighbour(near.key, near.distance, rows[near.key]["caption"]["short"], clip_mp4(dataset, near.key))


def _likeness_sentence(found: Sequence[Neighbour | None], usual: float | None) -> str:
    near = [n.distance for n in found if n]
    if not near or usual is None:
        return ""
    return (
        "Distances are root mean squares of latents, whose spread is 1. Generated clips lie "
        f"{np.median(near):.2f} from their nearest training clip, real held-out clips {usual:.2f}: "
        "far below that would be a copy."
    )


def _reconstruction(codec: VideoCodec, dataset: Path, keys: Sequence[str]) -> Reconstruction | None:
    data = clip_mp4(dataset, keys[len(keys) // 2]) if keys else None
    return reconstruct(codec, data) if data else None
