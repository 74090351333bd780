"""The axis letters of the project, and the few sizes that every part must agree on.

A tensor's name ends in its axes, one letter each, in order: `latents_SE`, `z_BCTHW`.

    B  packs or videos in a batch      T  latent (or pixel) frames
    S  tokens of a pack                H  rows
    N  clips in a pack                 W  columns
    D  model width                     C  channels
    K  attention heads                 L  caption tokens
    E  numbers per token               F  hidden width of the MLP
"""

from dataclasses import dataclass

LATENT_STRIDE = (4, 16, 16)
"""Pixels per latent along time, rows and columns (Wan2.2 VAE); the first pixel frame is a latent frame of its own."""

LATENT_CHANNELS = 48

PATCH = (2, 1, 1)
"""Latents per token along time, rows and columns (Summer-22B sec. 3.1, reconstructed: notes on formulas, 1.5)."""


@dataclass(kw_only=True)
class ClipShape:
    """Size of the videos that the model sees and makes."""

    frames: int = 81
    """Longest clip in pixel frames; `4 n + 1`, since the first frame is coded alone."""
    height: int = 352
    width: int = 640
    fps: int = 24

    def __post_init__(self) -> None:
        t, h, w = LATENT_STRIDE
        if self.frames < 1 or (self.frames - 1) % t:
            fits = max(0, (self.frames - 1) // t) * t + 1
            raise ValueError(f"clip.frames={self.frames} is not a multiple of {t} plus 1: set clip.frames={fits}")
        if self.height < h or self.height % h or self.width < w or self.width % w:
            raise ValueError(
                f"clips of {self.height}x{self.width} pixels do not divide into {h}x{w} latents: "
                f"set clip.height={max(h, self.height // h * h)} clip.width={max(w, self.width // w * w)}"
            )
        if self.fps < 1:
            raise ValueError(f"clip.fps={self.fps} is not a frame rate: set clip.fps=24")


def latent_frames(pixel_frames: int) -> int:
    """Latent frames of a video of `pixel_frames = 4 n + 1` frames: `n + 1`."""
    return (pixel_frames - 1) // LATENT_STRIDE[0] + 1


def whole_frames(pixel_frames: int) -> int:
    """The largest `4 n + 1` that is not above `pixel_frames`; 0 where there is no frame."""
    return (pixel_frames - 1) // LATENT_STRIDE[0] * LATENT_STRIDE[0] + 1 if pixel_frames > 0 else 0
