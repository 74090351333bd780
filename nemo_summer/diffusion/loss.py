"""Squared errors of the velocity, token by token, and what to compare them with.

S tokens of a pack, E numbers per token.
"""

import torch
from torch import Tensor

from nemo_summer.shapes import LATENT_CHANNELS


def squared_error_S(v_SE: Tensor, target_SE: Tensor) -> Tensor:
    """Mean over E of (v - target)^2 for each token; float32 or wider."""
    wide = torch.promote_types(v_SE.dtype, torch.float32)
    return (v_SE.to(wide) - target_SE.to(wide)).square().mean(-1)


def fresh_error_S(v_SE: Tensor, target_SE: Tensor, repeated_S: Tensor, patch_frames: int = 2) -> tuple[Tensor, Tensor]:
    """(error_S, share_S): each token's mean squared error over the numbers that are its own, and their share of E.

    A clip with an odd number of latent frames is filled up by repeating the last one. The copy is no new evidence, and
    predicting it is free, so in tokens of `repeated_S` only the first latent frame counts.
    """
    error_S = squared_error_S(v_SE, target_SE)
    if not bool(repeated_S.any()):
        return error_S, torch.ones_like(error_S)
    v_RCPe, target_RCPe = (x[repeated_S].unflatten(1, (LATENT_CHANNELS, patch_frames, -1)) for x in (v_SE, target_SE))
    error_S = error_S.index_put(
        (repeated_S,), squared_error_S(v_RCPe[:, :, 0].flatten(1), target_RCPe[:, :, 0].flatten(1))
    )
    return error_S, torch.where(repeated_S, 1 / patch_frames, 1.0).to(error_S)


def fixed_levels(count: int = 8) -> Tensor:
    """The noise levels at which validation is done: (k + 1/2) / count for k = 0 .. count - 1; float64."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def linear_denoiser_gain(t: Tensor) -> Tensor:
    """(1 - 2 t) / ((1 - t)^2 + t^2): the number c for which c x_t is nearest to v = x_0 - eps, for unit variance.

    cov(v, x_t) / var(x_t). It is c_skip of Karras et al. 2022, eq. 7, for this path and this target.
    """
    return (1 - 2 * t) / ((1 - t) ** 2 + t**2)


def linear_denoiser_loss(t: Tensor) -> Tensor:
    """1 / ((1 - t)^2 + t^2): the least squared error of v = x_0 - eps that a number times x_t can reach.

    For x_0 of zero mean and unit variance, independent of eps: var v = 2, var x_t = (1 - t)^2 + t^2 and
    cov(v, x_t) = 1 - 2 t, so the error is 2 - (1 - 2 t)^2 / var x_t. A model that learnt nothing about how latents hang
    together stays here.
    """
    return 1 / ((1 - t) ** 2 + t**2)
