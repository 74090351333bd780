"""Video to latents and back: the embedded linear codec and the Wan2.2 VAE, behind one interface.

B videos, C channels, T frames, H rows, W columns; E numbers of a block of pixels. Pixels lie in [-1, 1].
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nemo_summer.shapes import LATENT_CHANNELS, LATENT_STRIDE
from nemo_summer.whole_files import write_whole

FORMAT = 1
WEIGHTS = "codec.safetensors"
CONFIG = "config.json"
BLOCK = 3 * LATENT_STRIDE[0] * LATENT_STRIDE[1] * LATENT_STRIDE[2]
CHUNK_BLOCKS = 4096
PANEL = 512


class CodecKind(Enum):
    embedded = "embedded"
    wan = "wan"


@dataclass(kw_only=True)
class CodecConfig:
    """Which video autoencoder makes the latents."""

    kind: CodecKind = CodecKind.embedded
    """embedded: a linear codec fitted on the dataset in seconds. wan: the Wan2.2 VAE of diffusers."""
    path: str = ""
    """embedded: folder of a codec fitted before (empty: fit one). wan: folder or hub id of the VAE or its pipeline."""
    fit_clips: int = 128
    """How many clips the embedded codec is fitted on, at most."""

    def build(self, videos: Iterable[Tensor], device: torch.device | str = "cpu") -> VideoCodec:
        """The codec, ready to use. `videos` (x_CTHW each) are read only where a codec has to be fitted."""
        if self.kind is CodecKind.wan:
            if not self.path:
                raise ValueError("the Wan codec needs its weights: set codec.path=FOLDER or codec.kind=embedded")
            return WanVae(self.path, device=device)
        if self.path:
            return load_codec(Path(self.path), device=device)
        return LinearVae.fit(itertools.islice(videos, self.fit_clips), device=device)


class VideoCodec(ABC):
    """A frozen video autoencoder whose latents have zero mean and unit variance per channel."""

    channels: int = LATENT_CHANNELS
    stride: tuple[int, int, int] = LATENT_STRIDE

    @abstractmethod
    def encode(self, x_BCTHW: Tensor) -> Tensor:
        """Normalised latents z_BCTHW, float32, of pixels in [-1, 1] with 4 n + 1 frames: n + 1 latent frames.

        Causal: a latent frame depends on no later pixel frame.
        """

    @abstractmethod
    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Pixels x_BCTHW, float32, clipped to [-1, 1], of normalised latents."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes what `load_codec` needs; a folder without config.json is not complete."""

    @abstractmethod
    def to(self, device: torch.device | str) -> VideoCodec:
        """The same codec on another device."""


