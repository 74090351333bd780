from collections.abc import Iterator

import pytest
import torch

from nemo_summer.dit.config import DitConfig
from nemo_summer.parallel.groups import ParallelGroups
from nemo_summer.parallel.init import start, stop
from tests.nemo_summer.dit.packs import fill_zeros, random_pack

CFG = DitConfig(width=48, heads=3, layers=3, text_width=8, time_width=16, in_channels=12, qk_norm=True)


@pytest.fixture(scope="module")
def groups() -> Iterator[ParallelGroups]:
    alone = start()
    yield alone
    stop(alone)


def test_megatrons_layers_compute_what_plain_ones_do(groups: ParallelGroups) -> None:
    from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear

    from nemo_summer.dit.megatron import MegatronDit

    plain, megatron = CFG.build(), MegatronDit(CFG, groups)
    assert isinstance(megatron.blocks[0].w_in, ColumnParallelLinear)
    assert isinstance(megatron.blocks[0].w_out, RowParallelLinear)
    fill_zeros(plain)
    megatron.load_state_dict(plain.state_dict())
    pack = random_pack([(2, 3, 4), (3, 2, 2)], [4, 6], channels=12, text_width=8)
    t_N = torch.tensor([0.2, 0.7])
    outputs = [model(pack.latents_SE, t_N, pack) for model in (plain, megatron)]
    assert torch.allclose(*outputs, atol=1e-6)
    for out in outputs:
        (out - pack.latents_SE).square().mean().backward()
    for (name, p), (_, m) in zip(plain.named_parameters(), megatron.named_parameters()):
        assert p.grad.any(), name
        assert torch.allclose(p.grad, m.grad, atol=1e-6), name


def test_both_back_ends_have_the_same_names_and_starting_weights(groups: ParallelGroups) -> None:
    from nemo_summer.dit.megatron import MegatronDit

    plain, megatron = CFG.build().state_dict(), MegatronDit(CFG, groups).state_dict()
    assert list(plain) == list(megatron)
    assert all(torch.equal(plain[name], megatron[name]) for name in plain)


def test_the_names_are_those_that_the_rules_know() -> None:
    own = {"patch_proj.weight", "text_proj.bias", "time_mlp.0.weight", "time_mlp.2.bias", "final_modulation.2.weight"}
    own |= {"blocks.2.w_in.weight", "blocks.2.w_out.weight", "blocks.0.modulation.0.bias", "blocks.1.value_mix"}
    shapes = {name: tuple(p.shape) for name, p in CFG.build().state_dict().items()}
    assert own <= set(shapes)
    assert shapes["blocks.0.w_in.weight"] == (3 * 48 + 2 * 192, 48)
    assert shapes["blocks.0.w_out.weight"] == (48, 48 + 192)


def test_checkpoints_see_every_parameter_once_and_whole(groups: ParallelGroups) -> None:
    from nemo_summer.dit.megatron import MegatronDit

    model = MegatronDit(CFG, groups)
    shards = model.sharded_state_dict(prefix="model.")
    assert set(shards) == {f"model.{name}" for name in model.state_dict()}
    for name, p in model.named_parameters():
        assert shards[f"model.{name}"].global_shape == tuple(p.shape)
        assert shards[f"model.{name}"].data.data_ptr() == p.data_ptr()


def test_a_half_precision_model_without_a_gpu_is_refused(groups: ParallelGroups) -> None:
    from nemo_summer.dit.megatron import MegatronDit

    if groups.device.type == "cuda":
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match=r"torch\.float32 on this machine"):
        MegatronDit(CFG, groups, dtype=torch.bfloat16)
