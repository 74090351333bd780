import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nemo_summer.dit.config import DitConfig
from nemo_summer.plan.flops import Peak, count_flops, peak_of, train_flops, utilisation
from tests.nemo_summer.dit.packs import fill_zeros, random_pack

VIDEO, TEXT = [36, 4, 60], [5, 1, 9]


@pytest.mark.parametrize(
    "cfg",
    [
        DitConfig(width=32, heads=2, layers=3, text_width=8, time_width=16, in_channels=12),
        DitConfig(width=48, heads=3, layers=2, mlp_ratio=2.5, text_width=20, time_width=10, in_channels=24),
    ],
)
def test_the_formula_counts_what_torch_counts(cfg: DitConfig) -> None:
    model = cfg.build()
    fill_zeros(model)
    pack = random_pack([(4, 3, 3), (1, 2, 2), (5, 3, 4)], TEXT, channels=cfg.in_channels, text_width=cfg.text_width)
    assert pack.lengths_N().tolist() == VIDEO
    with sdpa_kernel(SDPBackend.MATH):  # torch counts its fused CPU attention as nothing
        with FlopCounterMode(display=False) as forward:
            loss = model(pack.latents_SE, torch.rand(3), pack).square().sum()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    ours = count_flops(cfg, VIDEO, TEXT)
    # torch also sees the product that makes the angles, [J, 3] x [3, D/2]: no weights, no gradient
    angles = cfg.layers * (sum(VIDEO) + sum(TEXT)) * 3 * cfg.width
    assert ours.forward == forward.get_total_flops() - angles
    assert ours.train - ours.forward == backward.get_total_flops()


def test_at_scale_a_token_costs_six_flops_per_weight_of_its_matrices() -> None:
    # Kaplan et al. 2020, sec. 2.1: 6 N per token plus attention
    cfg = DitConfig(width=6144, heads=48, layers=30)
    weights = 30 * 16 * 6144**2
    flops = train_flops(cfg, [9680], [320])
    attention = 30 * 12 * 10_000**2 * 6144
    assert flops == pytest.approx(6 * weights * 10_000 + attention, rel=2e-3)


def test_packing_costs_less_than_one_long_clip() -> None:
    cfg = DitConfig()
    packed, long = count_flops(cfg, [280] * 9, [8] * 9), count_flops(cfg, [2520], [72])
    assert packed.attention * 9 == long.attention


def test_half_the_peak_is_a_utilisation_of_a_half() -> None:
    assert utilisation(flops=4e12, seconds=2.0, peak=Peak(1e12, "made up"), devices=4) == pytest.approx(0.5)


def test_the_peak_of_a_cpu_is_measured_and_says_so() -> None:
    peak = peak_of("cpu")
    assert "measured on cpu" in peak.source
    assert 1e9 < peak.flops_per_s < 1e14


def test_clips_without_their_captions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 clips with video tokens, 1 with caption tokens"):
        count_flops(DitConfig(), [3, 4], [1])
