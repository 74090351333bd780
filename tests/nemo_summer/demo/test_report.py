"""The page says what the files say, escapes what strangers wrote, and asks no other computer for anything."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from nemo_summer.demo.facts import (
    Boundary,
    TruthShot,
    TruthVideo,
    inner_edges,
    read_facts,
    score_rules,
    score_shots,
)
from nemo_summer.demo.likeness import distance, nearest, usual_distance
from nemo_summer.demo.report import write_report
from tests.nemo_summer.demo.fabricate import HOSTILE_CAPTION, HOSTILE_VIDEO


class Page(HTMLParser):
    """Tags with their attributes, and all text, as a browser would see them."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def out(fabricated, tmp_path_factory):
    return Path(shutil.copytree(fabricated, tmp_path_factory.mktemp("demo") / "out"))


@pytest.fixture(scope="module")
def page(out) -> Page:
    return Page(write_report(out).read_text())


def test_what_strangers_wrote_is_text_and_never_a_tag(page):
    assert HOSTILE_CAPTION in page.text and HOSTILE_VIDEO in page.text and "<b>limit</b>" in page.text
    assert not [
        tag for tag, _ in page.tags if tag in ("script", "b1", "iframe", "object", "embed", "form", "a", "base")
    ]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_the_page_asks_no_other_computer_for_anything(page, out):
    sources = [attrs[name] for _, attrs in page.tags for name in ("src", "href", "poster", "srcset") if name in attrs]
    assert sources and all(source.startswith("data:") for source in sources)
    html = (out / "report.html").read_text()
    assert not re.search(r"url\(|@import|https?://", re.sub(r'src="data:[^"]*"', "", html))
    policy = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy and "default-src 'none'" in policy[0]


def test_the_numbers_of_the_page_are_those_of_the_files(page, out):
    last = json.loads((out / "train" / "validation.json").read_text())[-1]
    for loss, base in zip(last["losses"], last["baseline"], strict=True):
        assert f"{loss:.4f}" in page.text and f"{base:.4f}" in page.text and f"{loss / base:.3f}" in page.text
    assert f"{last['mean'] / last['baseline_mean']:.3f}" in page.text
    assert "13 clips were found; 9 were kept and 4 dropped" in page.text
    history = [json.loads(line) for line in (out / "train" / "history.jsonl").read_text().splitlines()]
    assert f"{history[-1]['step']} steps" in page.text and f"loss {history[-1]['loss']:.3f}" in page.text
    assert "exponent 4 predicts" in page.text and "1.25000" in page.text and "1.31000" in page.text
    assert "6 of 8 weights lie inside" in " ".join(page.text.split())


def test_every_sample_and_its_neighbour_are_inside_the_page(page):
    videos = [attrs for tag, attrs in page.tags if tag == "video"]
    assert len(videos) == 2 * 2 + 2
    assert all({"autoplay", "loop", "muted", "playsinline"} <= set(attrs) for attrs in videos)


