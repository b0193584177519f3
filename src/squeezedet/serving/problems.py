"""What a client is told when its request is not answered: a status and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from squeezedet.serving.metrics import Metrics

RETRY = {"Retry-After": "1"}
SENTENCES = {
    404: "there is nothing at this address; / is the page, /docs lists the routes",
    405: "the address is right, the method is not; /docs lists the routes",
}


class Refusal(BaseModel):
    """The body of every answer of 400 and above."""

    error: str


class ProblemError(Exception):
    """A request that gets no answer of the model.

    Attributes:
        status: of HTTP.
        sentence: for the client; it never holds a path of the server.
        reason: a short label for the metrics.
        headers: for the answer.
    """

    def __init__(self, status: int, sentence: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.reason = status, sentence, reason
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        return JSONResponse({"error": self.sentence}, self.status, self.headers)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's ``responses`` for the statuses that a route refuses with."""
    return {status: {"model": Refusal} for status in statuses}


def install(app: FastAPI, metrics: Metrics) -> None:
    """Let every error of the application leave as ``{"error": sentence}``, and be counted."""

    @app.exception_handler(ProblemError)
    async def problem(_: Request, error: ProblemError) -> JSONResponse:
        metrics.rejects.labels(error.reason).inc()
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        metrics.rejects.labels("malformed").inc()
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(HTTPException)
    async def elsewhere(_: Request, error: HTTPException) -> JSONResponse:
        sentence = SENTENCES.get(error.status_code, error.detail)
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> JSONResponse:
        # Its traceback goes to the server's own standard error, never to the client.
        return JSONResponse({"error": "an error of the server itself; its log says more"}, 500)
