"""The gate in front of every route, as plain ASGI: keys, bodies, draining, and the counts of all that passes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from rewards.serving.admission import Admission
from rewards.serving.body import Message, Receive, read_body
from rewards.serving.config import Limits
from rewards.serving.errors import ApiError, error_response
from rewards.serving.keys import accepted
from rewards.serving.metrics import ServerMetrics

Scope = Message
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_CLIENT_GONE = 499
FREE = frozenset({"/health", "/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"})
"""Answered without a key, also while the server drains."""


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])


class Guard:
    """ASGI middleware. What it refuses is answered here, as nothing behind it would answer it."""

    def __init__(
        self,
        app: App,
        digests: Sequence[str],
        limits: Limits,
        admission: Admission,
        metrics: ServerMetrics,
        routes: frozenset[str],
    ) -> None:
        self._app, self._digests, self._limits = app, digests, limits
        self._admission, self._metrics, self._routes = admission, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the app's own start and stop."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._guarded(scope, receive, counted)
        except ApiError as error:
            await error_response(error)(scope, receive, counted)
        except asyncio.CancelledError:
            status = _CLIENT_GONE
            raise
        finally:
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.request(route, status, time.monotonic() - begun)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in FREE:
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        if not accepted(headers.get(b"authorization", b"").decode("latin-1"), self._digests):
            message = "no valid API key: send it as `Authorization: Bearer KEY`"
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise ApiError(415, "compressed bodies are not read: send it without Content-Encoding")
        self._admission.refuse_while_draining()
        with self._admission.body() as take:
            body = await read_body(headers, receive, self._limits, take)
            with self._admission.request():  # not before: a slow body holds nothing that others wait for
                await self._app(scope, _replay(body, receive), send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever the server says next (a disconnect)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