class LinearVae(VideoCodec):
    """Principal components of 4x16x16 blocks of pixels, each component divided by its standard deviation."""

    def __init__(self, mean_E: Tensor, basis_EC: Tensor, std_C: Tensor, fitted_on: dict[str, Any] | None = None):
        wanted = {"mean": (BLOCK,), "basis": (BLOCK, LATENT_CHANNELS), "std": (LATENT_CHANNELS,)}
        found = {"mean": tuple(mean_E.shape), "basis": tuple(basis_EC.shape), "std": tuple(std_C.shape)}
        if wanted != found:
            raise ValueError(f"tensors of a linear codec have shapes {wanted}, found {found}")
        self.mean_E, self.basis_EC, self.std_C = mean_E.float(), basis_EC.float(), std_C.float()
        self.fitted_on = fitted_on or {}

    @classmethod
    def fit(cls, videos: Iterable[Tensor], device: torch.device | str = "cpu") -> LinearVae:
        """The codec of these videos (x_CTHW in [-1, 1], any sizes that divide into blocks), read once, one by one.

        Raises ValueError when there are fewer blocks than latent channels, or all blocks are the same.
        """
        sums = BlockSums(device)
        for chunk_BE in _in_chunks(videos, sums):
            sums.add(chunk_BE)
        clips, blocks = sums.clips, sums.blocks
        if blocks < LATENT_CHANNELS:
            raise ValueError(
                f"{clips} videos with {blocks} blocks of pixels are too few to fit a codec of {LATENT_CHANNELS} "
                "channels: give more footage, or set codec.path to a codec fitted before"
            )
        mean_E, covariance_EE = sums.moments()
        total = float(covariance_EE.diagonal().sum())
        if total < 1e-9 * BLOCK:
            raise ValueError(f"all {blocks} blocks of {clips} videos are one flat colour: there is nothing to fit")
        variance_C, basis_EC = leading_components(covariance_EE, LATENT_CHANNELS)
        # a component that never varies here must not blow up on footage where it does
        std_C = variance_C.clamp_min(0).sqrt().clamp_min(1e-3 * float(variance_C[0]) ** 0.5)
        share = float(variance_C.sum()) / total
        return cls(mean_E, basis_EC, std_C, {"clips": clips, "blocks": blocks, "explained_variance": round(share, 6)})

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        blocks_BTHWE = blocks_of(x_BCTHW.to(self.mean_E))
        z_BTHWC = (blocks_BTHWE - self.mean_E) @ self.basis_EC / self.std_C
        return z_BTHWC.permute(0, 4, 1, 2, 3).contiguous()

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        _check_latents(z_BCTHW)
        z_BTHWC = z_BCTHW.to(self.mean_E).permute(0, 2, 3, 4, 1)
        return video_of((z_BTHWC * self.std_C) @ self.basis_EC.T + self.mean_E).clamp(-1, 1)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"mean": self.mean_E, "basis": self.basis_EC, "std": self.std_C}
        waiting = folder / (WEIGHTS + ".part")
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, waiting)
        digest = hashlib.sha256(waiting.read_bytes()).hexdigest()
        _into_place(waiting, folder / WEIGHTS)
        _write_config(folder, {"kind": "linear", "sha256": {WEIGHTS: digest}, "fitted_on": self.fitted_on})

    def to(self, device: torch.device | str) -> LinearVae:
        moved = (self.mean_E.to(device), self.basis_EC.to(device), self.std_C.to(device))
        return LinearVae(*moved, fitted_on=self.fitted_on)


