"""Whatever is wrong with a request, the answer is a 4xx with a message; and the fuzzer's requests are truly wrong."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

from benchmarks.fuzzing import BadRequest, Schemas, broken_bodies, broken_requests
from rewards.serving.config import Limits
from tests.serving_support import KEY, SINGLE, Served, run, served

_BODY_BYTES = 40_000


async def _schemas(at: Served) -> Schemas:
    return Schemas((await at.http.get("/openapi.json")).json())


async def _send(at: Served, bad: BadRequest) -> Any:
    headers = {k: v.encode("utf-8") for k, v in bad.headers.items()}
    return await at.http.request(bad.method, f"http://judge{bad.path}", content=bad.body, headers=headers)


def test_every_bad_request_is_refused_with_a_message() -> None:
    async def work() -> None:
        at = served(keys=[KEY], limits=Limits(body_bytes=_BODY_BYTES))
        schemas, lot = await _schemas(at), random.Random(0)
        bad = [*islice(broken_bodies(schemas, lot), 250), *islice(broken_requests(schemas, lot, _BODY_BYTES), 150)]
        assert len({b.kind for b in bad}) >= 14
        for request in bad:
            response = await _send(at, request)
            assert 400 <= response.status_code < 500, (request, response.status_code, response.text)
            assert response.json()["error"]["message"], request
        assert (await at.judge(SINGLE)).json()["results"][0]["score"] == 1.0
        assert at.admission.requests == at.admission.tasks == 0

    run(work)


def test_bodies_are_drawn_from_the_schema_and_the_same_for_a_seed() -> None:
    async def work() -> None:
        schemas = await _schemas(served())
        lot = random.Random(1)
        assert set(schemas.bodies) == {"/v1/judge", "/v1/chat/completions"}
        drawn = [(path, schemas.draw(path, lot)) for path in schemas.bodies for _ in range(50)]
        assert all(schemas.valid(path, body) for path, body in drawn)
        first, again = (list(islice(broken_bodies(schemas, random.Random(2)), 20)) for _ in range(2))
        assert first == again

    run(work)
