"""Tokens: an exact way there and back, and places that span the clip."""

import einops
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from energon_datasets.tokens import patchify, positions, token_grid, unpatchify

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 4), st.integers(1, 4))


@given(SIZES)
def test_unpatchify_undoes_patchify_for_even_and_odd_frame_counts(shape):
    z_CTHW = torch.randn(shape)
    assert torch.equal(unpatchify(patchify(z_CTHW), token_grid(shape), frames=shape[1]), z_CTHW)


def test_patchify_is_the_einops_rearrangement():
    z_CTHW = torch.randn(48, 6, 4, 7)
    assert torch.equal(patchify(z_CTHW), einops.rearrange(z_CTHW, "c (t p) h w -> (t h w) (c p)", p=2))


def test_an_odd_last_frame_is_repeated():
    x_SE = patchify(torch.randn(3, 5, 1, 1))
    assert torch.equal(x_SE[-1, 0::2], x_SE[-1, 1::2])


def test_the_toy_clip_has_280_tokens_and_the_big_one_9680():
    assert token_grid((48, 19, 4, 7)) == (10, 4, 7)
    assert len(patchify(torch.zeros(48, 21, 22, 40))) == 9680


@given(st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)))
def test_positions_span_minus_one_to_one_and_a_single_entry_is_zero(grid):
    pos_S3 = positions(grid)
    assert len(pos_S3) == grid[0] * grid[1] * grid[2]
    for axis, n in enumerate(grid):
        ends = (-1.0, 1.0) if n > 1 else (0.0, 0.0)
        assert (float(pos_S3[:, axis].min()), float(pos_S3[:, axis].max())) == ends
        assert len(pos_S3[:, axis].unique()) == n


def test_positions_follow_the_order_of_the_tokens():
    grid = (3, 2, 4)
    t, h, w = torch.meshgrid(torch.arange(6.0), torch.arange(2.0), torch.arange(4.0), indexing="ij")
    for axis, where in enumerate((t, h, w)):
        x_SE = patchify(where[None])
        rank = x_SE.mean(1)
        assert torch.equal(rank.argsort(stable=True), positions(grid)[:, axis].argsort(stable=True))


def test_a_wrong_grid_is_refused():
    with pytest.raises(ValueError, match="no grid of 2x2x2"):
        unpatchify(torch.zeros(9, 4), (2, 2, 2), frames=4)
    with pytest.raises(ValueError, match="3 to 4 latent frames, not 5"):
        unpatchify(torch.zeros(8, 4), (2, 2, 2), frames=5)
