"""The part of OpenAI's chat completions API that this server keeps. Anything else in a request is an error."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rewards.serving.schema import MOST_TURNS, Wire


class TextPart(Wire):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(Wire):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(max_length=MOST_TURNS)]

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ResponseFormat(Wire):
    """Free text only: a grammar beside thinking is a known source of bugs in vLLM."""

    type: Literal["text"]


class ChatRequest(Wire):
    """The body of `POST /v1/chat/completions`."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_TURNS)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="goes before max_tokens")
    temperature: float = Field(1.0, ge=0.0, le=2.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    n: int = Field(1, ge=1, le=16)
    seed: int | None = Field(None, ge=0, le=2**32 - 1)
    stream: bool = Field(False, description="true is refused with 400: this server does not stream")
    response_format: ResponseFormat | None = None
    user: str | None = Field(None, description="accepted and ignored")


class ChatChoice(Wire):
    """One completion."""

    index: int
    message: dict[str, Any]
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class Usage(Wire):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatResponse(Wire):
    """OpenAI's chat completion object."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="seconds since 1970")
    model: str
    choices: list[ChatChoice]
    usage: Usage
