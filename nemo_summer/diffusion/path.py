"""The straight path between clean latents and noise. Formulas: tensors in, tensors out.

t = 0 is clean, t = 1 is noise.
"""

from torch import Tensor


def interpolate(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) x_0 + t eps (Liu et al. 2022, eq. 1, time reversed; Open-Sora 2.0, sec. 4.2). `t` broadcasts."""
    return (1 - t) * clean + t * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """v = x_0 - eps: the velocity along decreasing t, -dx_t/dt (Open-Sora 2.0, sec. 4.2)."""
    return clean - noise


def clean_from(x: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """x_0 = x_t + t v: where the straight line through x_t with velocity v ends at t = 0."""
    return x + t * v


def noise_from(x: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """eps = x_t - (1 - t) v: where the same line begins at t = 1."""
    return x - (1 - t) * v
