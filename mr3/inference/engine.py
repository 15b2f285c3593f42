"""What generation is, apart from who does it: requests in, completions out, through one small protocol.

Engines know nothing of judging. `open_engine` is the only place that chooses an implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field


class Sampling(BaseModel):
    """How to decode; the names are vLLM's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    logprobs: int | None = Field(None, description="top-k logprobs per generated token")
    seed: int | None = None


class EngineConfig(BaseModel):
    """Which model generates, and how it is hosted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="folder or hub id")
    revision: str | None = None
    backend: Literal["vllm", "endpoint"] = "vllm"
    url: str | None = Field(None, description="base URL of an OpenAI-compatible endpoint")
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM EngineArgs by name")
    max_model_len: int | None = None
    host: str | None = Field(
        None, description="name of a Ray actor that holds the engine and serves later stages; one process per name"
    )


class Request(BaseModel):
    """One prompt: text as rendered by a chat template, or token ids."""

    id: str
    prompt: str | None = None
    prompt_ids: list[int] | None = None
    sampling: Sampling


class TokenLogprobs(BaseModel):
    """Top-k alternatives at one generated position: token text -> logprob."""

    token: str
    top: dict[str, float]


class Completion(BaseModel):
    """What came back. `finish` is `stop`, `length`, `too_long` (prompt over the limit) or `failed`."""

    id: str
    text: str = ""
    finish: Literal["stop", "length", "too_long", "failed"]
    prompt_tokens: int = 0
    output_tokens: int = 0
    logprobs: list[TokenLogprobs] | None = None
    error: str | None = None
    attempts: int = 1


class Engine(Protocol):
    """The protocol of all engines. `generate` may be awaited many times at once; order is kept."""

    async def generate(self, requests: Sequence[Request]) -> list[Completion]: ...

    def close(self) -> None: ...
