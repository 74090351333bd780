from collections.abc import Iterator

import pytest
import torch

from nemo_summer.parallel.groups import ParallelGroups
from nemo_summer.parallel.init import start, stop
from nemo_summer.parallel.schedule import replicate, run_rounds
from tests.nemo_summer.dit.packs import fill_zeros
from tests.ranks.gradients import CFG, loss_of, packs


@pytest.fixture(scope="module")
def groups() -> Iterator[ParallelGroups]:
    alone = start(threads=1)
    yield alone
    stop(alone)


@pytest.fixture(scope="module")
def model(groups: ParallelGroups) -> torch.nn.Module:
    from nemo_summer.dit.megatron import MegatronDit

    bare = MegatronDit(CFG, groups)
    fill_zeros(bare)
    return replicate(bare, groups)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.main_grad.clone() for name, p in model.named_parameters()}


def test_rounds_are_weighted_by_their_tokens_not_equally(groups: ParallelGroups, model: torch.nn.Module) -> None:
    run_rounds(groups, model, packs(), loss_of)
    together = gradients(model)
    one_by_one = []
    for pack in packs():
        run_rounds(groups, model, [pack], loss_of)
        weight = float(loss_of(model, pack).tokens)
        one_by_one.append((weight, gradients(model)))
    total = sum(weight for weight, _ in one_by_one)
    for name, found in together.items():
        wanted = sum(weight / total * g[name] for weight, g in one_by_one)
        assert torch.allclose(found, wanted, atol=1e-7), name


def test_a_second_call_starts_from_zero(groups: ParallelGroups, model: torch.nn.Module) -> None:
    run_rounds(groups, model, packs(), loss_of)
    first = gradients(model)
    run_rounds(groups, model, packs(), loss_of)
    assert all(torch.equal(first[name], g) for name, g in gradients(model).items())


def test_looking_only_leaves_the_gradients_alone(groups: ParallelGroups, model: torch.nn.Module) -> None:
    run_rounds(groups, model, packs()[:2], loss_of)
    before = gradients(model)
    with torch.no_grad():
        wanted = [loss_of(model, pack).log for pack in packs()]
    assert run_rounds(groups, model, packs(), loss_of, forward_only=True) == pytest.approx(wanted)
    assert all(torch.equal(before[name], g) for name, g in gradients(model).items())


def test_a_step_without_a_pack_is_refused(groups: ParallelGroups, model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="at least one pack"):
        run_rounds(groups, model, [], loss_of)
