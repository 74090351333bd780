"""The files of a dataset: keys that name no folder, rows that check themselves, columns that are whole or absent."""

import dataclasses
import json

import pytest

from energon_datasets.columns import SCHEMA, read_columns, write_columns
from energon_datasets.shard_schema import IndexRow, check_key, dataset_hash, read_dataset

ROW = IndexRow(
    key="a-1",
    video="ü b.mp4",
    start_s=0.0,
    end_s=3.0,
    split="train",
    fps=24.0,
    frames=73,
    latent_shape=(48, 19, 4, 7),
    tokens=280,
    text_tokens={"detailed": 9, "short": 4, "words": 3, "empty": 1},
    shard="shard_000000.tar",
    sha256={"latent": "0" * 64, "text": "1" * 64},
    caption={"detailed": "a", "short": "b", "words": "c"},
)


def test_a_row_comes_back_from_its_line():
    assert IndexRow.from_json(ROW.to_json()) == ROW
    assert "\n" not in ROW.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "../x"}, "no clip key"),
        ({"tokens": 281}, "281 tokens, its latents .* make 280"),
        ({"split": "test"}, "split 'test'"),
        ({"text_tokens": {"detailed": 9}}, "in text_tokens"),
        ({"text_tokens": {"detailed": 9, "short": 0, "words": 3, "empty": 1}}, "no token"),
        ({"shard": "../shard.tar"}, "name of a tar"),
        ({"latent_shape": (48, 0, 4, 7)}, r"not \[C, T, H, W\]"),
    ],
)
def test_a_wrong_row_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ROW, **change)


def test_a_row_that_lacks_a_field_names_it():
    raw = json.loads(ROW.to_json())
    del raw["sha256"]
    with pytest.raises(ValueError, match="lacks sha256"):
        IndexRow.from_json(json.dumps(raw))


@pytest.mark.parametrize("key", ["", "A", "a.b", "a/b", "..", "a" * 81, "a b", "a\n", 3])
def test_keys_outside_the_alphabet_are_refused(key):
    with pytest.raises(ValueError, match="no clip key"):
        check_key(key)


def test_columns_come_back_with_extra_scores_and_nulls(tmp_path):
    path = tmp_path / "clips.parquet"
    write_columns(
        [{"clip_id": "a", "status": "kept", "latent_shape": [48, 19, 4, 7], "aesthetic": 0.5}, {"clip_id": "b"}], path
    )
    rows = read_columns(path).to_pylist()
    assert [row["clip_id"] for row in rows] == ["a", "b"]
    assert rows[0]["latent_shape"] == [48, 19, 4, 7] and rows[0]["aesthetic"] == 0.5
    assert rows[1]["motion"] is None and rows[1]["aesthetic"] is None
    assert [p.name for p in tmp_path.iterdir()] == ["clips.parquet"]


def test_no_clip_at_all_still_has_every_column(tmp_path):
    write_columns([], tmp_path / "c.parquet")
    assert read_columns(tmp_path / "c.parquet").schema.equals(SCHEMA)


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "c.parquet").write_text("hello, I am text")
    with pytest.raises(ValueError, match=r"c\.parquet is no Parquet file"):
        read_columns(tmp_path / "c.parquet")


def test_a_folder_is_a_dataset_only_with_its_last_file(tmp_path):
    with pytest.raises(ValueError, match="no finished dataset: run `summer curate"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match="format 2, this version reads format 1"):
        read_dataset(tmp_path)
    info = {"format": 1, "created_by": "x", "codec": "codec", "text": {}, "files": {"a": "0"}}
    (tmp_path / "dataset.json").write_text(json.dumps(info))
    assert dataset_hash(read_dataset(tmp_path)) == dataset_hash(info | {"created_by": "y"})
    assert dataset_hash(info) != dataset_hash(info | {"files": {"a": "1"}})
