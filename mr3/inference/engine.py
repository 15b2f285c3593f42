"""What generation is, apart from who does it: requests in, completions out, through one small protocol.

Engines know nothing of judging. `open_engine` is the only place that chooses an implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

BUILT_IN = ("vllm", "endpoint", "chat")


class Sampling(BaseModel):
    """How to decode; the names are vLLM's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    logprobs: int | None = Field(None, description="top-k logprobs per generated token")
    seed: int | None = None
    ignore_eos: bool = Field(False, description="write max_tokens tokens whatever they are (for measurements)")


class EngineConfig(BaseModel):
    """Which model generates, and how it is hosted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="folder or hub id")
    revision: str | None = None
    adapter: str | None = Field(None, description="folder of a LoRA adapter on the model")
    backend: str = Field("vllm", description="vllm, endpoint (completions), chat, or package.module:Class of your own")
    url: str | None = Field(None, description="base URL of an OpenAI-compatible endpoint")
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM EngineArgs by name")
    max_model_len: int | None = None
    seeded: bool = Field(False, description="requests bring seeds: on a CPU, prompts are then not cut")
    seconds_per_token: float = Field(
        1.0, gt=0, description="a request may take 60 s and this per token of prompt and answer, then it is timed_out"
    )
    host: str | None = Field(
        None, description="name of a Ray actor that holds the engine and serves later stages; one process per name"
    )
    silence_s: float = Field(120.0, gt=0, description="a host that gives no sign of life for so long is replaced")

    @field_validator("backend")
    @classmethod
    def _known(cls, backend: str) -> str:
        return known_backend(backend)


def known_backend(name: str) -> str:
    """The name, if it can name an engine.

    Raises:
        ValueError: for a word that is neither a built-in engine nor an import string.
    """
    if name not in BUILT_IN and ":" not in name:
        raise ValueError(f"unknown backend {name!r}: choose vllm, endpoint or chat, or give package.module:Class")
    return name


GRACE_S = 60.0
"""What a request may take whatever its length."""


def time_limit(config: EngineConfig, prompt_tokens: int, sampling: Sampling) -> float:
    """Seconds that one request may take from its start in the engine.

    It follows from the token limits: a fixed time would drop the longest traces, and bias what is left.
    """
    return GRACE_S + config.seconds_per_token * (prompt_tokens + sampling.max_tokens)


class Request(BaseModel):
    """One prompt: text as rendered by a chat template, or token ids."""

    id: str
    prompt: str | None = None
    prompt_ids: list[int] | None = None
    sampling: Sampling


def prompt_size(request: Request) -> int:
    """At most so many prompt tokens: without a tokenizer a byte counts as one."""
    return len(request.prompt_ids or (request.prompt or "").encode("utf-8", "surrogatepass"))


class TokenLogprobs(BaseModel):
    """Top-k alternatives at one generated position: token text -> logprob."""

    token: str
    top: dict[str, float]


class Completion(BaseModel):
    """What came back. `finish` is `stop`, `length`, `too_long` (prompt over the limit), `timed_out` or `failed`."""

    id: str
    text: str = ""
    finish: Literal["stop", "length", "too_long", "timed_out", "failed"]
    prompt_tokens: int = 0
    output_tokens: int = 0
    logprobs: list[TokenLogprobs] | None = None
    error: str | None = None
    attempts: int = 1


def finish_of(reason: str | None) -> dict[str, Any]:
    """The fields `finish` and `error` of a completion that a server or an engine ended for this reason.

    Whatever is neither `stop` nor `length` (an error, an abort, a filter) failed: what was written by then may look
    like a whole answer, and must not be read as one.
    """
    if reason in ("stop", "length"):
        return {"finish": reason}
    return {"finish": "failed", "error": f"the engine ended the answer with {reason!r}"}


class EngineDead(RuntimeError):
    """The engine broke or hangs; the process that holds it must be replaced."""


class HostDied(EngineDead):
    """The process that held the engine died, and another takes its place: this process may ask again."""


class Engine(Protocol):
    """The protocol of all engines: made from an EngineConfig; order is kept.

    `generate` may be awaited many times at once. What fails for one request is its completion's `finish`; only an
    engine that can't go on raises EngineDead. An engine that reads `Request.prompt` and not `prompt_ids` says so with
    `takes_text = True`, and is spared the tokenising.
    """

    takes_text: bool

    async def generate(self, requests: Sequence[Request]) -> list[Completion]: ...

    def close(self) -> None: ...
