"""Pixels to latents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save

from curator.latent_files import latent_file
from curator.latents.fit import read_pixels
from curator.records import Clip
from curator.stage import Stage
from curator.whole_files import whole_file
from nemo_summer.encoders.video_vae import VideoCodec, load_codec


@dataclass(kw_only=True)
class EncodeLatents(Stage):
    """Encodes the clip's mp4 with the dataset's codec into a file that waits for the shards, tensor `latent`.

    Reads: file, dropped_by
    Writes: latent_shape
    """

    name: str = "latents"
    out: str = ""
    """Output folder of the curation; the codec lies in its `codec`."""
    clip_frames: int = 81
    """Longest clip in pixel frames, `4 n + 1`; of longer ones the beginning is taken."""
    device: str = "cpu"
    """Where the codec runs."""
    _vae = None

    def setup(self) -> None:
        """Loads the codec; where no clip was kept there is none, and none is needed."""
        folder = Path(self.out) / "codec"
        self._vae = load_codec(folder, device=self.device) if folder.is_dir() else None

    def process(self, record: Clip) -> list[Clip]:
        if record.dropped_by:
            return [record]
        vae = self._loaded()
        x_CTHW = read_pixels(Path(self.out) / record.file, self.clip_frames)
        z_CTHW = vae.encode(x_CTHW[None].to(self.device))[0].float().cpu().contiguous()
        if not torch.isfinite(z_CTHW).all():
            raise ValueError(f"the latents of clip {record.clip_id} are not finite: try codec.kind=embedded")
        with whole_file(latent_file(Path(self.out), record.clip_id)) as temporary:
            temporary.write_bytes(save({"latent": z_CTHW}))
        return [replace(record, latent_shape=tuple(z_CTHW.shape))]

    def _loaded(self) -> VideoCodec:
        if self._vae is None:
            self._vae = load_codec(Path(self.out) / "codec", device=self.device)
        return self._vae
