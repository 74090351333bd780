from dataclasses import replace

import cv2
import numpy as np
import pytest

from curator.dedup.embed import Embed, descriptor
from curator.dedup.keep import Bucket, KeepOne, look_alikes
from curator.frames import read_clip, write_clip
from curator.records import Frames
from tests.curator.made_clips import camera, clip_of, moving_square, still

SCENES = {
    "pan": camera(33, right=1.0, seed=1),
    "other": camera(33, right=1.0, seed=2),
    "zoom": camera(33, grow=1.01, seed=3),
    "square": moving_square(33),
    "still": still(33, seed=5),
}


def coded(rgb_THWC, folder):
    write_clip(folder / "c.mp4", Frames(rgb_THWC, 24.0), crf=35)
    return read_clip(folder / "c.mp4")


def resized(rgb_THWC, folder):
    return np.stack([cv2.resize(p, (100, 70), interpolation=cv2.INTER_AREA) for p in rgb_THWC])


COPIES = {
    "coded": coded,
    "brighter": lambda p, folder: np.clip(p * 1.2 + 12, 0, 255).astype(np.uint8),
    "darker": lambda p, folder: (p * 0.7).astype(np.uint8),
    "resized": resized,
    "cropped": lambda p, folder: p[:, 4:-4, 7:-7],
    "noisy": lambda p, folder: np.clip(p + np.random.default_rng(0).normal(0, 8, p.shape), 0, 255).astype(np.uint8),
    "a little later": lambda p, folder: p[2:],
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_looks_like_its_original(scene, copy, tmp_path):
    rgb_THWC = SCENES[scene]
    cosine = descriptor(rgb_THWC) @ descriptor(COPIES[copy](rgb_THWC, tmp_path))
    assert cosine >= KeepOne().threshold


def test_different_scenes_do_not_look_alike():
    vectors = np.stack([descriptor(rgb_THWC) for rgb_THWC in SCENES.values()])
    cosines = (vectors @ vectors.T)[~np.eye(len(vectors), dtype=bool)]
    assert cosines.max() < 0.8


def test_a_mirrored_scene_is_another_one():
    assert descriptor(SCENES["pan"]) @ descriptor(SCENES["pan"][:, :, ::-1]) < KeepOne().threshold


def test_the_descriptor_has_unit_length_also_for_a_black_clip_and_a_single_frame():
    for rgb_THWC in (SCENES["pan"], np.zeros((5, 64, 112, 3), np.uint8), SCENES["pan"][:1]):
        embedding = Embed().process(clip_of(rgb_THWC))[0].embedding
        assert 64 <= len(embedding) <= 128
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-4)


def at(angle_degrees, clip_id, words="a b c", **fields):
    """A clip whose descriptor points into a known direction."""
    angle = np.deg2rad(angle_degrees)
    given = {
        "end_s": 5.0,
        "sharpness": 100.0,
        "caption_words": words,
        "embedding": (float(np.cos(angle)), float(np.sin(angle))),
    }
    return clip_of(np.zeros((1, 8, 8, 3), np.uint8), clip_id=clip_id, **(given | fields))


def fates(clips, **settings):
    return {clip.clip_id: clip.duplicate_of for clip in KeepOne(**settings).process_all(clips)}


def test_of_look_alikes_the_sharpest_and_longest_stays_in_any_order():
    clips = [
        at(0, "poor", sharpness=50.0),
        at(1, "best", sharpness=200.0),
        at(2, "short", start_s=4.5),
        at(90, "other"),
    ]
    expected = {"poor": "best", "short": "best", "best": None, "other": None}
    assert fates(clips) == fates(clips[::-1]) == expected


def test_a_dropped_copy_says_whose_copy_it_is_and_which_knob_keeps_it():
    gone = next(c for c in KeepOne().process_all([at(0, "a"), at(0, "b")]) if c.dropped_by)
    assert (gone.clip_id, gone.dropped_by, gone.duplicate_of) == ("b", "duplicate", "a")
    assert "looks like a" in gone.why_dropped and "curate.dedup.threshold" in gone.why_dropped


def test_a_chain_of_small_steps_does_not_fold_its_ends_into_one():
    # 12 degrees apart each is above the threshold (cos 0.978), 24 degrees (0.914) is not
    clips = [at(12 * i, f"c{i}", sharpness=100.0 - i) for i in range(5)]
    assert fates(clips) == {"c0": None, "c1": "c0", "c2": None, "c3": "c2", "c4": None}


def test_whoever_is_named_as_the_original_is_kept():
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 180, 200)
    clips = [at(angle, f"c{i}", sharpness=float(rng.uniform(1, 9))) for i, angle in enumerate(angles)]
    after = KeepOne().process_all(clips)
    kept = {clip.clip_id for clip in after if clip.dropped_by is None}
    assert {clip.duplicate_of for clip in after if clip.dropped_by} <= kept
    left = np.array([clip.embedding for clip in after if clip.dropped_by is None])
    assert np.triu(left @ left.T, 1).max() < KeepOne().threshold


def test_the_search_finds_what_a_comparison_with_all_finds():
    vectors = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stays: list[int] = []
    for row, cosines in enumerate(vectors @ vectors.T):
        if all(cosines[other] < 0.9 for other in stays):
            stays.append(row)
    assert set(range(60)) - look_alikes(vectors, [["all"]] * 60, 0.9).keys() == set(stays)
    assert 10 < len(stays) < 50


def test_with_buckets_copies_may_differ_in_one_word_and_without_in_all():
    words = {"a": "red moving green", "b": "blue moving green", "c": "red moving green", "d": "blue still brown"}
    clips = [at(0, name, three) for name, three in words.items()]
    assert fates(clips, bucket=Bucket.words) == {"a": None, "b": "a", "c": "a", "d": None}
    assert fates(clips, bucket=Bucket.none) == {"a": None, "b": "a", "c": "a", "d": "a"}


def test_of_equally_good_copies_the_first_stays():
    clips = [at(0, "z", video="a.mp4"), at(0, "a", video="b.mp4"), at(0, "m", video="a.mp4", start_s=0.5, end_s=5.5)]
    assert fates(clips) == fates(clips[::-1]) == {"z": None, "a": "z", "m": "z"}


def test_clips_that_were_turned_down_or_have_no_descriptor_are_left_alone():
    clips = [at(0, "a"), replace(at(0, "b"), dropped_by="static"), replace(at(0, "c"), embedding=())]
    assert KeepOne().process_all(clips) == clips


def test_a_threshold_above_one_keeps_everything():
    assert set(fates([at(0, "a"), at(0, "b")], threshold=1.01).values()) == {None}