def test_every_rule_that_dropped_a_clip_shows_one_with_its_sentence(page):
    for rule in ("static", "duplicate", "short", "dark"):
        assert f"{rule} <b>limit</b> 0.9 broken" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 13


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("dataset/clips.parquet", "The footage has not been curated yet."),
        ("dataset/index/clips.jsonl", "There is no dataset yet."),
        ("train/history.jsonl", "Nothing has been trained yet."),
        ("demo.json", "No phase has been timed."),
    ],
)
def test_what_is_missing_is_said_and_the_rest_stands(out, lost, said, tmp_path):
    file, safe = out / lost, tmp_path / "safe"
    file.rename(safe)
    try:
        text = Page(write_report(out).read_text()).text
    finally:
        safe.rename(file)
    assert said in text and f"{lost} is not there yet" in text
    assert "The way" in text


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path):
    text = Page(write_report(tmp_path).read_text()).text
    assert "Nothing has been run in this folder yet." in text
    assert "No clip has been generated yet." in text


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe\x00", b'[{"step": 1}]', b"null"])
def test_a_damaged_file_is_a_note_and_no_crash(tmp_path, damage):
    for name in (
        "demo.json",
        "dataset/manifest.json",
        "dataset/clips.parquet",
        "train/validation.json",
        "footage/truth.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(damage)
    facts = read_facts(tmp_path)
    assert len(facts.notes) >= 5 and "clips.parquet cannot be read" in " ".join(facts.notes)
    write_report(tmp_path)


def test_a_history_whose_last_line_was_cut_off_keeps_the_others(out, tmp_path):
    (tmp_path / "train").mkdir()
    text = (out / "train" / "history.jsonl").read_text()
    (tmp_path / "train" / "history.jsonl").write_text(text[:-40])
    assert len(read_facts(tmp_path).history) == text.count("\n") - 1


# --- shots against the truth, by hand


def known(*times: float) -> dict[str, TruthVideo]:
    return {"v.mp4": TruthVideo(tuple(Boundary(t, "cut", 0.125) for t in times), ())}


def test_shots_that_agree_with_the_truth_score_one():
    score = score_shots(known(4, 8), {"v.mp4": [(0, 4), (4, 8.1), (8.1, 12)]})
    assert score.precision == 1 and score.recall == 1 and score.by_kind == {"cut": (2, 2)}


def test_a_missed_cut_lowers_recall_and_an_invented_one_precision():
    score = score_shots(known(4, 8), {"v.mp4": [(0, 4), (4, 6), (6, 12)]})
    assert (score.recall, score.precision) == (0.5, 0.5)


def test_a_gap_around_a_transition_finds_it_only_with_an_end_near_it():
    assert inner_edges([(5, 9), (0, 4)]) == [(4, 5)]
    assert score_shots(known(4.1), {"v.mp4": [(0, 4), (5, 9)]}).recall == 1
    assert score_shots(known(4.5), {"v.mp4": [(0, 4), (5, 9)]}).recall == 0


def test_pieces_of_one_long_shot_are_no_shots_of_their_own():
    spans = [(0, 3), (3, 6), (6, 9), (9, 13.5)]  # a shot of 9 s in three pieces, a cut, another shot
    score = score_shots(known(9), {"v.mp4": spans})
    assert score.recall == 1 and score.precision == 1
    missed = score_shots(known(9), {"v.mp4": [(0, 4), (4, 13.5)]})
    assert missed.recall == 0 and missed.precision == 0


def test_a_clip_counts_for_the_shot_that_holds_its_middle():
    truth = {"v.mp4": TruthVideo((), (TruthShot(0, 4, None), TruthShot(4, 8, "dark")))}
    row = {"video": "deep/v.mp4", "dropped_by": None}
    clips = [
        row | {"start_s": 0.2, "end_s": 4.2, "status": "kept"},
        row | {"start_s": 4.2, "end_s": 8.0, "status": "dropped", "dropped_by": "dark"},
    ]
    found = {e.kind: e for e in score_rules(truth, clips)}
    assert (found["keep"].kept, found["keep"].dropped) == (1, 0)
    assert (found["dark"].kept, found["dark"].dropped, found["dark"].rules) == (0, 1, {"dark": 1})


def test_of_a_shot_and_its_copy_either_may_be_dropped():
    shots = (TruthShot(0, 4, None), TruthShot(4, 8, "duplicate", twin=("v.mp4", 0)))
    rows = [{"video": "v.mp4", "start_s": t, "end_s": t + 4, "status": "kept", "dropped_by": None} for t in (0, 4)]
    for gone in (0, 1):
        clips = [
            row | ({"status": "dropped", "dropped_by": "duplicate"} if i == gone else {}) for i, row in enumerate(rows)
        ]
        found = {e.kind: e for e in score_rules({"v.mp4": TruthVideo((), shots)}, clips)}
        assert (found["keep"].kept, found["keep"].dropped) == (1, 0)
        assert (found["duplicate"].kept, found["duplicate"].dropped) == (0, 1)


def test_a_truth_file_beside_a_video_is_read_as_well(tmp_path):
    (tmp_path / "footage").mkdir()
    truth = {
        "video": "s.mp4", "fps": 24,
        "boundaries": [{"time_s": 4.8, "frame": 115, "kind": "cut", "tolerance_frames": 3}],
        "segments": [
            {"start_s": 0.0, "end_s": 4.8, "tags": ["either", "id:a"]},
            {"start_s": 4.8, "end_s": 9.0, "tags": ["near-duplicate", "id:a"]},
        ],
    }  # fmt: skip
    (tmp_path / "footage" / "s.truth.json").write_text(json.dumps(truth))
    known = read_facts(tmp_path).truth["s.mp4"]
    assert known.boundaries == (Boundary(4.8, "cut", 0.125),)
    assert [shot.drop for shot in known.shots] == ["either", "duplicate"] and known.shots[1].twin == ("s.mp4", 0.0)


# --- likeness


def test_the_nearest_clip_is_the_one_that_was_disturbed():
    generator = torch.Generator().manual_seed(0)
    clips = {f"clip{i}": torch.randn(48, 5, 4, 7, generator=generator) for i in range(6)}
    found = nearest(clips["clip3"] + 0.1 * torch.randn(48, 5, 4, 7, generator=generator), clips)
    assert found.key == "clip3" and found.distance == pytest.approx(0.1, rel=0.05)
    # two independent normal clips differ by sqrt(2)
    assert usual_distance([torch.randn(48, 5, 4, 7, generator=generator)], clips) == pytest.approx(2**0.5, rel=0.03)


def test_clips_of_another_size_are_no_neighbours_and_of_another_length_are():
    assert nearest(torch.zeros(48, 5, 4, 7), {"a": torch.zeros(48, 5, 7, 4)}) is None
    assert distance(torch.zeros(48, 5, 4, 7), torch.ones(48, 9, 4, 7)) == 1
