"""The stream: every clip once per pass, its own bytes, its own draw, and the same after every restart."""

import dataclasses
import io
import tarfile
from collections import Counter
from itertools import pairwise

import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf

from energon_datasets.cook import draw_for
from energon_datasets.loader import CaptionMix, DataConfig, open_loader, read_validation
from energon_datasets.shard_schema import EMPTY, LATENT, LEVELS, TEXT, read_index
from energon_datasets.tokens import patchify
from tests.energon_datasets.tiny_dataset import write_tiny_dataset

BUDGET = 60
CLIPS, VAL = 24, 4


def config(dataset, **changes):
    return DataConfig(**({"path": str(dataset), "budget": BUDGET, "workers": 0} | changes))


def facts(pack):
    """Everything of a pack, comparable with ==."""
    values = {f.name: getattr(pack, f.name) for f in dataclasses.fields(pack)}
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def take(loader, packs):
    return [facts(next(loader)) for _ in range(packs)]


def visits(packs, seed=0):
    """(clip, how often it came before), told by the draw of the visit."""
    found = []
    for pack in packs:
        for key, uniform in zip(pack["clip_ids"], pack["uniform_N"]):
            numbers = [
                n for n in range(20) if draw_for(seed, key, n, dict.fromkeys(LEVELS, 1.0), 0.0).uniform == uniform
            ]
            found.append((key, *numbers))
    return found


def one_pass(loader):
    packs = []
    while loader.delivered + loader.failed < loader.clips:
        packs += take(loader, 1)
    return packs


