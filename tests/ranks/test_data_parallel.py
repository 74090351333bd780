"""Two ranks against one process that knows nothing of ranks: plain torch layers, plain autograd."""

from pathlib import Path

import pytest
import torch

from tests.nemo_summer.dit.packs import fill_zeros
from tests.ranks.gradients import CFG, loss_of, packs
from tests.ranks.launch import run_ranks


@pytest.mark.ranks
def test_two_ranks_have_the_gradient_that_autograd_gives_for_all_clips_at_once(tmp_path: Path) -> None:
    run_ranks("tests.ranks.gradients", ranks=2, args=[tmp_path / "out.pt"])
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    model = CFG.build()
    fill_zeros(model)
    losses = [loss_of(model, pack) for pack in packs()]
    mean = sum(loss.loss_sum for loss in losses) / sum(loss.tokens for loss in losses)
    mean.backward()
    for way in ("at the end", "overlapped"):
        two = found[way]
        assert two["rounds"] == 2  # each rank had two packs of four
        assert two["loss"] == pytest.approx(sum(loss.log for loss in losses), rel=1e-6)
        for name, parameter in model.named_parameters():
            wanted = parameter.grad
            assert wanted.abs().max() > 0, f"{name} has no gradient, so this test would not see a wrong one"
            assert (two["gradients"][name] - wanted).norm() <= 1e-5 * wanted.norm(), (way, name)
