"""A typed async client of `mr3 serve`. Needs httpx and pydantic: neither ray, vllm nor torch is imported.

async with JudgeClient("http://127.0.0.1:8000", api_key="...") as client:
    result = await client.judge(JudgeTask(mode="binary", input="2 + 3?", responses=["5"], rubric="house"))
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from email.utils import parsedate_to_datetime
from types import TracebackType

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rewards.serving.schema import ErrorBody, JudgeRequest, JudgeResponse, JudgeResult, JudgeStrategy, JudgeTask

_NOT_NOW = frozenset({408, 425, 429})
_REFUSED = range(400, 500)
_SHOWN = 200
_CONNECT_S = 10.0


class JudgeRefused(RuntimeError):
    """The server answered that it will not do this (4xx): trying again would not help."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class JudgeUnavailable(RuntimeError):
    """No answer that can be read before the deadline, or within the retries; says what the last attempt met."""


class RetryPolicy(BaseModel):
    """When to try again. Judging is idempotent, so every failure of server or network may be retried."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: int = Field(8, ge=1)
    first_s: float = Field(0.25, gt=0, description="upper end of the first wait; it doubles with each attempt")
    longest_s: float = Field(30.0, gt=0)

    def wait(self, attempt: int, told: float | None, lot: float) -> float:
        """Seconds before attempt number `attempt + 1`: full jitter, and never less than Retry-After said.

        Args:
            attempt: attempts made, from 1.
            told: seconds of Retry-After.
            lot: a random number from 0 to 1.
        """
        own = min(self.longest_s, self.first_s * float(2 ** min(attempt - 1, 30))) * lot
        return own if told is None else told + own


def retry_after(headers: httpx.Headers, now: float) -> float | None:
    """Seconds of a Retry-After header (a number or a date, RFC 9110), None where it is absent or odd."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):  # what the standard library makes of odd dates
        return None


class JudgeClient:
    """Judges over HTTP; many calls may run at once, on up to `connections` connections.

    Args:
        url: of the server, as in its "ready on" line.
        deadline_s: seconds for one request with all its retries, from when it has a connection.
        transport, sleep: what sends requests and what waits; other ones are for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        connections: int = 64,
        deadline_s: float = 600.0,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        headers = {"content-type": "application/json"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        self._retry = retry or RetryPolicy()
        self._deadline_s = deadline_s
        self._sleep = sleep
        self._random = random.Random()
        # Not left to the connection pool: waiting for a free connection must not count against a deadline.
        self._gate = asyncio.Semaphore(connections)
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers=headers,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            # The deadline bounds the whole call: a long generation is no reason to give up a connection.
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            transport=transport,
        )

    async def __aenter__(self) -> JudgeClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def judge(
        self,
        task: JudgeTask,
        strategy: JudgeStrategy | None = None,
        *,
        include_trace: bool = False,
        deadline_s: float | None = None,
    ) -> JudgeResult:
        """Judge one task. A failed judgement is a result without a score, not an exception.

        Raises:
            JudgeRefused: when the server says that the request is wrong.
            JudgeUnavailable: when it could not be reached in time.
        """
        (result,) = await self._ask([task], strategy, include_trace, deadline_s)
        return result

    async def judge_batch(
        self,
        tasks: Sequence[JudgeTask],
        strategy: JudgeStrategy | None = None,
        *,
        batch_size: int = 16,
        include_trace: bool = False,
        deadline_s: float | None = None,
    ) -> list[JudgeResult]:
        """Judge many tasks, `batch_size` to a request, requests at once; results in the order of the tasks.

        Raises:
            JudgeRefused, JudgeUnavailable: as `judge`; the first one ends the whole call.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: give 1 or more")
        parts = [tasks[i : i + batch_size] for i in range(0, len(tasks), batch_size)]
        asked = [asyncio.ensure_future(self._ask(part, strategy, include_trace, deadline_s)) for part in parts]
        try:
            answers = await asyncio.gather(*asked)
        finally:
            for task in asked:
                task.cancel()
        return [result for answer in answers for result in answer]

    async def healthy(self) -> bool:
        """Whether the server takes requests now."""
        try:
            return (await self._http.get("/health", timeout=_CONNECT_S)).status_code == 200
        except httpx.RequestError:
            return False

    async def _ask(
        self, tasks: Sequence[JudgeTask], strategy: JudgeStrategy | None, include_trace: bool, deadline_s: float | None
    ) -> list[JudgeResult]:
        request = JudgeRequest(tasks=list(tasks), strategy=strategy or JudgeStrategy(), include_trace=include_trace)
        body = request.model_dump_json(exclude_defaults=True).encode()
        async with self._gate:
            return await self._post(body, len(tasks), self._deadline_s if deadline_s is None else deadline_s)

    async def _post(self, body: bytes, tasks: int, deadline_s: float) -> list[JudgeResult]:
        """The results; tries again until the deadline. A page of some proxy or half an answer is no answer."""
        ends, last = time.monotonic() + deadline_s, "it was never tried"
        for attempt in range(1, self._retry.attempts + 1):
            left = ends - time.monotonic()
            if left <= 0:
                break
            told = None
            try:
                async with asyncio.timeout(left):
                    response = await self._http.post("/v1/judge", content=body)
            except TimeoutError:
                last = "no answer"
                break
            except httpx.RequestError as error:  # also what can't be decompressed
                last = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == httpx.codes.OK:
                    try:
                        return _results(response.content, tasks)
                    except ValueError as error:
                        last = str(error)
                else:
                    last = f"{response.status_code}: {_message(response)}"
                    if response.status_code in _REFUSED and response.status_code not in _NOT_NOW:
                        raise JudgeRefused(response.status_code, _message(response))
                    told = retry_after(response.headers, time.time())
            wait = self._retry.wait(attempt, told, self._random.random())
            if attempt == self._retry.attempts or time.monotonic() + wait >= ends:
                break
            await self._sleep(wait)
        raise JudgeUnavailable(f"{self._http.base_url} after {attempt} attempts, deadline {deadline_s:.0f} s: {last}")


def _results(body: bytes, tasks: int) -> list[JudgeResult]:
    """The results of an answer; fields that a later server adds are left out.

    Raises:
        ValueError: for anything else than one result per task.
    """
    try:
        results = JudgeResponse.model_validate_json(body, strict=True, extra="ignore").results
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise ValueError(f"an answer that is none ({where}: {first['msg'][:_SHOWN]}): {_shown(body)}") from error
    if len(results) != tasks:
        raise ValueError(f"the server sent {len(results)} results for {tasks} tasks")
    return results


def _shown(body: bytes) -> str:
    return body[:_SHOWN].decode("utf-8", "replace")


def _message(response: httpx.Response) -> str:
    """The server's own words, or the beginning of what some proxy said."""
    try:
        return ErrorBody.model_validate_json(response.content, extra="ignore").error.message
    except ValidationError:
        return _shown(response.content)
