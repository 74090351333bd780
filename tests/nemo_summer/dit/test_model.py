import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from energon_datasets.batch import PackedBatch
from nemo_summer.dit.config import DitConfig
from nemo_summer.dit.linear import PlainLinears
from nemo_summer.dit.model import Dit, joint_order, unit_rows
from nemo_summer.dit.position import Rotations, rotate
from nemo_summer.dit.presets import PRESETS, preset
from tests.nemo_summer.dit.packs import fill_zeros, random_pack

CFG = DitConfig(width=48, heads=3, layers=3, text_width=8, time_width=16, in_channels=12)
GRIDS = [(2, 3, 4), (1, 1, 1), (5, 2, 3)]
TEXTS = [4, 1, 7]


def busy_model(cfg: DitConfig = CFG) -> Dit:
    """A model whose output is not zero."""
    model = cfg.build()
    fill_zeros(model, scale=0.2)
    return model


def pack_of(grids: list[tuple[int, int, int]] = GRIDS, texts: list[int] = TEXTS, seed: int = 0) -> PackedBatch:
    return random_pack(grids, texts, seed=seed, channels=12, text_width=8)


def clip_of(pack: PackedBatch, i: int) -> PackedBatch:
    """Clip `i` alone in a pack."""
    video = slice(int(pack.video_ends_N[i] - pack.lengths_N()[i]), int(pack.video_ends_N[i]))
    text = slice(int(pack.text_ends_N[i] - pack.text_lengths_N()[i]), int(pack.text_ends_N[i]))
    alone = {f.name: getattr(pack, f.name)[i : i + 1] for f in fields(pack) if f.name.endswith(("_N", "_N3"))}
    return replace(
        pack,
        **alone | {"video_ends_N": pack.lengths_N()[i : i + 1], "text_ends_N": pack.text_lengths_N()[i : i + 1]},
        latents_SE=pack.latents_SE[video],
        position_S3=pack.position_S3[video],
        text_LD=pack.text_LD[text],
        clip_ids=pack.clip_ids[i : i + 1],
    )


def test_a_pack_gives_each_clip_what_it_gets_alone() -> None:
    model, pack = busy_model(), pack_of()
    t_N = torch.tensor([0.1, 0.5, 0.9])
    packed = model(pack.latents_SE, t_N, pack).split(pack.lengths_N().tolist())
    for i, found in enumerate(packed):
        alone = clip_of(pack, i)
        assert torch.allclose(found, model(alone.latents_SE, t_N[i : i + 1], alone), atol=1e-5)


def test_every_input_of_a_clip_reaches_its_output_and_no_other_clip() -> None:
    model, pack = busy_model(), pack_of()
    noisy = pack.latents_SE.clone().requires_grad_()
    text = pack.text_LD.clone().requires_grad_()
    t_N = torch.rand(3, dtype=torch.float64, requires_grad=True)
    out = model(noisy, t_N, replace(pack, text_LD=text))
    first, last = int(pack.video_ends_N[1]), int(pack.video_ends_N[2])
    grads = torch.autograd.grad(out[first:last].square().sum(), [noisy, text, t_N])
    for grad, ends in zip(grads, (pack.video_ends_N, pack.text_ends_N, torch.tensor([1, 2, 3]))):
        assert (grad[: ends[1]] == 0).all()
        assert (grad[ends[1] : ends[2]] != 0).all()


def test_scores_depend_on_differences_of_positions_only() -> None:
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(20, 3, 16, generator=generator) for _ in range(2))
    here = torch.rand(20, 3, generator=generator) - 0.5
    shift = torch.tensor([0.4, -0.3, 0.25])

    def scores(position_J3: Tensor) -> Tensor:
        turns = Rotations(CFG).of_positions(position_J3)[1]
        return torch.einsum("ikd,jkd->kij", rotate(q, *turns), rotate(k, *turns))

    assert torch.allclose(scores(here), scores(here + shift), atol=2e-4)
    assert not torch.allclose(scores(here), scores(2 * here), atol=1e-1)


def test_text_tokens_are_not_turned() -> None:
    for cos_JKR, sin_JKR in Rotations(CFG).of_positions(torch.zeros(4, 3)):
        assert (cos_JKR == 1).all() and (sin_JKR == 0).all()


