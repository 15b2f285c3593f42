"""An engine that is told the right label, and answers at once: for what is to be measured around the factory's models.

A prompt holds `[label]`, put there by the benchmark. `engine:` settings: `wrong`, the share of requests that get
another label (drawn by a hash of the prompt and the request's id, so that samples of one prompt differ).
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from typing import ClassVar

from mr3.inference.engine import Completion, EngineConfig, Request

NAME = "benchmarks.oracle_engine:ToldEngine"
_MARK = re.compile(r"\[(Assistant A|Assistant B|Tie|[1-5]|true|false)\]")
_OTHER = {"Assistant A": "Assistant B", "Assistant B": "Tie", "Tie": "Assistant A", "true": "false", "false": "true"}
_TRACE = "\n1 language English: A English yes, B English yes: same\n2 polite: A Thanks yes, B Thanks yes: same\n"
_ANSWER = '{{"explanation": "Nothing but the first criterion tells them apart.", "score": "{score}"}}'


def mark(label: str) -> str:
    """What tells the engine the right label."""
    return f"[{label}]"


def _count(prompt: str) -> dict[str, int]:
    """An engine counts its tokens; of this one a token is four characters."""
    return {"prompt_tokens": len(prompt) // 4, "output_tokens": 70}


class ToldEngine:
    """Keeps the engine protocol."""

    takes_text = True
    seconds: ClassVar[float] = 0.0

    def __init__(self, config: EngineConfig) -> None:
        self._wrong = float(config.engine.get("wrong", 0.0))

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request. Time in here is the engine's: it is added up in `seconds`."""
        begun = time.process_time()
        made = [self._answer(request) for request in requests]
        ToldEngine.seconds += time.process_time() - begun
        return made

    def _answer(self, request: Request) -> Completion:
        prompt = request.prompt or ""
        found = _MARK.search(prompt)
        assert found is not None, "a prompt of this benchmark holds its label"
        label = found.group(1)
        drawn = hashlib.blake2b((request.id + prompt).encode(), digest_size=4).digest()
        if int.from_bytes(drawn) / 2**32 < self._wrong:
            label = _OTHER.get(label) or str(6 - int(label) if label != "3" else 4)
        answer = _ANSWER.format(score=label)
        return Completion(id=request.id, text=_TRACE + "</think>" + answer, finish="stop", **_count(prompt))

    def close(self) -> None:
        """Nothing is held."""
