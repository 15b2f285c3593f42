"""`/v1/chat/completions` without HTTP: messages through the model's own chat template and the replica's engine."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from mr3.inference.engine import Completion, Request, Sampling
from mr3.judging.chat import least_tokens
from rewards.serving.admission import Admission
from rewards.serving.chat_schema import ChatChoice, ChatRequest, ChatResponse, Usage
from rewards.serving.errors import ApiError
from rewards.serving.metrics import ServerMetrics

if TYPE_CHECKING:
    from mr3.inference.engine import Engine
    from mr3.judge_card import JudgeCard


class ChatService:
    """The judge's model as a chat model, within the lengths of its card."""

    def __init__(
        self,
        name: str,
        card: JudgeCard,
        tokenizer: Any,
        engine: Engine,
        admission: Admission,
        metrics: ServerMetrics,
        beside: Executor,
    ) -> None:
        self.name, self._beside = name, beside
        self._card, self._tokenizer, self._engine = card, tokenizer, engine
        self._admission, self._metrics = admission, metrics

    async def answer(self, request: ChatRequest) -> ChatResponse:
        """Complete a conversation.

        Raises:
            ApiError: 400, 404 for what can't be done, 429 when full, 504 for a timeout, 502 for a failed engine.
        """
        self._check(request)
        ids = await asyncio.get_running_loop().run_in_executor(self._beside, self._prompt, request)
        tokens = self._max_tokens(request, len(ids))
        requests = [
            Request(id=str(i), prompt_ids=ids, sampling=self._sampling(request, tokens, i)) for i in range(request.n)
        ]
        with self._admission.work(request.n):
            completions = await self._engine.generate(requests)
        for completion in completions:
            _raise_if_failed(completion)
        return self._response(completions)

    def _check(self, request: ChatRequest) -> None:
        if request.model != self.name:
            message = f"no model {request.model!r} here: this server has {self.name!r}"
            raise ApiError(404, message, code="model_not_found")
        if request.stream:
            raise ApiError(400, "this server does not stream: leave stream out, or set it to false")

    def _prompt(self, request: ChatRequest) -> list[int]:
        messages = [{"role": m.role, "content": m.text} for m in request.messages]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        least = least_tokens(self._ids, text, self._card.max_model_len)
        if least is not None:
            raise self._too_long(f"at least {least}")
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer([text], add_special_tokens=False)["input_ids"][0]
        return ids

    def _too_long(self, tokens: str) -> ApiError:
        room = f"the model holds {self._card.max_model_len} with its answer"
        return ApiError(400, f"the messages have {tokens} tokens, and {room}", code="context_length_exceeded")

    def _max_tokens(self, request: ChatRequest, prompt: int) -> int:
        room = self._card.max_model_len - prompt
        if room < 1:
            raise self._too_long(str(prompt))
        asked = request.max_completion_tokens or request.max_tokens
        if asked is not None and asked > room:
            message = f"max_tokens is {asked}, but beside a prompt of {prompt} tokens only {room} fit"
            raise ApiError(400, message, code="context_length_exceeded")
        return asked or min(room, self._card.max_output_tokens)

    @staticmethod
    def _sampling(request: ChatRequest, tokens: int, index: int) -> Sampling:
        seed = None if request.seed is None else (request.seed + index) % 2**32
        return Sampling(temperature=request.temperature, top_p=request.top_p, max_tokens=tokens, seed=seed)

    def _response(self, completions: Sequence[Completion]) -> ChatResponse:
        prompt = completions[0].prompt_tokens
        output = sum(c.output_tokens for c in completions)
        self._metrics.tokens(prompt, output)
        choices = [
            ChatChoice(
                index=i,
                message={"role": "assistant", "content": c.text, "refusal": None},
                finish_reason="length" if c.finish == "length" else "stop",
            )
            for i, c in enumerate(completions)
        ]
        return ChatResponse(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=self.name,
            choices=choices,
            usage=Usage(prompt_tokens=prompt, completion_tokens=output, total_tokens=prompt + output),
        )


def _raise_if_failed(completion: Completion) -> None:
    error = completion.error or "the engine failed"
    if completion.finish == "too_long":
        raise ApiError(400, error, code="context_length_exceeded")
    if completion.finish == "timed_out":
        raise ApiError(504, error)
    if completion.finish == "failed":
        raise ApiError(502, error)
