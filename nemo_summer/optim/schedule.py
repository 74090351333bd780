"""The learning rate over a run: warm-up, constant, cool-down."""


def lr_factor(step: int, steps: int, warmup_steps: int, cooldown_share: float = 0.02) -> float:
    """Factor in (0, 1] on the peak learning rate for the update that follows `step` finished updates of `steps`.

    Linear from `1/warmup_steps` to 1, then 1, then linear down from `(1 - cooldown_share) steps` on; the line meets 0
    at `steps`, one update after the last (Summer-22B sec. 4.4; to-zero reconstructed). ValueError outside the run.
    """
    if not 0 <= step < steps:
        raise ValueError(f"there is no learning rate for update {step + 1} of a run of {steps}: set train.steps higher")
    rise = (step + 1) / warmup_steps if warmup_steps else 1.0
    fall = (steps - step) / (cooldown_share * steps) if cooldown_share else 1.0
    return min(1.0, rise, fall)
