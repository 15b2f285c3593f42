"""A request's body: read within its size and time, then as a strict record, at a cost that its length bounds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rewards.serving.config import Limits
from rewards.serving.errors import ApiError, invalid_body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
M = TypeVar("M", bound=BaseModel)
# An open string ends with the body, so that every quote is read once.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BETWEEN_VALUES = (b",", b"[", b"{")


def _declared_length(headers: Mapping[bytes, bytes]) -> int:
    value = headers.get(b"content-length", b"0")
    if not value.isdigit():
        raise ApiError(400, "the Content-Length header is not a number")
    return int(value) if len(value) < 20 else 10**20


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, limits: Limits, take: Callable[[int], None]
) -> bytes:
    """The whole body.

    Args:
        take: called with the bytes of every part as it comes; may refuse them.

    Raises:
        ApiError: 400 when it is cut off, 408 when it takes too long, 413 when it is too large.
    """
    too_large = ApiError(413, f"the body is larger than {limits.body_bytes} bytes: send fewer or shorter tasks")
    if _declared_length(headers) > limits.body_bytes:
        raise too_large
    parts, size, more = [], 0, True
    try:
        async with asyncio.timeout(limits.body_s):
            while more:
                message = await receive()
                if message["type"] != "http.request":  # the client is gone
                    raise ApiError(400, "the body was cut off")
                parts.append(message.get("body", b""))
                take(len(parts[-1]))
                size += len(parts[-1])
                if size > limits.body_bytes:
                    raise too_large
                more = message.get("more_body", False)
    except TimeoutError as error:
        late = f"the body did not arrive within {limits.body_s:g} s: send it faster, or in smaller requests"
        raise ApiError(408, late, headers={"Connection": "close"}) from error
    return b"".join(parts)


def _marks(body: bytes, start: int = 0, end: int | None = None) -> int:
    return sum(body.count(mark, start, end) for mark in _BETWEEN_VALUES)


def _has_more_values(body: bytes, most: int) -> bool:
    """Whether a JSON text has more than so many values; strings are looked into only where it makes a difference."""
    if _marks(body) <= most:
        return False
    found = at = 0
    for strings, string in enumerate(_STRING.finditer(body)):
        found += _marks(body, at, string.start())
        if found > most or strings > 2 * most:  # each is a value, or a value's key
            return True
        at = string.end()
    return found + _marks(body, at) > most


def parse_body(body: bytes, model: type[M], limits: Limits) -> M:
    """The body as a record, read strictly.

    Values are counted first: a list of what is wrong with a million of them would take many seconds to make.

    Raises:
        ApiError: 400 for what is not such a body.
    """
    if _has_more_values(body, limits.body_values):
        message = f"the body has more than {limits.body_values} values: send fewer or simpler tasks"
        raise ApiError(400, message, code="too_many_values")
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise invalid_body(error) from error
