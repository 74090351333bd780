import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save_file

from curator.latent_files import latent_file
from curator.shards.split import Split, share_of
from curator.shards.thumbs import Thumbs
from curator.shards.write import WriteShards
from energon_datasets.columns import SCHEMA, read_columns
from energon_datasets.shard_schema import read_dataset, read_index
from nemo_summer.encoders.text import TextConfig
from tests.curator.made_clips import camera, clip_of

HOSTILE = 'Two\nlines, "quotes", \u2028 \\ {braces} & <tags> \U0001f600 %s $(rm -rf) \x00end'


def made(out, count=5, size=(48, 5, 2, 4), caption=HOSTILE):
    """Clips as they reach the shards: an mp4 (here: any bytes), latents, captions, a split; one dropped."""
    (out / "codec").mkdir(parents=True, exist_ok=True)
    (out / "codec/config.json").write_text('{"kind": "linear"}')
    clips = []
    for i in range(count):
        clip = replace(
            clip_of(np.zeros((1, 8, 8, 3), np.uint8)),
            **{"frames": None, "clip_id": f"clip-{i}", "file": f"work/clips/clip-{i}.mp4", "start_s": 3.0 * i},
            **{"end_s": 3.0 * i + 2.5, "split": "val" if i == 1 else "train", "latent_shape": size, "motion": 1.5 * i},
            **{"caption_detailed": caption, "caption_short": f"A red shape {i}.", "caption_words": "red moving green"},
        )
        for file in (out / clip.file, latent_file(out, clip.clip_id)):
            file.parent.mkdir(parents=True, exist_ok=True)
        (out / clip.file).write_bytes(f"video {i}".encode() * 100)
        save_file(
            {"latent": torch.randn(size, generator=torch.Generator().manual_seed(i))}, latent_file(out, clip.clip_id)
        )
        clips.append(clip)
    dropped = replace(
        clips[0], clip_id="dropped-0", dropped_by="blur", why_dropped="too soft", split="train", crop=(1, 2, 3, 4)
    )
    return [*clips, dropped]


def members(tar):
    with tarfile.open(tar) as opened:
        return {m.name: (opened.extractfile(m).read(), m.mtime, m.uid, m.uname) for m in opened.getmembers()}


def files_of(out):
    return {
        str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file() and "work" not in p.parts
    }


def test_what_went_in_comes_out_through_index_and_shards(tmp_path):
    clips = made(tmp_path)
    assert WriteShards(out=str(tmp_path)).process_all(clips) == clips
    rows = {row.key: row for row in read_index(tmp_path)}
    assert set(rows) == {f"clip-{i}" for i in range(5)}
    encoder = TextConfig().build()
    for clip in clips[:5]:
        row = rows[clip.clip_id]
        latent, *_ = members(tmp_path / "latents" / row.shard)[f"{row.key}.latent.safetensors"]
        text, *_ = members(tmp_path / "text" / row.shard)[f"{row.key}.text.safetensors"]
        video = members(tmp_path / "video" / row.shard)
        assert torch.equal(
            load(latent)["latent"], torch.randn(48, 5, 2, 4, generator=torch.Generator().manual_seed(int(row.key[-1])))
        )
        assert row.sha256 == {"latent": hashlib.sha256(latent).hexdigest(), "text": hashlib.sha256(text).hexdigest()}
        assert video[f"{row.key}.mp4"][0] == (tmp_path / clip.file).read_bytes()
        assert json.loads(video[f"{row.key}.json"][0])["caption_detailed"] == HOSTILE
        vectors = load(text)
        captions = {"detailed": HOSTILE, "short": clip.caption_short, "words": clip.caption_words, "empty": ""}
        for level, caption in captions.items():
            assert torch.equal(vectors[level], encoder.encode([caption])[0])
            assert row.text_tokens[level] == len(vectors[level]) >= 1
        assert row.caption == {level: captions[level] for level in ("detailed", "short", "words")}
        assert (row.frames, row.tokens, row.split) == (17, 3 * 2 * 4, clip.split)


