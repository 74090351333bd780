"""Formulas of the objective against closed forms, derivatives and Monte Carlo."""

import math

import pytest
import torch

from nemo_summer.diffusion.loss import fixed_levels, fresh_error_S, linear_denoiser_loss, squared_error_S
from nemo_summer.diffusion.noise import noise_for
from nemo_summer.diffusion.path import clean_from, interpolate, noise_from, velocity
from nemo_summer.diffusion.time import ObjectiveConfig, shift_of, shift_time, time_grid, time_of
from nemo_summer.diffusion.weight import WeightKind, level_weight


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    clean, noise = torch.randn(2, 50, 6, generator=generator, dtype=torch.float64)
    return clean, noise


def test_velocity_is_minus_the_time_derivative_of_the_path(pair):
    clean, noise = pair
    t = torch.tensor(0.37, dtype=torch.float64)
    _, slope = torch.func.jvp(lambda t: interpolate(clean, noise, t), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(velocity(clean, noise), -slope)


def test_the_true_velocity_leads_back_to_both_ends_of_the_path(pair):
    clean, noise = pair
    t = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    x = interpolate(clean, noise, t)
    torch.testing.assert_close(clean_from(x, velocity(clean, noise), t), clean)
    torch.testing.assert_close(noise_from(x, velocity(clean, noise), t), noise)


def test_quantiles_of_the_time_are_those_of_a_logit_normal():
    cfg = ObjectiveConfig(logit_mean=0.3, logit_std=1.7, uniform_share=0.0)
    t = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    # the distribution function, written down independently: Phi((logit t - mean) / std)
    u = torch.special.ndtr((torch.log(t / (1 - t)) - 0.3) / 1.7)
    torch.testing.assert_close(time_of(u, cfg, 280), t.float())


def test_the_uniform_share_is_uniform_and_not_shifted():
    cfg = ObjectiveConfig(uniform_share=0.1)
    u = torch.arange(100, dtype=torch.float64) / 1000
    torch.testing.assert_close(time_of(u, cfg, 9680), (u * 10).float())


def test_every_noise_level_gets_at_least_the_uniform_share():
    cfg = ObjectiveConfig(uniform_share=0.1)
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    counts = torch.histc(time_of(u, cfg, 9680), bins=20, min=0, max=1) / len(u) * 20
    assert counts.min() > 0.0999


def test_time_stays_within_zero_and_one_at_the_ends_of_the_interval():
    u = torch.tensor([0.0, 0.1, 0.1 + 1e-17, 1 - 2**-53], dtype=torch.float64)
    for share in (0.0, 0.1, 1.0):
        t = time_of(u, ObjectiveConfig(uniform_share=share), 9680)
        assert t.isfinite().all() and (t >= 0).all() and (t <= 1).all()


def test_shift_is_one_for_a_small_clip_three_for_a_long_one_and_linear_in_the_root_between():
    cfg = ObjectiveConfig()
    assert float(shift_of(280, cfg)) == 1 and float(shift_of(9680, cfg)) == 3
    assert float(shift_of(10, cfg)) == 1 and float(shift_of(50_000, cfg)) == 3
    middle = ((math.sqrt(280) + math.sqrt(9680)) / 2) ** 2
    assert float(shift_of(torch.tensor(middle), cfg)) == pytest.approx(2)


def test_shift_multiplies_the_odds_of_noise():
    t = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    moved = shift_time(t, 3.0)
    torch.testing.assert_close(moved / (1 - moved), 3 * t / (1 - t))


def test_the_time_grid_falls_from_noise_to_clean():
    grid = time_grid(7, 3.0)
    assert grid[0] == 1 and grid[-1] == 0 and len(grid) == 8 and (grid.diff() < 0).all()


def test_the_linear_denoiser_loss_is_what_least_squares_finds():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    for t in fixed_levels(8):
        x, v = interpolate(clean, noise, t), velocity(clean, noise)
        slope = (x * v).mean() / (x * x).mean()
        assert float((v - slope * x).square().mean()) == pytest.approx(float(linear_denoiser_loss(t)), rel=0.01)


def test_fixed_levels_are_the_middles_of_eight_equal_bins():
    assert fixed_levels(8).tolist() == [0.0625, 0.1875, 0.3125, 0.4375, 0.5625, 0.6875, 0.8125, 0.9375]


def test_weights_turn_the_velocity_error_into_the_error_of_the_clean_latents_or_the_noise(pair):
    clean, noise = pair
    t = torch.tensor(0.3, dtype=torch.float64)
    x, v = interpolate(clean, noise, t), velocity(clean, noise)
    guess = v + 0.1 * torch.randn(v.shape, generator=torch.Generator().manual_seed(1), dtype=v.dtype)
    error = (guess - v).square().mean()
    wanted = {
        WeightKind.clean: (clean_from(x, guess, t) - clean).square().mean(),
        WeightKind.noise: (noise_from(x, guess, t) - noise).square().mean(),
        WeightKind.velocity: error,
    }
    for kind, value in wanted.items():
        torch.testing.assert_close(level_weight(t, kind) * error, value)


def test_the_squared_error_of_a_token_is_the_mean_over_its_numbers_in_float32():
    v, target = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(5)).bfloat16()
    found = squared_error_S(v, target)
    wanted = torch.nn.functional.mse_loss(v.float(), target.float(), reduction="none").mean(1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)


def test_a_repeated_frame_counts_nothing_and_halves_its_tokens_weight():
    v, target = torch.randn(2, 6, 96, generator=torch.Generator().manual_seed(6))
    repeated = torch.tensor([False, False, True, False, True, False])
    error, share = fresh_error_S(v, target, repeated)
    # within a token the numbers lie channel by channel, two latent frames each: the even ones are the first frame
    for k in range(6):
        own = slice(0, None, 2) if repeated[k] else slice(None)
        torch.testing.assert_close(error[k], (v[k, own] - target[k, own]).square().mean())
    assert share.tolist() == [1, 1, 0.5, 1, 0.5, 1]


def test_noise_of_a_clip_does_not_depend_on_its_neighbours():
    seeds, lengths = torch.tensor([7, 2**62, 0]), torch.tensor([5, 300, 12])
    together = noise_for(seeds, lengths, 96).split(lengths.tolist())
    for k, order in enumerate([2, 0, 1]):
        alone = noise_for(seeds[order : order + 1], lengths[order : order + 1], 96)
        assert torch.equal(together[order], alone), k
    assert not torch.equal(together[0][0], together[2][0])


def test_noise_is_standard_normal():
    eps = noise_for(torch.arange(50), torch.full((50,), 40), 96)
    assert abs(float(eps.mean())) < 0.01 and abs(float(eps.std()) - 1) < 0.01


@pytest.mark.parametrize(
    "bad", [{"logit_std": 0}, {"uniform_share": 1.5}, {"shift_max": 0}, {"shift_min_tokens": 9680}]
)
def test_settings_that_mean_nothing_are_refused_with_their_name(bad):
    with pytest.raises(ValueError, match=f"objective.{next(iter(bad))}"):
        ObjectiveConfig(**bad)
