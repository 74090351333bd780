"""The power average against its integral and the widths that Karras et al. 2024 name."""

import math
from pathlib import Path

import pytest
import torch

from nemo_summer.ema.power import EmaConfig, average, choose_exponent, power_weights, sigma_rel, step_of


def paths(steps) -> list[Path]:
    return [Path(f"run/step_{step:08d}") for step in steps]


def own_time(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint whose only weight is the share of the run at which it was written (of 4,000 steps)."""
    return {"w": torch.tensor([step_of(path) / 4000])}


@pytest.mark.parametrize("gamma", [0, 1, 6.94, 16.97])
def test_the_average_of_the_time_itself_is_its_integral(gamma):
    found = float(average(paths(range(1, 4001)), gamma, own_time)["w"])
    assert found == pytest.approx((gamma + 1) / (gamma + 2), rel=1e-3)


@pytest.mark.parametrize(("gamma", "sigma"), [(16.97, 0.05), (6.94, 0.10), (3.56, 0.15), (1.83, 0.20)])
def test_widths_are_those_of_the_paper(gamma, sigma):
    assert sigma_rel(gamma) == pytest.approx(sigma, abs=2e-4)


def test_the_width_is_the_deviation_of_the_weights_over_the_run():
    t = torch.arange(1, 20_001, dtype=torch.float64) / 20_000
    w = power_weights(range(1, 20_001), 6.94)
    mean = float((w * t).sum())
    assert math.sqrt(float((w * (t - mean) ** 2).sum())) == pytest.approx(sigma_rel(6.94), rel=1e-3)


def test_weights_are_those_of_the_definition_and_sum_to_one():
    w = power_weights([100, 200, 400], 2)
    torch.testing.assert_close(w, torch.tensor([1.0, 4.0, 16.0], dtype=torch.float64) / 21)


def test_huge_steps_and_exponents_do_not_overflow():
    w = power_weights([10**9, 2 * 10**9], 500)
    assert w.isfinite().all() and float(w[1]) == pytest.approx(1)


def test_an_infinite_exponent_is_the_last_checkpoint():
    assert float(average(paths([1000, 4000]), math.inf, own_time)["w"]) == 1.0


def test_the_average_of_equal_checkpoints_is_that_checkpoint():
    weights = {"a": torch.randn(30, 7), "b": torch.randn(3).bfloat16(), "steps": torch.tensor(5)}
    found = average(paths(range(10, 200, 10)), 6.94, lambda path: weights)
    torch.testing.assert_close(found["a"], weights["a"])
    assert torch.equal(found["b"], weights["b"]) and found["b"].dtype == torch.bfloat16
    assert torch.equal(found["steps"], weights["steps"])


def test_the_order_of_the_paths_does_not_matter():
    some = paths([4000, 100, 2000])
    assert torch.equal(average(some, 2, own_time)["w"], average(sorted(some), 2, own_time)["w"])


def test_checkpoints_are_read_one_at_a_time():
    alive: list[int] = []

    class Watched(dict):
        def __init__(self, *args):
            super().__init__(*args)
            alive.append(1)

        def __del__(self):
            alive.pop()

    def read(path):
        # the one before is still held while this one is read; no more
        assert len(alive) <= 1
        return Watched(own_time(path))

    average(paths(range(1, 20)), 1, read)


def test_reading_does_not_change_what_was_read():
    first = {"w": torch.tensor([1.0])}
    average(paths([1, 2]), 1, lambda path: first if step_of(path) == 1 else {"w": torch.tensor([4.0])})
    assert float(first["w"]) == 1.0


def test_checkpoints_of_another_model_are_refused_with_path_and_name():
    def read(path):
        return {"w": torch.zeros(2 if step_of(path) == 1 else 3)}

    with pytest.raises(ValueError, match=r"step_00000002 does not fit .* at w"):
        average(paths([1, 2]), 1, read)
    with pytest.raises(ValueError, match="its name must be step_"):
        average([Path("run/last")], 1, read)
    with pytest.raises(ValueError, match="needs checkpoints"):
        average([], 1, read)


def test_the_exponent_with_the_lowest_loss_is_chosen_and_all_are_told():
    # the average is (g + 1) / (g + 2): a score that wants 0.8 wants g = 3
    choice = choose_exponent(paths(range(1, 4001, 10)), [1, 2, 3, 6.94], lambda w: abs(float(w["w"]) - 0.8), own_time)
    assert choice.best.gamma == 3 and [trial.gamma for trial in choice.table] == [1, 2, 3, 6.94]
    assert choice.best.sigma_rel == sigma_rel(3)


def test_an_average_without_a_finite_loss_is_never_chosen():
    losses = iter([math.nan, 2.0, math.inf])
    assert choose_exponent(paths([1]), [1, 2, 4], lambda w: next(losses), own_time).best.gamma == 2
    with pytest.raises(ValueError, match="finite loss"):
        choose_exponent(paths([1]), [1], lambda w: math.nan, own_time)


def test_settings_without_an_exponent_are_refused():
    with pytest.raises(ValueError, match=r"ema\.gammas"):
        EmaConfig(gammas=[])