def test_dataset_json_comes_with_the_hash_of_every_file(tmp_path):
    WriteShards(out=str(tmp_path), text=TextConfig(width=32)).process_all(made(tmp_path))
    info = read_dataset(tmp_path)
    assert (info["format"], info["codec"], info["text"]["width"], info["text"]["kind"]) == (1, "codec", 32, "embedded")
    found = {
        name: hashlib.sha256(data).hexdigest() for name, data in files_of(tmp_path).items() if name != "dataset.json"
    }
    assert info["files"] == found


def test_the_columns_have_every_clip_with_its_reason_and_shard(tmp_path):
    WriteShards(out=str(tmp_path)).process_all(made(tmp_path))
    table = read_columns(tmp_path / "clips.parquet")
    assert table.column_names[: len(SCHEMA.names)] == SCHEMA.names
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    assert len(rows) == 6
    kept, dropped = rows["clip-3"], rows["dropped-0"]
    assert (kept["status"], kept["dropped_by"], kept["shard"], kept["motion"]) == (
        "kept",
        None,
        "shard_000000.tar",
        4.5,
    )
    assert kept["latent_shape"] == [48, 5, 2, 4] and kept["caption_detailed"] == HOSTILE
    assert (dropped["status"], dropped["dropped_by"], dropped["why_dropped"]) == ("dropped", "blur", "too soft")
    assert dropped["shard"] is None and dropped["split"] == "" and dropped["crop"] == [1, 2, 3, 4]


