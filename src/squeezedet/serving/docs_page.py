"""``/docs``: the OpenAPI document as a plain page; FastAPI's own loads scripts from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse

HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>squeezedet: routes</title>
<h1>Routes</h1>
<p>The same for programs: <a href="/openapi.json">/openapi.json</a>.
Besides: <code>GET /</code> the page, <code>WebSocket /stream</code> (a binary message is an
encoded image, the answer is the record of <code>POST /detect</code>; a text message
<code>{"score": 0.3}</code> sets the lowest score), <code>GET /metrics</code> for Prometheus.</p>
"""


def router() -> APIRouter:
    """The route."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def docs(request: Request) -> HTMLResponse:
        app: FastAPI = request.app
        return HTMLResponse(render(app.openapi()))

    return routes


def render(document: dict[str, Any]) -> str:
    """An OpenAPI document as HTML: each route with its parameters, bodies and answers."""
    routes = (
        _operation(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return HEAD + "".join(routes)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [
        f"<h2><code>{method} {escape(path)}</code></h2>",
        f"<p>{escape(operation.get('summary', ''))}. "
        f"{escape(operation.get('description', ''))}</p><ul>",
    ]
    for parameter in operation.get("parameters", []):
        what = escape(parameter.get("description", parameter["in"]))
        lines.append(f"<li><code>{escape(parameter['name'])}</code> ({parameter['in']}): {what}")
    kinds = operation.get("requestBody", {}).get("content", {})
    if kinds:
        lines.append(f"<li>body: {escape(', '.join(kinds))}")
    statuses = ", ".join(operation["responses"])
    lines.append(
        f"<li>answers: {escape(statuses)}; from 400 on "
        '<code>{"error": "one sentence"}</code></ul>'
    )
    return "\n".join(lines)
