"""The optimizer and the checkpoints on one and two ranks, against plain torch and against each other."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nemo_summer.optim.rules import rules_for
from nemo_summer.optim.sphere import SphereAdamW, sphere_groups
from tests.nemo_summer.dit.packs import fill_zeros
from tests.nemo_summer.optim.matrices import GIVEN, Matrices, gradients, piece
from tests.ranks.launch import ROOT, run_ranks
from tests.ranks.sphere_steps import CFG, OPTIM, STEPS, loss_of, packs, rules_of

pytestmark = pytest.mark.ranks
MODULE = "tests.ranks.sphere_steps"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One rank, then two, then a new process that goes on from the checkpoints of both."""
    folder = tmp_path_factory.mktemp("sphere")
    _alone(folder, "one")
    run_ranks(MODULE, ranks=2, args=[folder, "two"])
    _alone(folder, "again")
    names = ("one_0", "two_0", "two_1", "again_0")
    return {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in names}


def _alone(folder: Path, mode: str) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", MODULE, str(folder), mode]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Largest relative distance of a parameter."""
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted)


def plain_training() -> tuple[dict[str, Tensor], list[float]]:
    """The same steps by plain torch layers, autograd and SphereAdamW: no megatron, no ranks, no buffers."""
    model = CFG.build()
    fill_zeros(model)
    optimizer = SphereAdamW(sphere_groups(model.named_parameters(), rules_of(model)), OPTIM)
    norms = []
    for step in range(STEPS):
        losses = [loss_of(model, pack) for pack in packs(step)]
        optimizer.zero_grad()
        (sum(loss.loss_sum for loss in losses) / sum(loss.tokens for loss in losses)).backward()
        optimizer.step()
        norms.append(optimizer.grad_norm)
    return {name: p.detach() for name, p in model.named_parameters()}, norms


def test_one_rank_trains_as_plain_torch_does(runs: dict[str, Any]) -> None:
    weights, norms = plain_training()
    assert distance(runs["one_0"]["weights"], weights) < 1e-5
    assert runs["one_0"]["norms"] == pytest.approx(norms, rel=1e-5)


def test_two_ranks_train_as_one(runs: dict[str, Any]) -> None:
    one, two = runs["one_0"], runs["two_0"]
    assert two["slots"] > 0, "no row is cut, so this test would not see a wrong sum"
    assert distance(two["weights"], one["weights"]) < 1e-5
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-5)
    assert distance(runs["two_1"]["weights"], two["weights"]) == 0


def test_without_the_sums_over_cut_rows_two_ranks_go_astray(runs: dict[str, Any]) -> None:
    assert distance(runs["two_0"]["without_slots"], runs["one_0"]["weights"]) > 1e-3


@pytest.mark.parametrize("run", ["one_0", "two_0"])
def test_rows_have_length_one_after_training(runs: dict[str, Any], run: str) -> None:
    assert runs[run]["row_norm_error"] < 1e-6


def test_rotations_do_not_depend_on_where_rows_are_cut(runs: dict[str, Any]) -> None:
    for one, two in zip(runs["one_0"]["rotations"], runs["two_0"]["rotations"], strict=True):
        assert two == pytest.approx(one, rel=1e-4)
        assert min(one.values()) > 0


@pytest.mark.parametrize("run", ["one_0", "two_0", "two_1"])
def test_a_gradient_that_is_nan_on_one_rank_changes_nothing_on_any(runs: dict[str, Any], run: str) -> None:
    found = runs[run]["after_nan"]
    assert not found["updated"] and found["norm"] != found["norm"]
    assert found["weights_same"] and found["moments_same"]


def test_a_new_process_goes_on_bit_for_bit(runs: dict[str, Any]) -> None:
    again, one = runs["again_0"]["one"], runs["one_0"]
    assert distance(again["at_load"], one["at_save"]) == 0
    assert distance(again["weights"], one["weights"]) == 0
    assert again["extra"] == {"clips_seen": 12}
    assert again["loader"] == b"rank 0"


def test_a_checkpoint_of_two_ranks_goes_on_with_one_and_the_other_way_round(runs: dict[str, Any]) -> None:
    to_one, to_two = runs["again_0"]["two"], runs["two_0"]["from_one"]
    assert distance(to_one["at_load"], runs["two_0"]["at_save"]) == 0
    assert distance(to_two["at_load"], runs["one_0"]["at_save"]) == 0
    assert distance(to_one["weights"], runs["two_0"]["weights"]) < 1e-5
    assert distance(to_two["weights"], runs["one_0"]["weights"]) < 1e-5


