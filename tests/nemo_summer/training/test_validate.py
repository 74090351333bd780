import json

import torch
from torch import nn

from energon_datasets.batch import PackedBatch
from energon_datasets.tokens import positions
from nemo_summer.dit.config import DitConfig
from nemo_summer.training.validate import append_validation, validate


def pack_of(clips: int, grid: tuple[int, int, int], latent_frames: int, seed: int = 0) -> PackedBatch:
    """Clips of independent standard normal latents, as tokens of 96 numbers."""
    tokens = grid[0] * grid[1] * grid[2]
    generator = torch.Generator().manual_seed(777 + seed)  # not a seed of the noise below
    return PackedBatch(
        latents_SE=torch.randn(clips * tokens, 96, generator=generator),
        position_S3=positions(grid).repeat(clips, 1),
        video_ends_N=torch.arange(1, clips + 1) * tokens,
        text_LD=torch.zeros(clips, 8),
        text_ends_N=torch.arange(1, clips + 1),
        uniform_N=torch.rand(clips, generator=generator, dtype=torch.float64),
        seed_N=torch.arange(clips) + 1000 * seed,
        grid_N3=torch.tensor([grid] * clips),
        latent_frames_N=torch.full((clips,), latent_frames),
        fps_N=torch.full((clips,), 24.0),
        loss_weight_N=torch.ones(clips),
        clip_ids=tuple(f"clip-{seed}-{i}" for i in range(clips)),
    )


def test_a_damaged_list_of_validations_is_named_and_begun_anew(tmp_path, caplog):
    path = tmp_path / "validation.json"
    path.write_text('[{"step": 1')  # what a full disk or another program left
    append_validation(path, validate(Zero(), [pack_of(1, (1, 2, 2), 2)]), 5)
    assert [entry["step"] for entry in json.loads(path.read_text())] == [5]
    assert f"{path} is damaged" in caplog.text


class Zero(nn.Module):
    def forward(self, noisy_SE: torch.Tensor, t_N: torch.Tensor, pack: PackedBatch) -> torch.Tensor:
        return torch.zeros_like(noisy_SE)


class BestLinear(nn.Module):
    """v = c(t) x_t with c = cov(v, x_t) / var(x_t) = (1 - 2 t) / ((1-t)^2 + t^2) for unit variance."""

    def forward(self, noisy_SE: torch.Tensor, t_N: torch.Tensor, pack: PackedBatch) -> torch.Tensor:
        t_S1 = t_N.repeat_interleave(pack.lengths_N())[:, None]
        return (1 - 2 * t_S1) / ((1 - t_S1) ** 2 + t_S1**2) * noisy_SE


def test_a_model_that_says_nothing_has_a_loss_of_two_at_every_level():
    # E (x0 - eps)^2 = 1 + 1 for independent unit-variance latents and noise
    found = validate(Zero(), [pack_of(8, (5, 4, 7), 10)])
    assert all(abs(loss - 2) < 0.03 for loss in found.losses)


def test_the_best_linear_denoiser_reaches_the_baseline_and_not_less():
    found = validate(BestLinear(), [pack_of(8, (5, 4, 7), 10)])
    for loss, expected in zip(found.losses, found.baseline):
        assert abs(loss / expected - 1) < 0.02


def test_a_model_with_the_linear_part_starts_at_the_baseline_and_one_without_it_at_two():
    pack = pack_of(8, (5, 4, 7), 10)
    sizes = {"width": 16, "heads": 2, "layers": 1, "text_width": 8, "time_width": 8}
    with_it = validate(DitConfig(**sizes, linear_skip=True).build(), [pack])
    without = validate(DitConfig(**sizes).build(), [pack])
    for loss, expected in zip(with_it.losses, with_it.baseline):
        assert abs(loss / expected - 1) < 0.02
    assert all(abs(loss - 2) < 0.03 for loss in without.losses)


def test_a_repeated_latent_frame_changes_nothing_but_its_own_token():
    """The half of a token that only repeats must not count: filling it with anything gives the same loss."""
    pack = pack_of(2, (3, 2, 2), 5)
    other = pack_of(2, (3, 2, 2), 5)
    last = pack.repeated_S()
    assert int(last.sum()) == 2 * 4
    other.latents_SE.view(24, 48, 2)[last, :, 1] = 1e3
    assert validate(Zero(), [pack]).losses == validate(Zero(), [other]).losses


def test_validation_is_the_same_at_every_call_and_in_any_order_of_packs():
    packs = [pack_of(3, (2, 2, 2), 4, seed=1), pack_of(2, (3, 2, 2), 6, seed=2)]
    once, again = validate(BestLinear(), packs), validate(BestLinear(), packs[::-1])
    assert torch.allclose(torch.tensor(once.losses), torch.tensor(again.losses), rtol=1e-12)


def test_a_second_run_over_the_same_steps_replaces_what_the_first_one_wrote(tmp_path):
    import json

    path = tmp_path / "validation.json"
    found = validate(Zero(), [pack_of(1, (1, 2, 2), 2)])
    for step in (10, 20, 30, 20):
        append_validation(path, found, step)
    assert [entry["step"] for entry in json.loads(path.read_text())] == [10, 20]