def stored(dataset):
    """Latents and texts of every clip, read with tarfile alone."""
    found = {}
    for store in ("latents", "text"):
        for path in sorted((dataset / store).glob("*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    found[member.name] = safetensors.torch.load(io.BytesIO(tar.extractfile(member).read()).getvalue())
    return found


def test_a_pass_delivers_every_clip_once_and_no_pack_overflows(dataset):
    with open_loader(config(dataset)) as loader:
        for number in range(3):
            packs = take(loader, 1)
            while sum(len(pack["clip_ids"]) for pack in packs) < loader.clips:
                packs += take(loader, 1)
            expected = {(row.key, number) for row in read_index(dataset) if row.split == "train"}
            assert Counter(visits(packs)) == Counter(expected)
            assert max(len(pack["latents_SE"]) for pack in packs) <= BUDGET


def test_a_small_buffer_loses_nothing_over_many_passes(dataset):
    with open_loader(config(dataset, packing_buffer=7)) as loader:
        seen = visits(take(loader, 40))
    assert len(set(seen)) == len(seen)
    counts = Counter(key for key, _ in seen)
    assert len(counts) == CLIPS - VAL and max(counts.values()) - min(counts.values()) <= 2
    for key, count in counts.items():
        assert {number for k, number in seen if k == key} >= set(range(count - 1))


def test_tokens_and_captions_are_those_in_the_tar_files(dataset):
    files, rows = stored(dataset), {row.key: row for row in read_index(dataset)}
    captions = Counter()
    with open_loader(config(dataset, text_dropout=0.3)) as loader:
        for pack in (next(loader) for _ in range(24)):
            tokens = pack.latents_SE.split(pack.lengths_N().tolist())
            texts = pack.text_LD.split(pack.text_lengths_N().tolist())
            for i, (key, x_SE, text_LD) in enumerate(zip(pack.clip_ids, tokens, texts)):
                assert torch.equal(x_SE, patchify(files[key + LATENT]["latent"]))
                captions[next(n for n, t in files[key + TEXT].items() if torch.equal(t, text_LD))] += 1
                assert pack.latent_frames_N[i] == rows[key].latent_shape[1]
                assert pack.grid_N3[i].prod() == rows[key].tokens
    assert set(captions) == {*LEVELS, EMPTY}


def test_draws_have_the_shares_that_were_asked_for():
    shares = {"detailed": 6.0, "short": 3.0, "words": 1.0}
    draws = [draw_for(1, f"clip{i % 50}", i // 50, shares, 0.2) for i in range(5000)]
    counts = Counter(draw.caption for draw in draws)
    for caption, share in {"empty": 0.2, "detailed": 0.48, "short": 0.24, "words": 0.08}.items():
        assert abs(counts[caption] / 5000 - share) < 4 * (share * (1 - share) / 5000) ** 0.5
    uniform = torch.tensor([draw.uniform for draw in draws], dtype=torch.float64).sort().values
    # Kolmogorov's bound for 5,000 draws at one in a million
    assert (uniform - torch.linspace(0, 1, 5000, dtype=torch.float64)).abs().max() < 2.7 / 5000**0.5
    assert (
        len({draw.seed for draw in draws}) == 5000
        and 0 <= min(d.seed for d in draws) < max(d.seed for d in draws) < 2**63
    )


def test_a_level_with_no_share_never_comes():
    shares = {"detailed": 0.0, "short": 1.0, "words": 0.0}
    assert {draw_for(0, "a", i, shares, 0.0).caption for i in range(500)} == {"short"}


def test_a_clip_draws_anew_at_each_visit_and_alike_under_every_layout(dataset):
    drawn = []
    for workers, ranks in ((0, 1), (0, 2), (2, 1)):
        found = {}
        for rank in range(ranks):
            with open_loader(config(dataset, workers=workers), dp_rank=rank, dp_size=ranks, seed=5) as loader:
                for pack in take(loader, 30):
                    for key, uniform, seed in zip(pack["clip_ids"], pack["uniform_N"], pack["seed_N"]):
                        found.setdefault(key, []).append((uniform, seed))
        assert all(len(set(pairs)) == len(pairs) for pairs in found.values())
        drawn.append({key: set(sorted_by_visit(key, pairs)[:2]) for key, pairs in found.items()})
    assert drawn[0] == drawn[1] == drawn[2]


def sorted_by_visit(key, pairs):
    order = {draw_for(5, key, n, dict.fromkeys(LEVELS, 1.0), 0.0).uniform: n for n in range(20)}
    return sorted(pairs, key=lambda pair: order[pair[0]])


def test_two_ranks_share_the_clips_between_them(dataset):
    keys = []
    for rank in range(2):
        with open_loader(config(dataset), dp_rank=rank, dp_size=2) as loader:
            keys += [key for pack in one_pass(loader) for key in pack["clip_ids"]]
    assert Counter(keys) == Counter(row.key for row in read_index(dataset) if row.split == "train")


@pytest.mark.parametrize(("workers", "before"), [(0, 0), (0, 1), (0, 5), (0, 12), (2, 0), (2, 1), (2, 5)])
def test_a_restored_loader_goes_on_with_the_next_pack(dataset, workers, before):
    cfg = config(dataset, workers=workers, packing_buffer=6)
    with open_loader(cfg, seed=3) as loader:
        take(loader, before)
        state = loader.state()
        expected, report = take(loader, 7), loader.report()
    with open_loader(cfg, seed=3) as again:
        again.restore(state)
        assert take(again, 7) == expected
        assert again.report() == report


@pytest.mark.parametrize("workers", [0, 2])
def test_saving_right_after_a_restore_loses_nothing(dataset, workers):
    cfg = config(dataset, workers=workers)
    with open_loader(cfg) as loader:
        expected = take(loader, 16)
    with open_loader(cfg) as loader:
        place = 0
        for step in (5, 1, 1):
            assert take(loader, step) == expected[place : place + step]
            place += step
            state = loader.state()
            loader.restore(state)  # the same loader: its workers are ended and started anew
        assert take(loader, 4) == expected[place : place + 4]


def test_another_seed_is_another_order_and_other_draws(dataset):
    streams = []
    for seed in (0, 1):
        with open_loader(config(dataset), seed=seed) as loader:
            streams.append(take(loader, 4))
    assert streams[0] != streams[1]
    assert [p["clip_ids"] for p in streams[0]] != [p["clip_ids"] for p in streams[1]]


@pytest.mark.parametrize(
    ("changes", "arguments", "named"),
    [
        ({"where": "motion > 1"}, {}, "data.where"),
        ({"budget": 64}, {}, "data.budget: 60 then, 64 now"),
        ({"packing_buffer": 9}, {}, "data.packing_buffer"),
        ({"workers": 1}, {}, "data.workers"),
        ({"text_dropout": 0.2}, {}, "data.text_dropout"),
        ({"caption_mix": CaptionMix(detailed=1.0)}, {}, "data.caption_mix"),
        ({}, {"seed": 1}, "seed: 0 then, 1 now"),
        ({}, {"dp_rank": 1, "dp_size": 2}, "data-parallel ranks: 1 then, 2 now"),
    ],
)
def test_a_state_of_another_stream_is_refused_by_name(dataset, changes, arguments, named):
    with open_loader(config(dataset)) as loader:
        take(loader, 2)
        state = loader.state()
    with open_loader(config(dataset, **changes), **arguments) as other, pytest.raises(ValueError) as caught:
        other.restore(state)
    assert named in str(caught.value) and "train.reset_data=true" in str(caught.value)


def test_a_dataset_that_grew_is_refused_at_restore(copy):
    with open_loader(config(copy)) as loader:
        state = loader.state()
    write_tiny_dataset(copy, clips=26)
    with open_loader(config(copy)) as grown, pytest.raises(ValueError, match="clips in the view"):
        grown.restore(state)


@pytest.mark.parametrize(
    "spoil", [lambda s: s[:-30], lambda s: b"x" + s, lambda s: s[:40] + b"\0" * 8 + s[48:], lambda s: b""]
)
def test_a_damaged_state_is_refused(dataset, spoil):
    with open_loader(config(dataset)) as loader:
        take(loader, 1)
        with pytest.raises(ValueError, match=r"state of a loader|state is damaged"):
            loader.restore(spoil(loader.state()))


def test_validation_is_the_same_at_every_call_with_one_caption_level_and_no_dropout(dataset):
    cfg = config(dataset, text_dropout=1.0)
    packs = [facts(pack) for pack in read_validation(cfg, seed=2)]
    assert packs == [facts(pack) for pack in read_validation(cfg, seed=2)]
    rows = {row.key: row for row in read_index(dataset) if row.split == "val"}
    assert Counter(key for pack in packs for key in pack["clip_ids"]) == Counter(rows.keys())
    for pack in packs:
        ends = [0, *pack["text_ends_N"]]
        assert [b - a for a, b in pairwise(ends)] == [rows[key].text_tokens["detailed"] for key in pack["clip_ids"]]


def test_the_view_and_its_split_decide_what_comes(dataset):
    where = "motion > 2"
    with open_loader(config(dataset, where=where)) as loader:
        keys = {key for pack in one_pass(loader) for key in pack["clip_ids"]}
        report = loader.report()
    i_of = {row.key: i for i, row in enumerate(read_index(dataset))}
    assert keys == {k for k, i in i_of.items() if i < CLIPS - VAL and i % 7 != 6 and i % 6 > 2}
    assert report["total"] == CLIPS == report["filtered"] + report["too_long"] + report["listed"]


def test_long_clips_are_refused_at_open_or_counted_when_told_so(dataset):
    longest = max(row.tokens for row in read_index(dataset))
    with pytest.raises(ValueError, match=f"set data.budget={longest}, or data.drop_too_long=true"):
        open_loader(config(dataset, budget=20))
    with open_loader(config(dataset, budget=20, drop_too_long=True)) as loader:
        keys = {key for pack in one_pass(loader) for key in pack["clip_ids"]}
        report = loader.report()
    assert keys == {row.key for row in read_index(dataset) if row.tokens <= 20 and row.split == "train"}
    assert report["too_long"] == sum(row.tokens > 20 for row in read_index(dataset)) > 0


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"path": ""}, {}, "set data.path"),
        ({"path": "/no/such/folder"}, {}, "no folder /no/such/folder: set data.path"),
        ({"where": "motion > 100"}, {}, "too few .* loosen data.where"),
        ({"workers": 40}, {}, "1 ranks x 40 workers.*set data.workers=0"),
        ({"text_dropout": 1.5}, {}, "data.text_dropout=1.5"),
        ({"caption_mix": CaptionMix(detailed=0, short=0, words=0)}, {}, "data.caption_mix"),
        ({"budget": 0}, {}, "data.budget=0"),
        ({}, {"dp_rank": 2, "dp_size": 2}, "from 0 to 1"),
        ({}, {"split": "test"}, "no split 'test'"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_knob(dataset, changes, arguments, message):
    with pytest.raises(ValueError, match=message):
        open_loader(config(dataset, **changes), **arguments)


def test_the_settings_pass_through_omegaconf():
    merged = OmegaConf.merge(
        OmegaConf.structured(DataConfig), OmegaConf.from_dotlist(["caption_mix.words=1", "budget=7"])
    )
    cfg = OmegaConf.to_object(merged)
    assert isinstance(cfg, DataConfig) and cfg.shares()["words"] == 1.0 and cfg.budget == 7
