"""nemo-summer: packed video latents in, a trained video diffusion transformer out, mp4s at the end."""

__version__ = "0.1.0"
