"""The block and its parts against the formulas of DESIGN section 4, written down here once more, in float64."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as fn
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor

from nemo_summer.dit.attention import Segments
from nemo_summer.dit.block import Block, Joint
from nemo_summer.dit.condition import time_features
from nemo_summer.dit.config import DitConfig
from nemo_summer.dit.linear import PlainLinears
from nemo_summer.dit.position import Rotations, axes_of_layer, directions, frequencies, generalised_golden_ratio
from tests.nemo_summer.dit.packs import fill_zeros, random_pack

LENGTHS = (5, 9, 3)


def test_the_golden_ratios_are_the_published_ones() -> None:
    # Roberts 2018; the third is given in DESIGN section 4
    assert generalised_golden_ratio(1) == pytest.approx((1 + math.sqrt(5)) / 2, abs=1e-12)
    assert generalised_golden_ratio(2) == pytest.approx(1.32471795724474602596, abs=1e-12)
    assert generalised_golden_ratio(3) == pytest.approx(1.22074408, abs=5e-9)
    assert generalised_golden_ratio(3) ** 4 == pytest.approx(generalised_golden_ratio(3) + 1, abs=1e-12)


def test_the_first_direction_is_the_normal_quantile_of_the_inverse_powers_of_the_ratio() -> None:
    from statistics import NormalDist

    f = 1.2207440846057594
    quantiles = [NormalDist().inv_cdf(f**-power) for power in (1, 2, 3)]
    length = math.sqrt(sum(q * q for q in quantiles))
    assert directions(1, start=0.0)[0].tolist() == pytest.approx([q / length for q in quantiles], abs=1e-12)


def test_directions_cover_the_sphere_more_evenly_than_random_ones() -> None:
    def worst_gap(u_j3: Tensor) -> float:
        """Largest angle from any of 4,000 probes to its nearest direction or the opposite one."""
        probes = fn.normalize(torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
        return float((probes @ u_j3.T).abs().amax(1).clamp(max=1).acos().max())

    ours = worst_gap(directions(200, start=0.3))
    random = [torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in range(5)]
    assert ours < min(worst_gap(fn.normalize(u)) for u in random)


def test_a_tenth_of_the_frequencies_is_zero_and_the_rest_is_a_geometric_row() -> None:
    w = frequencies(40, zero_share=0.1, lowest=0.2, highest=20.0)
    assert (w == 0).sum() == 4 and (w[:4] == 0).all()
    assert w[4] == pytest.approx(0.2) and w[-1] == pytest.approx(20.0)
    assert torch.allclose(w[5:] / w[4:-1], torch.tensor(100 ** (1 / 35), dtype=torch.float64))


def test_each_layer_has_directions_of_its_own() -> None:
    cfg = DitConfig(width=64, heads=2, layers=8)
    for a in range(8):
        for b in range(a):
            difference = (axes_of_layer(cfg, a) - axes_of_layer(cfg, b)).norm(dim=0)
            turning = axes_of_layer(cfg, a).norm(dim=0) > 0
            assert (difference[turning] > 1e-3).all()


def test_time_features_are_those_of_diffusers_at_a_thousand_times_t() -> None:
    t_N = torch.tensor([0.0, 0.125, 0.5, 0.998])
    theirs = get_timestep_embedding(1000 * t_N, 64, flip_sin_to_cos=True, downscale_freq_shift=0)
    # they take the frequencies in float32: at an angle of 1,000 that is good to 1e-4
    assert torch.allclose(time_features(t_N, 64), theirs, atol=2e-4)


def block_by_formula(block: Block, x: Tensor, v_first: Tensor | None, time: Tensor, position: Tensor) -> Tensor:
    """One clip: x [T, D], time [Z], position [T, 3]. Loops and einsum only; every line one line of DESIGN section 4."""
    cfg, D, F, K = block.cfg, block.cfg.width, block.cfg.hidden, block.cfg.heads
    weights = {name: p.double() for name, p in block.named_parameters()}
    mod = weights["modulation.0.weight"] @ time + weights["modulation.0.bias"]
    mod = weights["modulation.2.weight"] @ (mod * torch.sigmoid(mod)) + weights["modulation.2.bias"]
    shift, scale, gate = mod[:D], mod[D : 2 * D], mod[2 * D :]
    norm = x / torch.sqrt((x * x).mean(1, keepdim=True) + 1e-6)
    u = (1 + scale) * norm + shift
    out = torch.einsum("td,od->to", u, weights["w_in.weight"])
    q, k, v, h1, h2 = (out[:, a:b] for a, b in zip([0, D, 2 * D, 3 * D, 3 * D + F], [D, 2 * D, 3 * D, 3 * D + F, None]))
    v = weights["value_mix"][0] * v + weights["value_mix"][1] * (v if v_first is None else v_first)
    R = D // K // 2
    u_dir = directions(K * R, start=(block.layer * (math.sqrt(5) - 1) / 2) % 1)
    w = frequencies(R, cfg.zero_frequency_share, cfg.frequency_min, cfg.frequency_max)

    def turned(z: Tensor) -> Tensor:
        z = z.clone()
        for head in range(K):
            for i in range(R):
                angle = w[i] * (position @ u_dir[head * R + i])
                a, b = head * 2 * R + i, head * 2 * R + R + i
                first, second = z[:, a].clone(), z[:, b].clone()
                z[:, a] = first * angle.cos() - second * angle.sin()
                z[:, b] = first * angle.sin() + second * angle.cos()
        return z

    q, k = turned(q), turned(k)
    heads = []
    for head in range(K):
        part = slice(head * 2 * R, (head + 1) * 2 * R)
        scores = torch.einsum("td,sd->ts", q[:, part], k[:, part]) / math.sqrt(2 * R)
        heads.append(torch.softmax(scores, dim=1) @ v[:, part])
    gated = h1 * torch.sigmoid(h1) * h2
    o = torch.cat([*heads, gated], dim=1) @ weights["w_out.weight"].T
    return x + (gate + cfg.layers**-cfg.gate_offset_exponent) * o


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_a_block_is_its_formula(layer: int, exponent: float) -> None:
    cfg = DitConfig(width=24, heads=2, layers=4, mlp_ratio=2.5, time_width=10, gate_offset_exponent=exponent)
    generator = torch.Generator().manual_seed(5)
    block = Block(cfg, layer, PlainLinears()).double()
    with torch.no_grad():
        for p in block.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    fill_zeros(block)
    J, N = sum(LENGTHS), len(LENGTHS)
    x_JD, time_NZ = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((J, 24), (N, 10)))
    v_first = torch.randn(J, 24, generator=generator, dtype=torch.float64)
    position_J3 = 2 * torch.rand(J, 3, generator=generator, dtype=torch.float64) - 1
    rotations = Rotations(cfg)
    joint = Joint(
        segments=Segments(LENGTHS, torch.tensor([0, 5, 14, 17], dtype=torch.int32)),
        clip_J=torch.tensor([0] * 5 + [1] * 9 + [2] * 3),
        time_NZ=time_NZ,
        turns=rotations.of_positions(position_J3),
    )
    found, v_next = block(x_JD, None if layer == 0 else v_first.view(J, 2, 12), joint)
    ends = [0, 5, 14, 17]
    for i, (a, b) in enumerate(itertools.pairwise(ends)):
        given = None if layer == 0 else v_first[a:b]
        wanted = block_by_formula(block, x_JD[a:b], given, time_NZ[i], position_J3[a:b])
        # the angles are float32 by design, up to 20 radians: 20 * 6e-8
        assert torch.allclose(found[a:b], wanted, atol=5e-6), f"clip {i}"
    if layer:
        assert torch.equal(v_next, v_first.view(J, 2, 12))


def test_without_its_blocks_the_model_is_projection_norm_shift_scale_projection() -> None:
    cfg = DitConfig(width=24, heads=2, layers=1, text_width=6, time_width=10, in_channels=12)
    model = cfg.build().double()
    fill_zeros(model, scale=0.3)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    weights["blocks.0.w_out.weight"].zero_()
    pack = random_pack([(2, 2, 2), (1, 3, 2)], [3, 2], channels=12, text_width=6)
    t_N = torch.tensor([0.25, 0.75])
    found = model(pack.latents_SE, t_N, pack).split([8, 6])
    for clip_SE, t, out_SE in zip(pack.latents_SE.double().split([8, 6]), t_N, found):

        def mlp(name: str, z: Tensor) -> Tensor:
            z = weights[f"{name}.0.weight"] @ z + weights[f"{name}.0.bias"]
            return weights[f"{name}.2.weight"] @ (z * torch.sigmoid(z)) + weights[f"{name}.2.bias"]

        shift, scale = mlp("final_modulation", mlp("time_mlp", time_features(t[None], 10)[0].double())).split(24)
        x_SD = clip_SE @ weights["patch_proj.weight"].T + weights["patch_proj.bias"]
        u_SD = (1 + scale) * x_SD / torch.sqrt((x_SD * x_SD).mean(1, keepdim=True) + 1e-6) + shift
        wanted = u_SD @ weights["final_proj.weight"].T + weights["final_proj.bias"]
        assert torch.allclose(out_SE.double(), wanted, atol=1e-5)  # the output is float32