def test_the_same_clips_in_any_order_and_folder_give_the_same_bytes(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    WriteShards(out=str(one)).process_all(made(one))
    WriteShards(out=str(other)).process_all(made(other)[::-1])
    assert files_of(one) == files_of(other)
    for _, mtime, uid, uname in members(one / "video/shard_000000.tar").values():
        assert (mtime, uid, uname) == (0, 0, "")


def test_shards_stay_below_their_size_and_stores_share_their_cuts(tmp_path):
    clips = made(tmp_path, size=(48, 20, 4, 7))
    # latents of 107 kB each: two fit into 0.25 MB
    WriteShards(out=str(tmp_path), shard_mb=0.25).process_all(clips)
    shards = [f"shard_{i:06d}.tar" for i in range(3)]
    for store in ("latents", "text", "video"):
        assert sorted(p.name for p in (tmp_path / store).iterdir()) == shards
        assert all(p.stat().st_size < 0.25e6 + 11_000 for p in (tmp_path / store).iterdir())
    keys = [[m.split(".")[0] for m in members(tmp_path / "latents" / shard)] for shard in shards]
    assert keys == [["clip-0", "clip-1"], ["clip-2", "clip-3"], ["clip-4"]]
    assert [row.shard for row in read_index(tmp_path)] == [shards[i] for i in (0, 0, 1, 1, 2)]


def test_a_clip_above_the_limit_gets_a_shard_of_its_own(tmp_path):
    WriteShards(out=str(tmp_path), shard_mb=0.001).process_all(made(tmp_path, count=3))
    assert [row.shard for row in read_index(tmp_path)] == [f"shard_{i:06d}.tar" for i in range(3)]


def test_a_second_run_with_fewer_shards_leaves_no_old_ones(tmp_path):
    clips = made(tmp_path)
    WriteShards(out=str(tmp_path), shard_mb=0.001).process_all(clips)
    WriteShards(out=str(tmp_path)).process_all(clips)
    assert [p.name for p in (tmp_path / "latents").iterdir()] == ["shard_000000.tar"]


def test_a_run_that_breaks_off_leaves_no_dataset_and_names_what_is_missing(tmp_path):
    clips = made(tmp_path)
    WriteShards(out=str(tmp_path)).process_all(clips)
    (tmp_path / clips[3].file).unlink()
    with pytest.raises(ValueError, match=r"clip-3\.mp4 of clip clip-3 is gone .* delete .*work and run"):
        WriteShards(out=str(tmp_path)).process_all(clips)
    assert not (tmp_path / "dataset.json").exists()
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


@pytest.mark.parametrize("key", ["../../etc/passwd", "A", "a.b", "a/b", "", "x" * 81, "a\nb", "a b"])
def test_a_key_that_could_leave_the_folder_is_refused_before_anything_is_written(tmp_path, key):
    clips = made(tmp_path, count=1)
    shutil.rmtree(tmp_path / "work")
    with pytest.raises(ValueError, match="is no clip key"):
        WriteShards(out=str(tmp_path)).process_all([replace(clips[0], clip_id=key)])
    assert not (tmp_path / "latents").exists()


def test_with_no_clip_kept_there_are_columns_and_no_dataset(tmp_path):
    dropped = [clip for clip in made(tmp_path) if clip.dropped_by]
    WriteShards(out=str(tmp_path)).process_all(dropped)
    assert read_columns(tmp_path / "clips.parquet").num_rows == 1
    assert not (tmp_path / "dataset.json").exists()


def test_a_thumbnail_is_the_middle_frame_of_any_clip(tmp_path):
    rgb_THWC = np.zeros((9, 90, 320, 3), np.uint8)
    rgb_THWC[4] = (200, 40, 40)
    for clip in (clip_of(rgb_THWC), clip_of(rgb_THWC, clip_id="gone", dropped_by="static")):
        after = Thumbs(out=str(tmp_path)).process(clip)[0]
        assert after.thumb == f"thumbs/{clip.clip_id}.jpg"
        picture = Image.open(io.BytesIO((tmp_path / after.thumb).read_bytes()))
        assert picture.size == (160, 45)
        assert np.asarray(picture, int)[22, 80] == pytest.approx([200, 40, 40], abs=6)


def test_a_clip_without_frames_has_no_thumbnail(tmp_path):
    clip = replace(clip_of(camera(1)), frames=None)
    assert Thumbs(out=str(tmp_path)).process(clip) == [clip]


def kept_clips(videos, per_video):
    empty = replace(clip_of(np.zeros((1, 8, 8, 3), np.uint8)), frames=None)
    names = [(v, i) for v in range(videos) for i in range(per_video)]
    return [replace(empty, clip_id=f"v{v}-{i}", video_id=f"v{v}") for v, i in names]


def sides(clips, **settings):
    return {clip.clip_id: clip.split for clip in Split(**settings).process_all(clips)}


def test_many_videos_are_divided_whole_and_each_by_its_own_hash():
    few, more = kept_clips(200, 3), kept_clips(260, 3)
    found, later = sides(few, val_share=0.15), sides(more, val_share=0.15)
    for v in range(200):
        assert len({found[f"v{v}-{i}"] for i in range(3)}) == 1
        assert (found[f"v{v}-0"] == "val") == (share_of(f"v{v}") < 0.15)
    # more footage moves no clip to the other side
    assert all(later[key] == side for key, side in found.items())
    assert 0.08 < list(found.values()).count("val") / len(found) < 0.22


@pytest.mark.parametrize(("clips", "expected"), [(3, 0), (4, 1), (10, 2), (20, 3), (100, 15)])
def test_with_few_videos_the_share_of_clips_is_exact_and_at_least_one_of_four(clips, expected):
    counts = list(sides(kept_clips(1, clips), val_share=0.15).values()).count("val")
    assert counts == expected


def test_the_split_does_not_depend_on_the_order_or_on_dropped_clips():
    clips = kept_clips(3, 10)
    dropped = replace(clips[0], clip_id="gone", dropped_by="blur")
    assert sides([dropped, *clips[::-1]], val_share=0.15) == sides(clips, val_share=0.15) | {"gone": ""}


def test_pieces_of_one_shot_stay_together():
    look = (1.0, 0.0)
    pieces = [
        replace(clip, start_s=5.0 * i, end_s=5.0 * i + 5, embedding=look if i < 6 else (0.0, 1.0))
        for i, clip in enumerate(kept_clips(1, 12))
    ]
    for share in (0.1, 0.4, 0.5):
        found = sides(pieces, val_share=share)
        assert len({found[f"v0-{i}"] for i in range(6)}) == 1
        assert set(found.values()) == {"train", "val"}


def test_a_share_of_zero_holds_out_nothing():
    assert set(sides(kept_clips(1, 10), val_share=0).values()) == {"train"}
