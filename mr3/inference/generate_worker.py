"""A Ray Data worker that only generates: groups of requests in, groups of completions out, through the store."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from mr3.inference.engine import Completion, EngineConfig, EngineDead, Request
from mr3.inference.hosts import open_engine
from mr3.inference.store import Store
from mr3.records import stable_hash


def request_key(model: str, request: Request) -> str:
    """What makes a completion: model, prompt and sampling (the request's own id and seed included)."""
    return stable_hash("completion", model, request.model_dump(mode="json"))


class GenerateWorker:
    """Payload `{"requests": [...]}` becomes `{"completions": [...]}`; whole groups are kept or made anew."""

    def __init__(self, engine: EngineConfig, model_key: str, store: str | None = None) -> None:
        self._engine = open_engine(engine)
        self._key = model_key
        self._store = Store(store) if store else None

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch of groups."""
        groups = [[Request.model_validate(r) for r in json.loads(p)["requests"]] for p in batch["payload"]]
        requests = [r for group in groups for r in group]
        keys = [request_key(self._key, r) for r in requests]
        done = self._store.lookup(keys) if self._store else {}
        todo = [(k, r) for k, r in zip(keys, requests, strict=True) if k not in done]
        if todo:
            made = await self._generate([r for _, r in todo])
            new = {k: c.model_dump_json() for (k, _), c in zip(todo, made, strict=True) if c.finish != "failed"}
            done |= {k: c.model_dump_json() for (k, _), c in zip(todo, made, strict=True)}
            if self._store:  # what another run stored first counts
                done |= self._store.write(new) | self._store.lookup([k for k, _ in todo if k not in new])
        answers = iter(done[k] for k in keys)
        payloads = ['{"completions": [' + ",".join(next(answers) for _ in group) + "]}" for group in groups]
        return {"group": batch["group"], "payload": np.array(payloads, dtype=object)}

    async def _generate(self, requests: list[Request]) -> list[Completion]:
        try:
            return await self._engine.generate(requests)
        except EngineDead:
            os._exit(1)
