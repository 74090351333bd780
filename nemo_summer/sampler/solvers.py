"""Steps along dx/dt = -v(x, t), from noise (t = 1) to clean latents (t = 0).

`v` is the velocity along decreasing t, x_0 - eps, as the model predicts it.
"""

from collections.abc import Callable

from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]


def euler_step(v: Velocity, x: Tensor, t: float, t_next: float) -> Tensor:
    """x' = x + (t - t') v(x, t). One call of the model; the error falls with 1/steps."""
    return x + (t - t_next) * v(x, t)


def heun_step(v: Velocity, x: Tensor, t: float, t_next: float) -> Tensor:
    """x' = x + (t - t') (v(x, t) + v(x^, t')) / 2, x^ the Euler step (Karras et al. 2022, alg. 1, deterministic).

    Two calls of the model; the error falls with 1/steps^2.
    """
    slope = v(x, t)
    guess = x + (t - t_next) * slope
    return x + (t - t_next) * (slope + v(guess, t_next)) / 2
