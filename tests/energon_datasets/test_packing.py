"""Packs hold every clip once, none overflows, and few are needed."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energon_datasets.packing import fill_share, pack_bfd


@given(st.lists(st.integers(1, 50), max_size=80), st.integers(50, 120))
def test_every_clip_is_in_one_pack_and_no_pack_overflows(lengths, budget):
    groups = pack_bfd(lengths, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in group) <= budget for group in groups)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(50, 120))
def test_no_more_packs_than_the_proven_bound_over_the_least_possible(lengths, budget):
    # Best fit decreasing: at most 11/9 OPT + 4 (Johnson 1973), and OPT is at least the sum over the budget.
    least = math.ceil(sum(lengths) / budget)
    groups = pack_bfd(lengths, budget)
    assert len(groups) <= least * 2 or len(groups) <= 11 / 9 * least + 4
    assert 0 < fill_share(lengths, groups, budget) <= 1


def test_pairs_that_fill_a_pack_exactly_find_each_other():
    lengths = [70, 30, 60, 40, 55, 45, 90, 10]
    assert sorted(sorted(lengths[i] for i in group) for group in pack_bfd(lengths, 100)) == [
        [10, 90],
        [30, 70],
        [40, 60],
        [45, 55],
    ]


def test_the_waste_of_a_buffer_is_about_half_a_pack():
    # notes: waste ~ 0.5 / (packs per buffer), from 20,000 clips of a log-normal length
    rng = random.Random(0)
    lengths = [min(round(6000 * math.exp(rng.gauss(0, 0.7))), 28000) for _ in range(512)]
    groups = pack_bfd(lengths, 28000)
    assert 1 - fill_share(lengths, groups, 28000) < 1.5 / len(groups)


def test_a_clip_longer_than_a_pack_names_the_knob():
    with pytest.raises(ValueError, match=r"set data\.budget=120"):
        pack_bfd([30, 120], 100)
