"""Which noise level a clip is trained at: logit-normal, shifted towards noise for long clips, with a uniform share."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nemo_summer.diffusion.weight import WeightKind


@dataclass(kw_only=True)
class ObjectiveConfig:
    """Flow matching: which noise levels are drawn, and what each counts in the loss."""

    logit_mean: float = 0.0
    """Mean of log(t / (1 - t)) before the shift (Esser et al. 2024, eq. 19)."""
    logit_std: float = 1.0
    uniform_share: float = 0.1
    """Share of the draws that are uniform over [0, 1) and not shifted: no noise level is seen less often than this."""
    shift_min: float = 1.0
    """Shift of clips with `shift_min_tokens` tokens or fewer; 1 is no shift."""
    shift_min_tokens: int = 280
    shift_max: float = 3.0
    """Shift of clips with `shift_max_tokens` tokens or more."""
    shift_max_tokens: int = 9680
    weight: WeightKind = WeightKind.velocity
    """In which quantity's units the squared error is counted."""

    def __post_init__(self) -> None:
        if self.logit_std <= 0:
            raise ValueError(f"objective.logit_std={self.logit_std} must be above 0: set objective.logit_std=1")
        if not 0 <= self.uniform_share <= 1:
            raise ValueError(f"objective.uniform_share={self.uniform_share} is not a share from 0 to 1")
        if min(self.shift_min, self.shift_max) <= 0:
            raise ValueError(
                f"objective.shift_min={self.shift_min} and objective.shift_max={self.shift_max} must be above 0: "
                "1 is no shift, 3 favours noise"
            )
        if not 0 < self.shift_min_tokens < self.shift_max_tokens:
            raise ValueError(
                f"objective.shift_min_tokens={self.shift_min_tokens} must be above 0 and below "
                f"objective.shift_max_tokens={self.shift_max_tokens}"
            )


def shift_of(tokens: Tensor | int, cfg: ObjectiveConfig) -> Tensor:
    """Shift for a clip of so many tokens: linear in sqrt(tokens) between the two settings, constant outside; float64.

    The square root is that of Esser et al. 2024, eq. 23: averaging n tokens lowers the noise's deviation by sqrt(n).
    """
    root = torch.as_tensor(tokens, dtype=torch.float64).sqrt()
    low, high = math.sqrt(cfg.shift_min_tokens), math.sqrt(cfg.shift_max_tokens)
    share = ((root - low) / (high - low)).clamp(0, 1)
    return cfg.shift_min + share * (cfg.shift_max - cfg.shift_min)


def shift_time(t: Tensor, s: Tensor | float) -> Tensor:
    """t' = s t / (1 + (s - 1) t): moves t towards noise for s > 1, keeps 0 and 1 (Esser et al. 2024, eq. 23)."""
    return s * t / (1 + (s - 1) * t)


def logit_normal_quantile(p: Tensor, mean: float, std: float) -> Tensor:
    """t = sigmoid(mean + std sqrt(2) erfinv(2 p - 1)): the t below which a share p of a logit-normal lies."""
    return torch.sigmoid(mean + std * math.sqrt(2) * torch.erfinv(2 * p - 1))


def time_of(uniform_N: Tensor, cfg: ObjectiveConfig, tokens_N: Tensor | int) -> Tensor:
    """Noise level of each clip, in [0, 1], float32; from one uniform number in [0, 1) and the clip's token count.

    Numbers below `uniform_share` are stretched to a uniform t; the others go through the inverse distribution function
    of the logit-normal and are shifted. So the same number always gives the same noise level.
    """
    u = uniform_N.double()
    share = cfg.uniform_share
    rest = ((u - share) / max(1 - share, 1e-12)).clamp(0, 1)
    drawn = shift_time(logit_normal_quantile(rest, cfg.logit_mean, cfg.logit_std), shift_of(tokens_N, cfg).to(u.device))
    flat = u / share if share > 0 else u
    return torch.where(u < share, flat, drawn).float()


def time_grid(steps: int, s: float) -> Tensor:
    """`steps + 1` noise levels from 1 down to 0 for sampling: even, then shifted as in training; float64."""
    if steps < 1:
        raise ValueError(f"sample.steps={steps} is not a number of steps: set sample.steps=32")
    return shift_time(torch.linspace(1, 0, steps + 1, dtype=torch.float64), s)
