import pytest
import torch

from nemo_summer.dit.config import DitConfig
from nemo_summer.plan.memory import estimate_memory, show_bytes
from tests.nemo_summer.dit.packs import random_pack


@pytest.mark.parametrize(
    "cfg",
    [DitConfig(width=128, heads=4, layers=3), DitConfig(width=64, heads=4, layers=2, mlp_ratio=2.0, time_width=32)],
)
def test_activations_are_what_autograd_keeps(cfg: DitConfig) -> None:
    model, pack = cfg.build(), random_pack([(4, 4, 7)] * 3, [20, 3, 7])
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def note(saved: torch.Tensor) -> torch.Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved  # held, so that no address is used twice
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        model(pack.latents_SE, torch.rand(3), pack).sum()
    measured = sum(x.untyped_storage().nbytes() for address, x in kept.items() if address not in weights)
    estimate = estimate_memory(cfg, tokens=pack.tokens + len(pack.text_LD)).activations
    assert estimate == pytest.approx(measured, rel=0.1)


def test_adam_in_float32_takes_sixteen_bytes_per_parameter_and_in_bfloat16_eighteen() -> None:
    # weights + float32 gradients + two float32 moments (+ float32 copy): ZeRO, Rajbhandari et al. 2020, sec. 3.1
    cfg = DitConfig()
    for bytes_per_number, wanted in ((4, 16), (2, 18)):
        memory = estimate_memory(cfg, tokens=0, bytes_per_number=bytes_per_number)
        assert memory.total == wanted * cfg.parameter_count()


def test_ranks_share_the_optimizers_state_and_nothing_else() -> None:
    cfg = DitConfig()
    one, four = estimate_memory(cfg, 1000), estimate_memory(cfg, 1000, ranks=4)
    assert four.optimizer == one.optimizer // 4
    assert (four.weights, four.gradients, four.activations) == (one.weights, one.gradients, one.activations)


def test_the_sentences_name_each_part() -> None:
    words = " ".join(estimate_memory(DitConfig(), 2600, ranks=2).sentences())
    for part in ("parameters", "weights", "gradients", "optimizer", "activations", "shared by 2 ranks"):
        assert part in words


def test_sizes_are_readable() -> None:
    assert show_bytes(3 * 2**20) == "3 MiB" and show_bytes(2.5 * 2**30) == "2.5 GiB"
