"""Generation without judging: groups of requests in, groups of completions out, by a Ray Data worker and the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mr3.inference.engine import Completion, EngineConfig, Request
from mr3.inference.hosts import open_engine, stored_work
from mr3.inference.identity import model_identity
from mr3.inference.store import Store
from mr3.inference.stored_work import Made
from mr3.inference.stream import StreamSettings, stream_groups
from mr3.records import stable_hash

_PASSING = ("failed", "timed_out")
"""An engine that failed or was late may answer in the next run."""


def request_key(model: str, request: Request) -> str:
    """What makes a completion: model, prompt and sampling (the request's own id and seed included)."""
    return stable_hash("completion", model, request.model_dump(mode="json"))


class GenerateWorker:
    """Payload `{"requests": [...]}` becomes `{"completions": [...]}`. A request that kills engines ends as `failed`."""

    def __init__(self, engine: EngineConfig, model_key: str, store: str, run: str | None = None) -> None:
        self.engine = open_engine(engine)
        self._key = model_key
        self._work = stored_work(Store(store, run), self, self.engine)

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch of groups."""
        groups = [[Request.model_validate(r) for r in json.loads(p)["requests"]] for p in batch["payload"]]
        keyed = [[(request_key(self._key, r), r) for r in group] for group in groups]
        answers = await self._work.ask({key: r for group in keyed for key, r in group})
        payloads = ['{"completions": [' + ",".join(answers.results[key] for key, _ in group) + "]}" for group in keyed]
        return {"group": batch["group"], "payload": np.array(payloads, dtype=object)}

    async def make(self, items: Sequence[Request], deaths: Sequence[int]) -> list[Made]:
        """As the engine does."""
        made = await self.engine.generate(items)
        return [
            Made(c.model_copy(update={"attempts": c.attempts + n}).model_dump_json(), c.finish not in _PASSING)
            for c, n in zip(made, deaths, strict=True)
        ]

    def give_up(self, item: Request, reason: str, deaths: int) -> str:
        """The completion of a request that kills engines."""
        return Completion(id=item.id, finish="failed", error=reason, attempts=deaths).model_dump_json()


def generate_groups(
    groups: Mapping[str, Sequence[Request]], engine: EngineConfig, folder: Path, settings: StreamSettings
) -> dict[str, list[Completion]]:
    """The completions of every group of requests, by its name, in the order of the requests.

    Runs inside a Ray session; the store in `folder` makes it resumable.
    """
    rows = [
        {
            "group": name,
            "payload": json.dumps({"requests": [r.model_dump(mode="json") for r in requests]}, ensure_ascii=False),
        }
        for name, requests in groups.items()
    ]
    folder = folder.resolve()
    with Store(folder) as stored:
        run = stored.open_run()
        stored.refresh()
        worker = {"engine": engine, "model_key": model_identity(engine), "store": str(folder), "run": run}
        return {
            group: [Completion.model_validate(c) for c in json.loads(payload)["completions"]]
            for group, payload in stream_groups(rows, GenerateWorker, worker, settings)
        }