class WanVae(VideoCodec):
    """diffusers' AutoencoderKLWan with the normalisation of its config; for Wan2.2: 48 channels, 4x16x16."""

    def __init__(self, path: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        from diffusers import AutoencoderKLWan

        self.path, self.device, self.dtype = str(path), torch.device(device), dtype
        local = Path(path)
        bare = (
            local.exists() and not (local / "vae").is_dir()
        )  # else a whole pipeline, with the VAE in a folder of its own
        where = {"subfolder": None if bare else "vae", "local_files_only": local.exists()}
        try:
            self.vae = AutoencoderKLWan.from_pretrained(path, torch_dtype=dtype, use_safetensors=True, **where)
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(f"no Wan VAE could be read from codec.path={path}: {_first_line(error)}") from error
        self.vae.requires_grad_(False).eval().to(self.device)
        self._check_layout()
        shape = (1, -1, 1, 1, 1)
        self.mean = torch.tensor(self.vae.config.latents_mean, device=self.device).view(shape)
        self.std = torch.tensor(self.vae.config.latents_std, device=self.device).view(shape)

    def _check_layout(self) -> None:
        """Refuses a VAE whose channels or strides are not those that dataset and model are made for."""
        cfg = self.vae.config
        rows = 2 ** (len(cfg.dim_mult) - 1) * (cfg.patch_size or 1)
        stride = (2 ** sum(cfg.temperal_downsample), rows, rows)
        statistics = (len(cfg.latents_mean), len(cfg.latents_std))
        if stride != LATENT_STRIDE or cfg.z_dim != LATENT_CHANNELS or statistics != (cfg.z_dim, cfg.z_dim):
            raise ValueError(
                f"the VAE at codec.path={self.path} has {cfg.z_dim} channels, stride {stride} and {statistics} channel "
                f"statistics; wanted are {LATENT_CHANNELS} channels and stride {LATENT_STRIDE}: take Wan2.2's VAE"
            )

    @torch.no_grad()
    def encode(self, x_BCTHW: Tensor) -> Tensor:
        _check_pixels(x_BCTHW)
        z_BCTHW = self.vae.encode(x_BCTHW.to(self.device, self.dtype)).latent_dist.mode()
        return (z_BCTHW.float() - self.mean) / self.std

    @torch.no_grad()
    def decode(self, z_BCTHW: Tensor) -> Tensor:
        _check_latents(z_BCTHW)
        raw_BCTHW = z_BCTHW.to(self.device).float() * self.std + self.mean
        return self.vae.decode(raw_BCTHW.to(self.dtype)).sample.float().clamp(-1, 1)

    def save(self, folder: Path) -> None:
        """Writes a pointer to the weights, not the weights."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_config(folder, {"kind": "wan", "path": self.path})

    def to(self, device: torch.device | str) -> WanVae:
        self.device = torch.device(device)
        self.vae, self.mean, self.std = self.vae.to(device), self.mean.to(device), self.std.to(device)
        return self


def load_codec(folder: Path, device: torch.device | str = "cpu") -> VideoCodec:
    """The codec that `save` wrote. ValueError, with the file and the finding, when it is missing or damaged."""
    folder = Path(folder)
    config = _read_config(folder)
    if config["kind"] == "wan":
        return WanVae(config["path"], device=device)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ValueError(f"{weights} is missing: curate the dataset again, or set codec.path to another codec")
    if hashlib.sha256(weights.read_bytes()).hexdigest() != config["sha256"].get(WEIGHTS):
        raise ValueError(f"{weights} is damaged: its checksum is not the one in {CONFIG}; copy the folder again")
    tensors = load_file(weights)
    codec = LinearVae(tensors["mean"], tensors["basis"], tensors["std"], config.get("fitted_on"))
    return codec.to(device)


class BlockSums:
    """First and second moments of blocks, gathered chunk by chunk."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.clips = self.blocks = 0
        # float64: sums over millions of blocks, from which near-equal numbers are subtracted
        self.sum_E = torch.zeros(BLOCK, dtype=torch.float64, device=self.device)
        self.square_EE = torch.zeros(BLOCK, BLOCK, dtype=torch.float64, device=self.device)

    def add(self, blocks_BE: Tensor) -> None:
        blocks_BE = blocks_BE.to(self.device, torch.float32)
        self.blocks += len(blocks_BE)
        self.sum_E += blocks_BE.sum(0, dtype=torch.float64)
        for start in range(0, BLOCK, PANEL):  # the upper triangle only, in panels: half the work
            panel_BE, rest_BE = blocks_BE[:, start : start + PANEL], blocks_BE[:, start:]
            self.square_EE[start : start + PANEL, start:] += panel_BE.T @ rest_BE

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance (divided by the number of blocks) of all blocks so far; float64."""
        mean_E = self.sum_E / self.blocks
        upper_EE = self.square_EE.triu()
        square_EE = upper_EE + upper_EE.triu(1).T
        return mean_E, square_EE / self.blocks - torch.outer(mean_E, mean_E)


def _in_chunks(videos: Iterable[Tensor], sums: BlockSums) -> Iterator[Tensor]:
    """Blocks of all videos in large pieces, for one large matrix product each; counts the videos in `sums`."""
    waiting: list[Tensor] = []
    for x_CTHW in videos:
        sums.clips += 1
        waiting.extend(blocks_of(x_CTHW[None].float()).reshape(-1, BLOCK).split(CHUNK_BLOCKS))
        if sum(map(len, waiting)) >= CHUNK_BLOCKS:
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)


def leading_components(covariance_EE: Tensor, count: int, rounds: int = 200) -> tuple[Tensor, Tensor]:
    """The `count` largest eigenvalues, falling, and their eigenvectors as columns, each with a fixed sign; float64.

    Subspace iteration with twice the vectors asked for (Halko et al. 2011, alg. 4.4), several times faster than all
    eigenvectors; where the spectrum falls too slowly for it, all of them are computed.
    """
    size = len(covariance_EE)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, min(2 * count, size), generator=generator, dtype=torch.float64).to(covariance_EE.device)
    span = torch.linalg.qr(start).Q
    for turn in range(rounds):
        span = torch.linalg.qr(covariance_EE @ span).Q
        if turn % 10 == 9:
            values, vectors = _ritz_pairs(covariance_EE, span, count)
            if (covariance_EE @ vectors - vectors * values).norm(dim=0).max() < 1e-9 * values[0].abs():
                return values, _with_fixed_sign(vectors)
    values, vectors = torch.linalg.eigh(covariance_EE)
    return values.flip(0)[:count], _with_fixed_sign(vectors.flip(1)[:, :count])


def _ritz_pairs(matrix: Tensor, span: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best `count` eigenvalues and eigenvectors of `matrix` that lie in the columns of `span`."""
    values, turn = torch.linalg.eigh(span.T @ matrix @ span)
    return values.flip(0)[:count], (span @ turn).flip(1)[:, :count]


def _with_fixed_sign(vectors: Tensor) -> Tensor:
    """Each column turned so that its product with one fixed random vector is positive.

    The largest entry, the usual choice, ties between the two ends of a cosine, and rounding would decide the sign.
    """
    probe = torch.randn(len(vectors), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return vectors * torch.where(probe.to(vectors.device) @ vectors < 0, -1.0, 1.0)


def blocks_of(x_BCTHW: Tensor) -> Tensor:
    """Blocks of 4x16x16 pixels, blocks_BTHWE; the first frame is repeated to fill a block of its own."""
    _check_pixels(x_BCTHW)
    t, h, w = LATENT_STRIDE
    B, C, T, H, W = x_BCTHW.shape
    first = x_BCTHW[:, :, :1].expand(-1, -1, t - 1, -1, -1)
    x = torch.cat([first, x_BCTHW], 2).view(B, C, (T + t - 1) // t, t, H // h, h, W // w, w)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(B, (T + t - 1) // t, H // h, W // w, BLOCK)


def video_of(blocks_BTHWE: Tensor) -> Tensor:
    """Pixels x_BCTHW of blocks; the first frame is the mean of the four that it was repeated to."""
    t, h, w = LATENT_STRIDE
    B, T, H, W, _ = blocks_BTHWE.shape
    x = blocks_BTHWE.view(B, T, H, W, 3, t, h, w).permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(B, 3, T * t, H * h, W * w)
    return torch.cat([x[:, :, :t].mean(2, keepdim=True), x[:, :, t:]], 2)


def _check_pixels(x_BCTHW: Tensor) -> None:
    t, h, w = LATENT_STRIDE
    shape = tuple(x_BCTHW.shape)
    if x_BCTHW.ndim != 5 or shape[1] != 3 or not x_BCTHW.is_floating_point():
        raise ValueError(f"a codec takes videos [B, 3, T, H, W] of numbers from -1 to 1, found {shape} {x_BCTHW.dtype}")
    if shape[2] % t != 1 or shape[3] % h or shape[4] % w or 0 in shape:
        raise ValueError(
            f"a video of {shape[2]} frames of {shape[3]}x{shape[4]} pixels does not divide into latents: set "
            f"clip.frames to a multiple of {t} plus 1, clip.height and clip.width to multiples of {h} and {w}"
        )


def _check_latents(z_BCTHW: Tensor) -> None:
    if z_BCTHW.ndim != 5 or z_BCTHW.shape[1] != LATENT_CHANNELS:
        raise ValueError(f"a codec decodes latents [B, {LATENT_CHANNELS}, T, H, W], found {tuple(z_BCTHW.shape)}")


def _into_place(waiting: Path, final: Path) -> None:
    """Gives a finished file its name, after its bytes are on the disk."""
    with open(waiting, "rb") as file:
        os.fsync(file.fileno())
    os.replace(waiting, final)


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    layout = {"format": FORMAT, "channels": LATENT_CHANNELS, "stride": list(LATENT_STRIDE)}
    write_whole(folder / CONFIG, json.dumps({**layout, **config}, indent=2) + "\n")


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text())
        known = config["format"], config["kind"], config["channels"], tuple(config["stride"])
        needed = config["path"] if known[1] == "wan" else config["sha256"].get(WEIGHTS)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no codec: {CONFIG} is missing; set codec.path to a codec's folder") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {_first_line(error)}); copy it again") from error
    if known[0] != FORMAT or known[1] not in ("linear", "wan") or not needed:
        raise ValueError(f"{file} has format {known[0]} and kind {known[1]!r}; this version reads format {FORMAT}")
    if known[2:] != (LATENT_CHANNELS, LATENT_STRIDE):
        raise ValueError(f"{file}: {known[2]} channels, stride {known[3]}; wanted {LATENT_CHANNELS}, {LATENT_STRIDE}")
    return config


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
