import pytest
import torch

from nemo_summer.dit.config import DitConfig
from nemo_summer.optim.config import OptimConfig
from nemo_summer.optim.rules import Init, describe, rules_for

CFG = DitConfig(width=64, heads=2, layers=4, text_width=16, time_width=32)


def shapes_of(cfg: DitConfig) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in cfg.build().named_parameters()}


def test_all_parameters_of_the_transformer_have_a_rule_and_only_its_linear_matrices_are_constrained() -> None:
    model = CFG.build()
    rules = rules_for(shapes_of(CFG), OptimConfig())
    assert rules.keys() == dict(model.named_parameters()).keys()
    free = {name for name, p in model.named_parameters() if p.dim() == 2 and not rules[name].sphere}
    last = [f"blocks.{i}.modulation.2.weight" for i in range(4)]
    assert free == {"final_proj.weight", "final_modulation.2.weight", *last}
    assert not any(rules[name].sphere for name, p in model.named_parameters() if p.dim() != 2)


def test_constrained_rows_start_on_the_sphere_and_free_matrices_at_zero() -> None:
    model = CFG.build()
    for name, rule in rules_for(shapes_of(CFG), OptimConfig()).items():
        weight = model.get_parameter(name).detach()
        if rule.sphere:
            torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)))
        assert rule.init is not Init.ZERO or not weight.any(), name


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("patch_proj.weight", 32 / 96),
        ("text_proj.weight", 32 / 16),
        ("blocks.0.w_in.weight", 32 / 64),
        ("blocks.1.w_in.weight", 0.3 * 32 / 64),
        ("blocks.2.w_out.weight", 0.3 * 32 / (64 + 256)),
        ("blocks.3.w_out.weight", 32 / (64 + 256)),
        ("final_proj.weight", 32 / 64),
        ("final_proj.bias", 0.01),
        ("blocks.2.value_mix", 0.01),
        ("time_mlp.0.weight", 0.1),
        ("blocks.1.modulation.2.weight", 0.1),
        ("final_modulation.0.weight", 0.1),
    ],
)
def test_learning_rates_are_those_of_mup(name: str, factor: float) -> None:
    assert rules_for(shapes_of(CFG), OptimConfig())[name].lr_mult == pytest.approx(factor)


def test_twice_the_width_halves_the_rate_of_hidden_matrices_and_leaves_all_others() -> None:
    narrow = rules_for(shapes_of(CFG), OptimConfig())
    wide = rules_for(shapes_of(DitConfig(width=128, heads=4, layers=4, text_width=16, time_width=32)), OptimConfig())
    hidden = {f"blocks.{i}.{w}.weight" for i in range(4) for w in ("w_in", "w_out")} | {"final_proj.weight"}
    for name, rule in narrow.items():
        assert wide[name].lr_mult == pytest.approx(rule.lr_mult / (2 if name in hidden else 1)), name


def test_a_model_of_one_or_two_blocks_has_no_middle() -> None:
    for layers in (1, 2):
        rules = rules_for(shapes_of(DitConfig(width=64, heads=2, layers=layers)), OptimConfig())
        assert {rules[f"blocks.{i}.w_in.weight"].lr_mult for i in range(layers)} == {0.5}


@pytest.mark.parametrize(
    ("name", "shape"),
    [("head.weight", (3, 4)), ("blocks.0.w_mid.weight", (3, 4)), ("blocks.0.value_mix.2", (2,)), ("position", (3,))],
)
def test_a_parameter_without_a_rule_is_named(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"{name} of shape .* has no rule"):
        rules_for({name: shape}, OptimConfig())


def test_a_shape_that_no_rule_expects_is_named() -> None:
    with pytest.raises(ValueError, match=r"patch_proj.weight has shape \(4, 3, 2, 1\)"):
        rules_for({"patch_proj.weight": (4, 3, 2, 1)}, OptimConfig())


def test_the_table_shows_each_family_once_with_its_rate() -> None:
    shapes = shapes_of(CFG)
    lines = describe(rules_for(shapes, OptimConfig()), shapes, lr=0.05).splitlines()
    middle = next(line for line in lines if line.startswith("blocks.*.w_in.weight (2: 1-2)"))
    assert middle.split()[-5:] == ["0.0075", "=", "0.05", "x", "0.15"] and "unit length" in middle
    assert len(lines) == len(set(lines)) and sum("value_mix" in line for line in lines) == 1


@pytest.mark.parametrize("setting", [{"lr": 0.0}, {"beta2": 1.0}, {"clip_grad": -1.0}, {"warmup_steps": -1}])
def test_settings_that_cannot_work_are_refused_by_name(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"optim.{next(iter(setting))}="):
        OptimConfig(**setting)