def test_the_joint_sequence_has_each_clips_text_before_its_video() -> None:
    pack = pack_of()
    order_J, video_S = joint_order(pack)
    rows = [(clip, "text") for clip, n in enumerate(TEXTS) for _ in range(n)]
    rows += [(clip, "video") for clip, (t, h, w) in enumerate(GRIDS) for _ in range(t * h * w)]
    ordered = [rows[i] for i in order_J]
    assert ordered == sorted(rows)
    assert [order_J[place] for place in video_S] == list(range(sum(TEXTS), len(rows)))


def test_a_new_model_says_zero_and_leaves_rows_of_length_one() -> None:
    model, pack = CFG.build(), pack_of()
    assert (model(pack.latents_SE, torch.rand(3), pack) == 0).all()
    free = ("modulation.2.weight", "final_proj.weight")
    for name, p in model.named_parameters():
        if p.dim() == 2 and not name.endswith(free):
            assert torch.allclose(p.norm(dim=1), torch.ones(len(p)), atol=1e-6), name
        else:
            assert (p == (0.5 if name.endswith("value_mix") else 0)).all(), name


def test_rows_start_in_all_directions_alike() -> None:
    w = unit_rows((4000, 32), seed=0, name="x")
    # each of the 32 squares has mean 1/32 and, over 4,000 rows, a standard error of about 1/32 * sqrt(2/4000)
    assert (w.square().mean(0) * 32 - 1).abs().max() < 4 * math.sqrt(2 / 4000)
    assert w.mean(0).abs().max() < 4 / math.sqrt(4000 * 32)


def test_starting_weights_depend_on_seed_and_name_alone() -> None:
    deep = replace(CFG, layers=5).build().state_dict()
    for name, p in CFG.build().state_dict().items():
        assert torch.equal(p, deep[name]), name
    other = replace(CFG, seed=1).build().state_dict()
    assert not torch.equal(other["blocks.0.w_in.weight"], deep["blocks.0.w_in.weight"])
    assert not torch.equal(deep["blocks.0.w_in.weight"], deep["blocks.1.w_in.weight"])


def test_starting_weights_leave_the_generator_of_torch_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    unit_rows((4, 4), seed=0, name="x")
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("name", PRESETS)
def test_the_formula_counts_the_parameters(name: str) -> None:
    cfg = preset(name)
    with torch.device("meta"):
        model = Dit(cfg, PlainLinears())
    assert cfg.parameter_count() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "millions"), [("toy", 2), ("30m", 30), ("1b", 1000), ("22b", 22000)])
def test_presets_have_the_size_of_their_name(name: str, millions: float) -> None:
    assert preset(name).parameter_count() == pytest.approx(millions * 1e6, rel=0.05)


def test_the_text_encoders_scale_does_not_matter() -> None:
    model, pack = busy_model(), pack_of()
    t_N = torch.rand(3)
    loud = replace(pack, text_LD=50 * pack.text_LD)
    assert torch.allclose(model(pack.latents_SE, t_N, pack), model(pack.latents_SE, t_N, loud), atol=1e-5)


def test_qk_norm_makes_the_scale_of_queries_and_keys_irrelevant() -> None:
    pack, t_N = pack_of(), torch.rand(3)
    for qk_norm in (True, False):
        model = busy_model(replace(CFG, qk_norm=qk_norm))
        before = model(pack.latents_SE, t_N, pack)
        with torch.no_grad():
            for block in model.blocks:
                block.w_in.weight[: 2 * CFG.width] *= 8
        assert torch.allclose(before, model(pack.latents_SE, t_N, pack), atol=1e-4) == qk_norm


def test_in_bfloat16_the_output_is_float32_and_close() -> None:
    model, pack, t_N = busy_model(), pack_of(), torch.rand(3)
    wanted = model(pack.latents_SE, t_N, pack)
    found = model.bfloat16()(pack.latents_SE, t_N, pack)
    assert found.dtype == torch.float32
    # a bfloat16 number has 8 bits; three blocks
    assert (found - wanted).norm() < 0.03 * wanted.norm()


@pytest.mark.parametrize(
    ("settings", "knob"),
    [
        ({"width": 100, "heads": 3}, "model.width=96"),
        ({"time_width": 7}, "model.time_width=8"),
        ({"layers": 0}, "model.layers"),
        ({"frequency_min": 0.0}, "model.frequency_min"),
        ({"mlp_ratio": 0.0}, "model.mlp_ratio"),
    ],
)
def test_impossible_sizes_name_the_knob(settings: dict[str, float], knob: str) -> None:
    with pytest.raises(ValueError, match=knob):
        DitConfig(**settings)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="model=toy"):
        preset("toyy")
