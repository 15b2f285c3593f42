"""An engine that answers at once, for what is to be measured around engines. The answer is a well-formed verdict.

`engine:` settings: `seconds` to wait per call, `log` (a file that gets one line per call: process id, number of
requests), `poison` (a text in a prompt that ends the process, as a fault in a kernel would), `silent_while` and
`dies_while` (a file: as long as it is there, no call is answered, or each ends the process). Answers of two runs
differ under the same ids by the environment's `INSTANT_SALT`, or with `by_run` by the number of the run in its session.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from mr3.inference.engine import Completion, EngineConfig, Request

NAME = "benchmarks.instant:InstantEngine"
_FOREVER_S = 86_400.0
SALT = "INSTANT_SALT"
_TRACE = "1 language English: A English yes, B English yes: same\n2 polite: A Thanks yes, B Thanks yes: same\n"
_ANSWER = '{{"explanation": "Nothing but the first criterion tells them apart.", "score": "{score}"}}'
_PAIRWISE, _POINTWISE = ("Assistant A", "Assistant B", "Tie"), tuple("12345")


class InstantEngine:
    """Keeps the engine protocol; the score is drawn by a hash of the prompt, so that runs can be compared."""

    takes_text = True

    def __init__(self, config: EngineConfig) -> None:
        self._seconds = float(config.engine.get("seconds", 0.0))
        self._log = config.engine.get("log")
        self._poison = config.engine.get("poison")
        self._dies_while = config.engine.get("dies_while")
        self._silent_while = config.engine.get("silent_while")
        self._salt = os.environ.get(SALT, "")
        if config.engine.get("by_run"):
            import ray

            self._salt = str(ray.get_runtime_context().get_job_id())

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request."""
        if self._log:
            with Path(self._log).open("a") as out:
                out.write(f"{os.getpid()} {len(requests)}\n")
        if self._poison and any(self._poison in (r.prompt or "") for r in requests):
            os._exit(1)
        if self._dies_while and Path(self._dies_while).exists():
            os._exit(1)
        while self._silent_while and Path(self._silent_while).exists():
            await asyncio.sleep(_FOREVER_S)
        if self._seconds:
            await asyncio.sleep(self._seconds)
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        prompt, salt = request.prompt or "", self._salt
        drawn = hashlib.blake2b((prompt + salt).encode(), digest_size=2).digest()
        scores = _PAIRWISE if "# Assistant A\n" in prompt else _POINTWISE
        answer = _ANSWER.format(score=scores[int.from_bytes(drawn) % len(scores)])
        trace = _TRACE + (f"3 run {salt}\n" if salt else "")
        return Completion(id=request.id, text=f"{trace}</think>{answer}", finish="stop", output_tokens=70)

    def close(self) -> None:
        """Nothing is held."""