def test_the_constants_of_this_run_stand_and_other_learning_rate_factors_are_refused(runs: dict[str, Any]) -> None:
    assert runs["again_0"]["one"]["constants"] == [7.0]
    said = runs["again_0"]["other factors"]
    assert "the checkpoint has learning-rate factors" in said and "middle_mult" in said


def test_the_loaders_place_of_other_ranks_is_refused_with_the_way_out(runs: dict[str, Any]) -> None:
    said = runs["two_0"]["refusal"]
    assert "1 data-parallel rank" in said and "this run has 2" in said and "ranks=1" in said


@pytest.mark.parametrize("run", ["one_0", "two_0"])
def test_weights_read_without_megatron_are_those_that_were_saved(runs: dict[str, Any], run: str) -> None:
    assert distance(runs[run]["read"], runs[run]["at_save"]) == 0


@pytest.mark.parametrize("run", ["one_0", "two_0", "two_1"])
def test_a_full_disk_is_one_line_on_every_rank_and_spares_what_was_there(runs: dict[str, Any], run: str) -> None:
    found = runs[run]["faults"]["full disk"]
    assert "File too large" in found["said"] and ".distcp" in found["said"] and "train.keep_full" in found["said"]
    assert "\n" not in found["said"]
    assert found["left"] == ["step_00000001"] and found["newest"].endswith("step_00000001")


@pytest.mark.parametrize("run", ["one_0", "two_0"])
def test_a_save_that_is_killed_leaves_the_old_checkpoint_and_the_next_save_tidies_up(
    runs: dict[str, Any], run: str
) -> None:
    found = runs[run]["faults"]
    assert found["killed"]["left"] == [".tmp_step_00000002", "step_00000001"]
    assert found["killed"]["newest"].endswith("step_00000001")
    assert found["left"] == []


@pytest.mark.parametrize("run", ["one_0", "two_0"])
def test_old_checkpoints_keep_their_weights_where_the_step_is_a_multiple(runs: dict[str, Any], run: str) -> None:
    # saved at 1, 3, 4, 5, 6 with keep_full=2, keep_every=2
    kept = {"step_00000004": "weights", "step_00000005": "full", "step_00000006": "full"}
    assert runs[run]["faults"]["kept"] == kept
    files = runs[run]["faults"]["files"]
    assert files["step_00000004"] < files["step_00000005"] == files["step_00000006"]


def test_a_model_in_half_precision_keeps_its_rows_in_full_and_goes_on_bit_for_bit(runs: dict[str, Any]) -> None:
    half = runs["two_0"]["half"]
    assert half["row_norm_error"] < 1e-6
    assert {tensor.dtype for tensor in half["read"].values()} == {torch.float32}
    assert distance({name: tensor.bfloat16() for name, tensor in half["read"].items()}, half["at_save"]) == 0
    rows = half["read"]["blocks.1.w_in.weight"].norm(dim=1)
    assert (rows - 1).abs().max() < 1e-6 < (half["at_save"]["blocks.1.w_in.weight"].float().norm(dim=1) - 1).abs().max()
    assert distance(half["at_load"], half["at_save"]) == 0
    assert distance(half["again"], half["weights"]) == 0


def test_matrices_cut_over_tensor_ranks_train_as_whole_ones(runs: dict[str, Any]) -> None:
    model = Matrices()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    optimizer = SphereAdamW(sphere_groups(model.named_parameters(), rules_for(shapes, OPTIM)), OPTIM)
    norms = []
    for step in range(3):
        for name, grad in gradients(step).items():
            model.get_parameter(name).grad = grad.clone()
        optimizer.step()
        norms.append(optimizer.grad_norm)
    for rank in (0, 1):
        found = runs[f"two_{rank}"]["tensor"]
        wanted = {name: piece(p.detach(), GIVEN.get(name), rank, 2) for name, p in model.named_parameters()}
        assert found["shapes"] == shapes
        assert distance(found["weights"], wanted) < 1e-6
        assert found["norms"] == pytest.approx(norms, rel=1e-6)
        assert found["row_norm_error"] < 1e-6
        assert found["rotation"] == pytest.approx(runs["two_0"]["tensor"]["rotation"])
