import pytest
import torch

from tests.ranks.launch import run_ranks


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[int, dict]:
    folder = tmp_path_factory.mktemp("train_steps")
    for ranks in (1, 2):
        run_ranks("tests.ranks.train_steps", ranks, [folder / f"{ranks}.pt"])
    return {ranks: torch.load(folder / f"{ranks}.pt", weights_only=True) for ranks in (1, 2)}


@pytest.mark.ranks
def test_two_data_parallel_ranks_train_as_one_does_on_the_same_global_batch(found):
    one, two = found[1], found[2]
    assert one["tokens"] == two["tokens"] and one["flops"] == pytest.approx(two["flops"], rel=1e-12)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-5)
    for name, weight in one["weights"].items():
        error = (two["weights"][name] - weight).norm() / weight.norm().clamp_min(1e-2)
        assert error < 1e-5, (name, float(error))


@pytest.mark.ranks
def test_rows_stay_on_the_sphere_and_turn_alike_on_one_rank_and_two(found):
    assert found[1]["row_norm_error"] < 1e-6 and found[2]["row_norm_error"] < 1e-6
    assert found[1]["rotation"].keys() == found[2]["rotation"].keys()
    for name, angle in found[1]["rotation"].items():
        assert angle == pytest.approx(found[2]["rotation"][name], rel=1e-3), name
        assert angle > 0
