"""Where a clip's latents wait between the encoder and the shards."""

from __future__ import annotations

import hashlib
from pathlib import Path


def latent_file(out: Path, clip_id: str) -> Path:
    """A safetensors file with the tensor `latent`, in a folder per codec: latents of two codecs never meet.

    ValueError where the output folder has no codec.
    """
    config = out / "codec" / "config.json"
    try:
        digest = hashlib.sha256(config.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{config} cannot be read ({error.strerror}): run `summer curate out={out}` again") from error
    return out / "work" / "latents" / digest[:8] / f"{clip_id}.safetensors"
