"""Sizes with a name."""

from __future__ import annotations

import difflib

from nemo_summer.dit.config import DitConfig

PRESETS: dict[str, dict[str, int]] = {
    "toy": {"width": 128, "heads": 4, "layers": 6, "text_width": 64, "time_width": 128},
    "30m": {"width": 384, "heads": 6, "layers": 10, "text_width": 4096},
    "1b": {"width": 1920, "heads": 15, "layers": 14, "text_width": 4096},
    "22b": {"width": 6144, "heads": 48, "layers": 30, "text_width": 4096},
}


def preset(name: str) -> DitConfig:
    """The sizes called `name`. ValueError with the nearest name where there is none."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1) or [min(PRESETS)]
        raise ValueError(f"no model is called {name!r}: set model={near[0]} (there are {', '.join(PRESETS)})")
    return DitConfig(**PRESETS[name])
