"""The band: how far the rows of each weight turn in a step, between what noise and what coherent gradients would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemo_summer.optim.config import OptimConfig
from nemo_summer.optim.distributed import Rotation, row_norm_error
from nemo_summer.optim.rules import Rule
from nemo_summer.optim.sphere import rotation_band


@dataclass(frozen=True, slots=True)
class BandReport:
    """One measured step; angles in radians, by parameter name."""

    rotation: dict[str, float] = field(default_factory=dict)
    band: dict[str, tuple[float, float]] = field(default_factory=dict)
    row_norm_error: float = 0.0
    """Largest distance of a constrained row's length from 1."""

    @property
    def outside(self) -> list[str]:
        """Parameters whose rows turn less or more than the band allows."""
        return [name for name, angle in self.rotation.items() if not self.band[name][0] <= angle <= self.band[name][1]]


@dataclass(kw_only=True)
class Watch:
    """Measures every `every` steps: it has to keep a copy of the rows over one step, so not at each."""

    optimizer: Any
    rules: Mapping[str, Rule]
    shapes: Mapping[str, Sequence[int]]
    optim: OptimConfig
    every: int

    def __post_init__(self) -> None:
        self._rotation = Rotation(self.optimizer)

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def before(self) -> None:
        """Notes where the rows point; to be called right before the optimizer's step."""
        self._rotation.before()

    def after(self, lr: float) -> BandReport:
        """How far they have turned since, with a run's learning rate of `lr`."""
        rotation = self._rotation.after()
        return BandReport(
            rotation=rotation,
            band={name: self._band(name, lr) for name in rotation},
            row_norm_error=row_norm_error(self.optimizer),
        )

    def _band(self, name: str, lr: float) -> tuple[float, float]:
        return rotation_band(lr * self.rules[name].lr_mult, self.shapes[name][1], self.optim.beta1)
