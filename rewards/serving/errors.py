"""Errors as answers: one exception, and OpenAI's error body for whatever goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from mr3.parsing.parsed import encodable
from rewards.serving.schema import ErrorBody, ErrorDetail

if TYPE_CHECKING:
    from pydantic import ValidationError
    from starlette.responses import Response

Kind = Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]
_SHOWN = 5
_CHARS = 300


def _kind(status: int) -> Kind:
    if status in (401, 403):
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


assert set(get_args(Kind)) == {_kind(s) for s in (400, 401, 429, 500)}


class ApiError(Exception):
    """An answer that is not 2xx: status, a message that says what to do, and headers."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers = dict(headers or {})


def error_response(error: ApiError) -> Response:
    """The error as an HTTP response."""
    from starlette.responses import Response

    detail = ErrorDetail(message=encodable(error.message), type=_kind(error.status), code=error.code)
    body = ErrorBody(error=detail).model_dump_json()
    return Response(body, error.status, headers=error.headers, media_type="application/json")


def invalid_body(error: ValidationError) -> ApiError:
    """What is wrong with a body, in a few lines; the values themselves are not repeated."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    lines = []
    for problem in problems[:_SHOWN]:
        where = ".".join(str(part) for part in problem["loc"]) or "body"
        what = "not supported by this server" if problem["type"] == "extra_forbidden" else problem["msg"]
        lines.append(f"{where[:_CHARS]}: {what[:_CHARS]}")
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return ApiError(400, "; ".join(lines) + more, code="invalid_body")
