"""The HTTP application of one replica: routes, their documents, and errors in one shape. Knows neither Ray nor vLLM."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

import mr3
from rewards.serving.admission import Admission
from rewards.serving.body import parse_body
from rewards.serving.chat import ChatService
from rewards.serving.chat_schema import ChatRequest
from rewards.serving.config import Limits
from rewards.serving.errors import ApiError, error_response
from rewards.serving.guard import Guard
from rewards.serving.judging import JudgeService
from rewards.serving.metrics import CONTENT_TYPE, Families, ServerMetrics, exposition
from rewards.serving.openapi import DOCUMENTS, add_documents
from rewards.serving.schema import JudgeRequest, Listed

log = logging.getLogger("mr3.serving")
M = TypeVar("M", bound=BaseModel)
_SHORT_BYTES = 16_384


@dataclass(frozen=True)
class Parts:
    """What a replica's application is made of.

    `all_families` asks every replica for its metrics; `beside` does what takes the processor, so that the event loop
    can answer others meanwhile.
    """

    judging: JudgeService
    chat: ChatService
    admission: Admission
    metrics: ServerMetrics
    all_families: Callable[[], Awaitable[dict[str, Families]]]
    digests: Sequence[str]
    limits: Limits
    beside: Executor
    created: int


async def _read(request: Request, model: type[M], parts: Parts) -> M:
    """The body, read once and strictly."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"the body must be application/json, not {kind or 'without a Content-Type'}")
    body = await request.body()
    if len(body) <= _SHORT_BYTES:
        return parse_body(body, model, parts.limits)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(parts.beside, parse_body, body, model, parts.limits)


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def _add_judging(app: FastAPI, parts: Parts) -> None:
    @app.post("/v1/judge", **DOCUMENTS["/v1/judge"])
    async def judge(request: Request) -> Response:
        """Judge one task or a batch by a rubric. A failed judgement is a result with `score: null` and a reason."""
        return _json(await parts.judging.answer(await _read(request, JudgeRequest, parts)))

    @app.get("/v1/rubrics", **DOCUMENTS["/v1/rubrics"])
    async def rubrics() -> Response:
        """The rubrics that a task can name by id."""
        found = [{"id": name, **rubric.model_dump(mode="json")} for name, rubric in parts.judging.rubrics.items()]
        return _json(Listed(data=found))


def _add_openai(app: FastAPI, parts: Parts) -> None:
    card = {"id": parts.chat.name, "object": "model", "created": parts.created, "owned_by": "mr3"}

    @app.post("/v1/chat/completions", **DOCUMENTS["/v1/chat/completions"])
    async def chat(request: Request) -> Response:
        """OpenAI's chat completions, without streaming."""
        return _json(await parts.chat.answer(await _read(request, ChatRequest, parts)))

    @app.get("/v1/models", **DOCUMENTS["/v1/models"])
    async def models() -> Response:
        """The one model of this server."""
        return _json(Listed(data=[card]))


def _add_operations(app: FastAPI, parts: Parts) -> None:
    @app.get("/health", **DOCUMENTS["/health"])
    async def health() -> dict[str, str]:
        """200 while requests are taken, 503 while the server stops. Asks nothing of the engine."""
        if parts.admission.draining:
            raise ApiError(503, "the server is stopping")
        return {"status": "ok"}

    @app.get("/metrics", **DOCUMENTS["/metrics"])
    async def metrics() -> Response:
        """Prometheus metrics of all replicas."""
        return Response(exposition(await parts.all_families()), media_type=CONTENT_TYPE)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        return error_response(ApiError(error.status_code, message, headers=error.headers))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        log.error("a request broke the server", exc_info=error)
        return error_response(ApiError(500, "an error of the server; its log says more"))


def build_app(parts: Parts) -> FastAPI:
    """The application; its documents are at /docs and /openapi.json."""
    parts.metrics.in_flight.set_function(lambda: parts.admission.requests)
    parts.metrics.tasks.set_function(lambda: parts.admission.tasks)
    app = FastAPI(title="mR3 judge", version=mr3.__version__, description=__doc__.partition(".")[0])
    _add_judging(app, parts)
    _add_openai(app, parts)
    _add_operations(app, parts)
    _add_errors(app)
    add_documents(app)
    routes: frozenset[str] = frozenset(_path(route) for route in app.routes)
    app.add_middleware(
        Guard,
        digests=parts.digests,
        limits=parts.limits,
        admission=parts.admission,
        metrics=parts.metrics,
        routes=routes,
    )
    return app


def _path(route: Any) -> str:
    path: str = route.path
    return path
