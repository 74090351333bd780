"""The learning rate over a run against straight lines."""

import pytest

from nemo_summer.optim.schedule import lr_factor


def test_it_rises_stays_and_falls_along_straight_lines() -> None:
    factors = [lr_factor(step, 1000, warmup_steps=100) for step in range(1000)]
    assert factors[:100] == pytest.approx([(i + 1) / 100 for i in range(100)])
    assert factors[100:981] == [1.0] * 881
    assert factors[980:] == pytest.approx([1 - i / 20 for i in range(20)])
    assert sum(factors) == pytest.approx(100 * 101 / 200 + 880 + 20 * 21 / 40)  # trapezoids


def test_no_step_is_wasted_on_a_rate_of_zero() -> None:
    for steps in (1, 2, 7, 50, 333):
        for warmup in (0, 1, 5, 400):
            assert all(0 < lr_factor(step, steps, warmup) <= 1 for step in range(steps))


def test_without_warm_up_and_cool_down_it_is_constant() -> None:
    assert {lr_factor(step, 40, 0, cooldown_share=0.0) for step in range(40)} == {1.0}


@pytest.mark.parametrize("step", [-1, 10, 11])
def test_outside_the_run_there_is_none(step: int) -> None:
    with pytest.raises(ValueError, match=r"train\.steps"):
        lr_factor(step, 10, 2)
