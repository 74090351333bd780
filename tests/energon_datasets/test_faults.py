"""Broken shards: what cannot be read is named once, counted, and the rest goes on."""

import hashlib
import logging
import math
import struct
from collections import Counter

import pytest

from energon_datasets.energon_remedies import one_line
from energon_datasets.lists import members, prepare
from energon_datasets.loader import open_loader, read_validation
from energon_datasets.shard_schema import LATENT, TEXT, VIDEO, read_index
from tests.energon_datasets.test_loader import config, take
from tests.energon_datasets.tiny_dataset import finish, write_tar


def rows_of(dataset, shard, split="train"):
    return [row for row in read_index(dataset) if row.shard == shard and row.split == split]


def flip_a_byte(dataset):
    row = rows_of(dataset, "shard_000000.tar")[1]
    path = dataset / "latents" / row.shard
    data = bytearray(path.read_bytes())
    data[members(path)[row.key + LATENT].offset + 500] ^= 1
    path.write_bytes(data)
    return [row.key], "is not what was written"


def remove_a_member(dataset):
    path = dataset / "text" / "shard_000001.tar"
    kept, gone = [], rows_of(dataset, path.name)[2].key
    for name, span in members(path).items():
        if name != gone + TEXT:
            kept.append((name, path.read_bytes()[span.offset : span.offset + span.size]))
    write_tar(path, kept)
    return [gone], "is not in text/shard_000001.tar"


def cut_a_shard(dataset):
    path = dataset / "latents" / "shard_000000.tar"
    spans = sorted(members(path).items(), key=lambda item: item[1].offset)
    path.write_bytes(path.read_bytes()[: spans[6][1].offset + 100])
    return [name.removesuffix(LATENT) for name, _ in spans[6:]], "shard_000000.tar"


def remove_a_shard(dataset):
    (dataset / "latents" / "shard_000000.tar").unlink()
    return [row.key for row in rows_of(dataset, "shard_000000.tar")], "is not in latents/shard_000000.tar"


def write_a_nan(dataset):
    """As a codec that overflowed would: the index knows the bytes, so only the numbers tell."""
    row = rows_of(dataset, "shard_000000.tar")[1]
    path, index = dataset / "latents" / row.shard, dataset / "index" / "clips.jsonl"
    span, data = members(path)[row.key + LATENT], bytearray(path.read_bytes())
    end = span.offset + span.size
    data[end - 4 : end] = struct.pack("<f", math.nan)
    path.write_bytes(data)
    sha256 = hashlib.sha256(data[span.offset : end]).hexdigest()
    index.write_text(index.read_text().replace(row.sha256["latent"], sha256))
    finish(dataset)
    return [row.key], "holds numbers that are not finite"


@pytest.mark.parametrize(
    ("break_it", "workers"),
    [(flip_a_byte, 0), (write_a_nan, 0), (remove_a_member, 0), (cut_a_shard, 0), (cut_a_shard, 2), (remove_a_shard, 0)],
)
def test_unreadable_clips_are_named_once_counted_and_left_out(copy, caplog, break_it, workers):
    broken, message = break_it(copy)
    with caplog.at_level(logging.WARNING), open_loader(config(copy, workers=workers, max_failed_share=0.6)) as loader:
        keys = Counter()
        while loader.delivered + loader.failed < 3 * loader.clips:
            keys.update(take(loader, 1)[0]["clip_ids"])
        report, faults = loader.report(), dict(loader.faults)
    assert set(faults) == set(broken) and all(message in why for why in faults.values())
    assert not set(keys) & set(broken) and set(keys) | set(broken) == {
        row.key for row in read_index(copy) if row.split == "train"
    }
    assert report["passes"] * report["clips"] == report["delivered"] + report["failed"] + report["pending"]
    assert report["failed"] >= 2 * len(broken) and report["unreadable_clips"] == len(broken)
    lines = [record.message for record in caplog.records if "is skipped" in record.message]
    assert len(lines) == len(broken) and all("\n" not in line for line in lines)


def test_damage_under_an_open_loader_is_met_too(copy):
    with open_loader(config(copy, max_failed_share=0.6)) as loader:
        take(loader, 1)
        broken, _ = flip_a_byte(copy)
        while loader.delivered + loader.failed < 3 * loader.clips:
            take(loader, 1)
        assert set(loader.faults) == set(broken)


def test_too_many_unreadable_clips_stop_the_run_with_the_knob(copy):
    remove_a_shard(copy)
    with (
        open_loader(config(copy)) as loader,
        pytest.raises(ValueError, match=r"set data\.max_failed_share above 0\.05"),
    ):
        take(loader, 30)


@pytest.mark.parametrize("workers", [0, 2])
def test_restore_is_exact_around_unreadable_clips(copy, workers):
    cut_a_shard(copy)
    cfg = config(copy, workers=workers, max_failed_share=0.6)
    with open_loader(cfg) as loader:
        take(loader, 5)
        state = loader.state()
        expected, report = take(loader, 6), loader.report()
    with open_loader(cfg) as loader:
        loader.restore(state)
        assert take(loader, 6) == expected and loader.report() == report


def test_validation_leaves_out_what_cannot_be_read_and_says_so(copy, caplog):
    (copy / "latents" / "shard_000002.tar").write_bytes(b"no tar at all")
    assert rows_of(copy, "shard_000002.tar", "val") and read_validation(config(copy)) == []
    assert "is left out" in caplog.text


def test_an_index_that_lacks_a_kept_clip_is_refused(copy):
    index = copy / "index" / "clips.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(lines[1:]))
    with pytest.raises(ValueError, match=r"1 clips are kept .* but not in index"):
        prepare(copy)
    index.write_text("".join([*lines, lines[0]]))
    with pytest.raises(ValueError, match=r"line 25: clip .* a second time"):
        prepare(copy)
    index.write_text(lines[0] + "{broken\n")
    with pytest.raises(ValueError, match="line 2: not a line of JSON"):
        prepare(copy)


def test_lists_are_made_once_and_anew_when_the_dataset_changed(copy):
    first = prepare(copy, "motion > 1")
    path = first.path("train")
    before = path.stat().st_mtime_ns
    assert prepare(copy, "motion>1.0") == first and path.stat().st_mtime_ns == before
    path.write_text("damaged")
    assert prepare(copy, "motion > 1") == first and path.read_text() != "damaged"
    flip_a_byte(copy)
    (copy / "latents" / "shard_000001.tar").touch()
    assert prepare(copy, "motion > 1").content == first.content
    assert not list((copy / "views").rglob("*.part"))


def test_only_the_folder_of_lists_is_written(copy, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    with open_loader(config(copy, lists=str(tmp_path / "lists"))) as loader:
        take(loader, 3)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == before


def test_the_videos_are_listed_too(dataset):
    names = members(dataset / "video" / "shard_000000.tar")
    assert all(name.endswith(VIDEO) for name in names) and len(names) == 8


def test_our_own_mistakes_are_not_taken_for_bad_data():
    with pytest.raises(TypeError):
        one_line(TypeError("ours"), None)
