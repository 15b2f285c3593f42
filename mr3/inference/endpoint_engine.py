"""Generation through an OpenAI-compatible endpoint. A failure is an outcome, never an exception."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from mr3.inference.engine import Completion, EngineConfig, Request, finish_of, prompt_size, time_limit

_MOST_AT_ONCE = 64


class EndpointEngine:
    """`/v1/completions` of a server at `config.url`; the key is read from OPENAI_API_KEY."""

    takes_text = True
    elsewhere = True

    def __init__(self, config: EngineConfig) -> None:
        from openai import AsyncOpenAI

        if not config.url:
            raise ValueError("backend: endpoint needs `url:`, the base URL of the server (ending in /v1)")
        self.config = config
        self._client = AsyncOpenAI(base_url=config.url, api_key=os.environ.get("OPENAI_API_KEY", "none"), max_retries=2)
        self._gate = asyncio.Semaphore(_MOST_AT_ONCE)

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """All at once, within the limit on open calls."""
        return list(await asyncio.gather(*(self._one(r) for r in requests)))

    async def _one(self, request: Request) -> Completion:
        from openai import APITimeoutError, OpenAIError

        limit = time_limit(self.config, prompt_size(request), request.sampling)
        try:
            async with self._gate:
                # The client's own limit is one of silence, and begins anew with each retry.
                async with asyncio.timeout(limit):
                    return await self._ask(request, limit)
        except (APITimeoutError, TimeoutError):
            error = f"no answer in {limit:.0f} s, the limit for its tokens"
            return Completion(id=request.id, finish="timed_out", error=error)
        except OpenAIError as error:
            return Completion(id=request.id, finish="failed", error=f"{type(error).__name__}: {error}")

    async def _ask(self, request: Request, limit: float) -> Completion:
        sampling = request.sampling
        answer = await self._client.completions.create(
            model=self.config.model,
            prompt=request.prompt if request.prompt is not None else request.prompt_ids or [],
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            extra_body={"top_k": sampling.top_k} if sampling.top_k else None,  # not OpenAI's, but vLLM's and others'
            timeout=limit,
        )
        choice = answer.choices[0]
        usage = answer.usage
        return Completion(
            id=request.id,
            text=choice.text,
            **finish_of(choice.finish_reason),
            prompt_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=usage.completion_tokens if usage else 0,
        )

    def close(self) -> None:
        """Nothing is held open between calls."""
