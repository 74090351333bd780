"""Settings of the optimizer, read by every file of this folder."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class OptimConfig:
    """Sphere AdamW with muP learning rates; every constant that the formulas leave open is a field."""

    lr: float = 0.05
    """Peak learning rate for `d_in = base_width`; each parameter multiplies it (optim/rules.py)."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip_grad: float = 1.0
    """Longest gradient, all parameters together, after the projection; 0 does not clip."""
    warmup_steps: int = 100
    cooldown_share: float = 0.02
    """Last part of the run in which the learning rate falls linearly (Summer-22B sec. 4.4: 2 %)."""
    base_width: int = 32
    """Row length at which a matrix learns with `lr` itself (muP; 32 in the code of Summer's authors)."""
    middle_mult: float = 0.3
    """Factor on matrices of all blocks but the first and the last (the paper's constant is lost)."""
    vector_mult: float = 0.01
    """Factor on biases, norms and scalars, whatever the width."""
    time_mult: float = 0.1
    """Factor on the time and modulation MLPs, whatever the width."""

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "base_width", "middle_mult", "vector_mult", "time_mult"):
            if not getattr(self, name) > 0:
                raise ValueError(f"optim.{name}={getattr(self, name)} must be above 0")
        for name in ("beta1", "beta2", "cooldown_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name}={getattr(self, name)} must lie in [0, 1)")
        for name in ("clip_grad", "warmup_steps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"optim.{name}={getattr(self, name)} must be 0 or more")
