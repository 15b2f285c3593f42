"""Generation through chat completions: for judges that are only offered as chat (hosted models, served teachers).

A prompt is what `mr3.judging.messages` writes: the messages as JSON, then what the assistant's turn is to begin with.
The server's own template renders them, so a turn that must begin with a forced sentence can't be asked for.
"""

from __future__ import annotations

import json
from typing import Any

from mr3.inference.endpoint_engine import EndpointEngine
from mr3.inference.engine import Completion, Request, finish_of

_OPEN, _CLOSE = "<think>", "</think>"


def split_prompt(prompt: str) -> tuple[list[dict[str, str]], str]:
    """The messages, and the beginning of the assistant's turn."""
    messages, end = json.JSONDecoder().raw_decode(prompt)
    return messages, prompt[end:]


def as_written(message: Any) -> str:
    """A reply as a judge would have written it after `<think>`: reasoning, the closing tag, the answer."""
    content = message.content or ""
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    if reasoning is None and _CLOSE in content:
        return str(content).lstrip().removeprefix(_OPEN)
    return f"{reasoning or ''}\n{_CLOSE}\n\n{content}"


class ChatEndpoint(EndpointEngine):
    """`/v1/chat/completions` of a server at `config.url`; the key is read from OPENAI_API_KEY."""

    async def _ask(self, request: Request, limit: float) -> Completion:
        messages, begun = split_prompt(request.prompt or "")
        if begun not in ("", _OPEN):
            error = (
                "a chat endpoint can't begin the judge's turn: use backend endpoint (completions), or strategy eng-eng"
            )
            return Completion(id=request.id, finish="failed", error=error)
        sampling = request.sampling
        answer = await self._client.chat.completions.create(
            model=self.config.model,
            messages=messages,  # type: ignore[arg-type]
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_completion_tokens=sampling.max_tokens,
            seed=sampling.seed,
            extra_body={"top_k": sampling.top_k} if sampling.top_k else None,
            timeout=limit,
        )
        choice, usage = answer.choices[0], answer.usage
        return Completion(
            id=request.id,
            text=as_written(choice.message),
            **finish_of(choice.finish_reason),
            prompt_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=usage.completion_tokens if usage else 0,
        )
