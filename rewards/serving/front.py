"""What stands before Ray Serve's own handling of a request, in its proxy and in replicas that HAProxy asks.

Ray Serve (2.60) gives every request a place as soon as its headers are there, and handles any number of headers one by
one. Here headers are counted, and a body must have begun to arrive (all of it, or 64 KB) before Ray Serve hears of it.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from rewards.serving.body import Message, Receive
from rewards.serving.errors import ApiError, error_response

if TYPE_CHECKING:
    from starlette.middleware import Middleware

    from rewards.serving.guard import App, Scope, Send

SECONDS = "MR3_SERVE_REQUEST_S"
_HEADERS, _HEADER_BYTES = 200, 65_536
_BEGINNING = 65_536


class Front:
    """ASGI middleware."""

    def __init__(self, app: App, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's own start and stop."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        if len(headers) > _HEADERS or sum(len(name) + len(value) for name, value in headers) > _HEADER_BYTES:
            error = ApiError(431, f"more than {_HEADERS} headers, or {_HEADER_BYTES} bytes of them")
            await error_response(error)(scope, receive, send)
            return
        held: list[Message] = []
        try:
            async with asyncio.timeout(self._seconds):
                await self._beginning(receive, held)
        except TimeoutError:
            late = f"the body did not arrive within {self._seconds:g} s: send it faster, or in smaller requests"
            error = ApiError(408, late, headers={"Connection": "close"})
            await error_response(error)(scope, receive, send)
            return
        held.reverse()

        async def again() -> Message:
            return held.pop() if held else await receive()

        await self._app(scope, again, send)

    @staticmethod
    async def _beginning(receive: Receive, held: list[Message]) -> None:
        size = 0
        while size < _BEGINNING:
            held.append(await receive())
            size += len(held[-1].get("body", b""))
            if not held[-1].get("more_body", False):
                return


def middlewares() -> list[Middleware]:
    """For Ray Serve, which calls this in its proxy and in every replica."""
    from starlette.middleware import Middleware

    return [Middleware(Front, seconds=float(os.environ[SECONDS]))]
