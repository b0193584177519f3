"""``/`` and ``/page/...``: the page's own files, and nothing else of the disk."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from fastapi import APIRouter, Response

from squeezedet.serving.problems import ProblemError

FOLDER = Path(__file__).resolve().parent / "page"
INDEX = "index.html"
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".html": "text/html"}
"""A machine's own tables are not always right, and browsers are strict with these."""


def router(folder: Path = FOLDER) -> APIRouter:
    """The routes; the folder is read when the server starts."""
    routes = APIRouter(include_in_schema=False)
    # A dictionary of what there is: no request's path ever becomes a path of the disk.
    files = {
        path.relative_to(folder).as_posix(): (path.read_bytes(), _type(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".py"
    }

    def answer(name: str) -> Response:
        if name not in files:
            raise ProblemError(404, "the page has no such file", "missing")
        content, kind = files[name]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    @routes.get("/")
    async def index() -> Response:
        return answer(INDEX)

    @routes.get("/page/{name:path}")
    async def file(name: str) -> Response:
        return answer(name)

    return routes


def _type(path: Path) -> str:
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    return kind or "application/octet-stream"
