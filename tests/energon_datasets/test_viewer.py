"""The page shows what the loader delivers, and strangers' words stay words."""

import re
from collections import Counter

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from energon_datasets.columns import read_columns, write_columns
from energon_datasets.loader import open_loader, read_validation
from energon_datasets.view import View
from energon_datasets.viewer import make_app
from tests.energon_datasets.test_loader import config, one_pass

HOSTILE = "<script>alert(1)</script> \" onerror='x' {{ 7*7 }} &amp;"


@pytest.fixture
def page(dataset):
    return TestClient(make_app(dataset), base_url="http://127.0.0.1:8000")


def shown(text):
    return re.findall(r'<h2><a href="/clip/([^"]+)">', text)


@pytest.mark.parametrize("where", ["", "motion > 2", "camera in ('still', 'zoom in') and motion is not None"])
def test_the_page_shows_the_clips_that_the_loader_delivers(dataset, page, where):
    ids = shown(page.get("/", params={"where": where}).text)
    assert ids == View(where).keys(read_columns(dataset / "clips.parquet"))
    cfg = config(dataset, where=where)
    with open_loader(cfg) as loader:
        delivered = [key for pack in one_pass(loader) for key in pack["clip_ids"]]
        view = loader.lists.view
    delivered += [key for pack in read_validation(cfg) for key in pack.clip_ids]
    assert Counter(delivered) == Counter(ids)
    assert view[:16] in page.get("/", params={"where": where}).text


def test_dropped_clips_are_shown_with_the_reason(page):
    text = page.get("/", params={"status": "dropped"}).text
    assert shown(text) == [f"dropped_{i:04d}-0" for i in range(3)]
    assert "motion 0.1 is below 0.5" in text


def test_a_wrong_condition_is_answered_with_its_error(page):
    answer = page.get("/", params={"where": "motoin > <b>"})
    assert answer.status_code == 400 and "where cannot be read" in answer.text and "<b>" not in answer.text
    assert "did you mean motion?" in page.get("/", params={"where": "motoin > 1"}).text


def test_hostile_captions_stay_text_and_no_script_may_run(copy):
    path = copy / "clips.parquet"
    rows = read_columns(path).to_pylist()
    for row in rows:
        row.update(caption_short=HOSTILE, caption_detailed=HOSTILE, why_dropped=HOSTILE, camera=HOSTILE, video=HOSTILE)
    write_columns(rows, path)
    page = TestClient(make_app(copy), base_url="http://localhost")
    for url in ("/", "/?status=dropped", f"/clip/{rows[0]['clip_id']}", "/?where=" + HOSTILE.replace("&", "%26")):
        answer = page.get(url)
        assert "<script" not in answer.text and "&lt;script&gt;" in answer.text and "onerror='" not in answer.text
        assert "script-src" not in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "clip_id",
    [
        "%2e%2e",
        "../clips",
        "..%2f..%2fdataset",
        "%2e%2e%2fdataset.json",
        "a.b",
        "UPPER",
        "clip_9999-0",
        "a" * 81,
        "%00",
    ],
)
@pytest.mark.parametrize("kind", ["thumb", "video", "clip"])
def test_only_ids_of_clips_are_answered(page, kind, clip_id):
    assert page.get(f"/{kind}/{clip_id}").status_code == 404


def test_pictures_and_videos_come_by_id_and_videos_in_parts(dataset, page):
    key = read_columns(dataset / "clips.parquet")["clip_id"][9].as_py()
    assert page.get(f"/thumb/{key}").content == (dataset / "thumbs" / f"{key}.jpg").read_bytes()
    whole = page.get(f"/video/{key}")
    assert whole.content == b"not really an mp4 9" * 20 and whole.headers["content-type"] == "video/mp4"
    part = page.get(f"/video/{key}", headers={"range": "bytes=4-9"})
    assert (part.status_code, part.content) == (206, whole.content[4:10])
    assert part.headers["content-range"] == f"bytes 4-9/{len(whole.content)}"
    assert page.get(f"/video/{key}", headers={"range": "bytes=-5"}).content == whole.content[-5:]
    assert page.get(f"/video/{key}", headers={"range": "bytes=99999-"}).status_code == 416
    assert page.get("/video/dropped_0000-0").status_code == 404


def test_the_page_is_read_only_and_answers_to_this_machine_alone(dataset, page):
    assert page.post("/").status_code == 405 and page.delete("/clip/x").status_code == 405
    stranger = TestClient(make_app(dataset), base_url="http://evil.example")
    assert stranger.get("/").status_code == 400
    assert page.get("/docs").status_code == 404 and page.get("/openapi.json").status_code == 404


def test_more_clips_than_a_page_holds_are_paged(copy):
    rows = read_columns(copy / "clips.parquet").to_pylist()
    many = [rows[0] | {"clip_id": f"many_{i:03d}"} for i in range(100)]
    write_columns(many, copy / "clips.parquet")
    page = TestClient(make_app(copy), base_url="http://127.0.0.1")
    ids = [key for number in (1, 2, 3) for key in shown(page.get(f"/?page={number}").text)]
    assert ids == [row["clip_id"] for row in many]
    assert shown(page.get("/?page=99").text) == ids[96:]
    assert page.get("/?page=0").status_code == 422


def test_a_wrong_condition_at_the_start_is_refused(dataset):
    with pytest.raises(ValueError, match="no column nothing"):
        make_app(dataset, "nothing == 1")


def test_the_columns_stay_readable_by_other_tools(dataset):
    assert pq.read_metadata(dataset / "clips.parquet").num_rows == 27
