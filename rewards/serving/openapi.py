"""The documents of the routes. Bodies are read by hand (once, strictly), so their schemas are named here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rewards.serving.chat_schema import ChatRequest, ChatResponse
from rewards.serving.schema import ErrorBody, JudgeRequest, JudgeResponse, Listed

_PLACE = "#/components/schemas/{model}"
_READ: tuple[type[BaseModel], ...] = (JudgeRequest, ChatRequest)
_SENT: tuple[type[BaseModel], ...] = (JudgeResponse, ChatResponse, Listed, ErrorBody)
_REASONS = {
    "400": "The request is not valid, or can't be met; the message says why.",
    "401": "No valid API key.",
    "413": "The body is too large.",
    "415": "The body is not plain application/json.",
    "429": "The replica is full: try again after the seconds in Retry-After.",
    "503": "The server is stopping.",
}


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _PLACE.format(model=model.__name__)}}}


def _document(
    answer: type[BaseModel] | None,
    body: type[BaseModel] | None = None,
    *,
    free: bool = False,
    also: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Keyword arguments of a route."""
    reasons = {**({} if free else {"401": _REASONS["401"], "503": _REASONS["503"]}), **(also or {})}
    if body is not None:
        reasons |= {status: _REASONS[status] for status in ("400", "413", "415", "429")}
    responses: dict[int | str, dict[str, Any]] = {
        int(status): {"description": why, "content": _content(ErrorBody)} for status, why in sorted(reasons.items())
    }
    if answer is not None:
        responses[200] = {"description": "OK", "content": _content(answer)}
    extra: dict[str, Any] = {} if free else {"security": [{"key": []}]}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": _content(body)}
    return {"responses": responses, "openapi_extra": extra}


DOCUMENTS: dict[str, dict[str, Any]] = {
    "/v1/judge": _document(JudgeResponse, JudgeRequest),
    "/v1/rubrics": _document(Listed),
    "/v1/chat/completions": _document(
        ChatResponse,
        ChatRequest,
        also={"404": "No such model.", "502": "The engine failed.", "504": "The engine did not answer in time."},
    ),
    "/v1/models": _document(Listed),
    "/health": _document(None, free=True, also={"503": _REASONS["503"]}),
    "/metrics": _document(None),
}


def add_documents(app: FastAPI) -> None:
    """Put the schemas of bodies and answers into the app's OpenAPI document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            pairs: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in _READ]
            pairs += [(model, "serialization") for model in _SENT]
            _, definitions = models_json_schema(pairs, ref_template=_PLACE)
            components = found.setdefault("components", {})
            components.setdefault("schemas", {}).update(definitions["$defs"])
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
