"""An engine that answers at once, for what is to be measured around engines. The answer is a well-formed verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mr3.inference.engine import Completion, EngineConfig, Request

TRACE = "1 language English: A English yes, B English yes: same\n2 polite: A Thanks yes, B Thanks yes: same\n"
_ANSWER = '{{"explanation": "Nothing but the first criterion tells them apart.", "score": "{score}"}}'
_SCORES = {"# Assistant A\n": ("Assistant A", "Assistant B", "Tie"), "5": tuple("12345")}


class InstantEngine:
    """Keeps the engine protocol; the score is drawn by a hash of the prompt, so that runs can be compared."""

    takes_text = True

    def __init__(self, config: EngineConfig) -> None:
        self.config = config

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request."""
        return [self._answer(request) for request in requests]

    @staticmethod
    def _answer(request: Request) -> Completion:
        prompt = request.prompt or ""
        drawn = hashlib.blake2b(prompt.encode(), digest_size=2).digest()
        scores = _SCORES["# Assistant A\n" if "# Assistant A\n" in prompt else "5"]
        answer = _ANSWER.format(score=scores[int.from_bytes(drawn) % len(scores)])
        return Completion(
            id=request.id,
            text=f"{TRACE}</think>{answer}",
            finish="stop",
            prompt_tokens=len(request.prompt_ids or ()),
            output_tokens=70,
        )

    def close(self) -> None:
        """Nothing is held."""
