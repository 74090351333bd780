"""A page over the clips of a View: pictures, captions, scores, and the video on a click. Reads only.

Captions come from strangers: the templates escape them, and the browser is told to run no script at all. Clips are
asked for by id, never by path, and the page answers to the names of this machine alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.compute as pc
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from energon_datasets.columns import read_columns
from energon_datasets.cook import ClipError, ShardReader
from energon_datasets.lists import members
from energon_datasets.shard_schema import COLUMNS_FILE, VIDEO, VIDEO_STORE, check_key, dataset_hash, read_dataset
from energon_datasets.view import View

PER_PAGE = 48
HOSTS = ["127.0.0.1", "localhost", "[::1]"]
NOT_SCORES = ("latent_shape", "thumb", "clip_id", "caption_detailed", "caption_short", "caption_words")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("energon_datasets.viewer", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass
class Browsed:
    """The dataset behind the page."""

    folder: Path
    dataset: str
    table: pa.Table

    def clips(self, where: str, status: str) -> tuple[View, list[str]]:
        """The View and its ids, by the same function as the loader's list. ValueError for a wrong condition."""
        view = View(where)
        return view, view.keys(self.table, status)

    def row(self, clip_id: str) -> dict[str, Any]:
        """404 for what is no id, or the id of no clip."""
        try:
            found = pc.index(self.table["clip_id"], check_key(clip_id)).as_py()
        except ValueError:
            found = -1
        if found < 0:
            raise HTTPException(404, "there is no such clip")
        return self.table.slice(found, 1).to_pylist()[0]


def make_app(dataset_dir: Path | str, where: str = "") -> FastAPI:
    """The page; it opens with the View `where`. ValueError where the dataset or the condition is not right."""
    folder = Path(dataset_dir)
    browsed = Browsed(folder, dataset_hash(read_dataset(folder)), read_columns(folder / COLUMNS_FILE))
    browsed.clips(where, "kept")
    app = FastAPI(title="summer view", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response("this page is read only", 405, headers=HEADERS)
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    _add_pages(app, browsed, where)
    _add_files(app, browsed, ShardReader(folder))
    return app


def _add_pages(app: FastAPI, browsed: Browsed, first_where: str) -> None:
    @app.get("/", response_class=HTMLResponse)
    def grid(where: str = first_where, status: str = "kept", page: int = Query(1, ge=1)) -> HTMLResponse:
        return _grid(browsed, where, "dropped" if status == "dropped" else "kept", page)

    @app.get("/clip/{clip_id}", response_class=HTMLResponse)
    def clip(clip_id: str) -> HTMLResponse:
        row = browsed.row(clip_id)
        shown = {name: _plain(value) for name, value in row.items() if name not in NOT_SCORES and value is not None}
        return HTMLResponse(TEMPLATES.get_template("clip.html.j2").render(clip=row, facts=shown))

    @app.get("/style.css")
    def style() -> Response:
        return Response(TEMPLATES.get_template("style.css.j2").render(), media_type="text/css")


def _grid(browsed: Browsed, where: str, status: str, page: int) -> HTMLResponse:
    error, view = "", View()
    keys: list[str] = []
    try:
        view, keys = browsed.clips(where, status)
    except ValueError as found:
        error = str(found)
    pages = max(1, math.ceil(len(keys) / PER_PAGE))
    page = min(page, pages)
    shown = [browsed.row(key) for key in keys[(page - 1) * PER_PAGE : page * PER_PAGE]]
    counts = {name: pc.sum(pc.equal(browsed.table["status"], name)).as_py() or 0 for name in ("kept", "dropped")}
    text = TEMPLATES.get_template("grid.html.j2").render(
        folder=str(browsed.folder),
        dataset=browsed.dataset,
        where=where,
        view=view,
        error=error,
        status=status,
        found=len(keys),
        counts=counts,
        columns=[name for name in browsed.table.column_names if name not in ("latent_shape", "thumb")],
        clips=shown,
        plain=_plain,
        page=page,
        pages=pages,
    )
    return HTMLResponse(text, status_code=400 if error else 200)


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _add_files(app: FastAPI, browsed: Browsed, reader: ShardReader) -> None:
    places: dict[str, Any] = {}

    @app.get("/thumb/{clip_id}")
    def thumb(clip_id: str) -> Response:
        path = browsed.folder / "thumbs" / f"{browsed.row(clip_id)['clip_id']}.jpg"
        if not path.is_file():
            raise HTTPException(404, "this clip has no picture")
        return FileResponse(path, media_type="image/jpeg")

    @app.get("/video/{clip_id}")
    def video(clip_id: str, request: Request) -> Response:
        row = browsed.row(clip_id)
        shard = Path(row["shard"] or "").name
        if not shard:
            raise HTTPException(404, "only kept clips have a video")
        if shard not in places:
            places[shard] = members(browsed.folder / VIDEO_STORE / shard)
        try:
            data = reader.read(VIDEO_STORE, shard, clip_id + VIDEO, places[shard].get(clip_id + VIDEO))
        except ClipError as error:
            raise HTTPException(404, str(error)) from None
        return _part_of(data, request.headers.get("range", ""))


def _part_of(data: bytes, wanted: str) -> Response:
    """All of an mp4, or the one range of bytes that the browser asks for when it seeks."""
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    headers = {"Accept-Ranges": "bytes"}
    if not wanted.startswith("bytes=") or not (first + last).isdecimal():
        return Response(data, media_type="video/mp4", headers=headers)
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last) if first and last else len(data) - 1, len(data) - 1)
    if start > end:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], 206, media_type="video/mp4", headers=headers)
