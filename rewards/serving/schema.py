"""What goes over the wire to `/v1/judge` and back. Shared by server and client; free of ray, vllm and torch.

Requests are read strictly (a number is not a string, an unknown key is an error), so that what the OpenAPI schema
refuses the server refuses too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.records import Message, Mode, Outcome, Verdict
from mr3.rubrics import Rubric
from rewards.model import Combine, Orders
from rewards.records import Result

MOST_TASKS, MOST_TURNS = 1_024, 1_024
LANGUAGE = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
RubricId = Annotated[str, Field(min_length=1, max_length=200, description="id in the server's rubric library")]


class Wire(BaseModel):
    """A strict, immutable body."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class JudgeTask(Wire):
    """One question for the judge: two responses for `pairwise`, one for `pointwise` and `binary`."""

    mode: Mode
    input: str | Annotated[list[Message], Field(min_length=1, max_length=MOST_TURNS)] = Field(
        description="text, or a conversation"
    )
    responses: list[str] = Field(min_length=1, max_length=2)
    rubric: Rubric | RubricId
    language: str = Field("en", pattern=LANGUAGE, max_length=40, description="of the input, as an ISO 639 code")
    reference: str | None = None
    instruction: str | None = Field(None, description="replaces the prompt profile's own instruction")
    id: str | None = Field(None, max_length=200, description="comes back in the result")


class JudgeStrategy(Wire):
    """How single judgements become one result."""

    orders: Orders = Field("both", description="pairwise: judge A/B and B/A (both), or only as given (one)")
    samples: int = Field(1, ge=1, le=64, description="judgements per order; more than 1 needs a sampling judge")
    combine: Combine = Field("agree", description="agree: both orders must say the same; mean: mean P(A better)")
    tie_margin: float = Field(0.0, ge=0.0, le=0.5, description="with mean: so close to one half is a tie")


class JudgeRequest(Wire):
    """The body of `POST /v1/judge`: one task or a batch."""

    tasks: list[JudgeTask] = Field(
        min_length=1, max_length=MOST_TASKS, description="judged together; a server's own limit may be lower"
    )
    strategy: JudgeStrategy = JudgeStrategy()
    include_trace: bool = Field(False, description="send the reasoning text of every verdict")


class Compared(Wire):
    """What all judgements of a pairwise task come to."""

    result: Result
    p_a: float | None = Field(None, description="P(A better), mean over orders and samples; null when failed")
    margin: float | None = None
    flip: bool = Field(False, description="the two orders disagreed")


class JudgeResult(Wire):
    """What became of one task. A failed judgement has `score: null`, an outcome and a reason."""

    id: str | None = None
    outcome: Outcome = Field(description="ok, or the outcome of the first verdict that failed")
    score: float | None = Field(None, description="mean score; P(true) for binary, P(A better) for pairwise")
    reason: str | None = None
    comparison: Compared | None = Field(None, description="pairwise only")
    verdicts: list[Verdict] = Field(description="every judgement; their scores refer to the order of the request")

    @model_validator(mode="after")
    def _score_only_when_ok(self) -> JudgeResult:
        if (self.score is not None) != (self.outcome is Outcome.OK):
            raise ValueError(f"the outcome is {self.outcome}, and the score {self.score}: a failed judgement has none")
        return self


class JudgeResponse(Wire):
    """The body of an answer: results in the order of the tasks."""

    judge: str = Field(description="content hash of the model, or id@revision")
    results: list[JudgeResult]


class ErrorDetail(Wire):
    """OpenAI's error object."""

    message: str
    type: Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]
    param: str | None = None
    code: str | None = None


class ErrorBody(Wire):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail


class Listed(Wire):
    """A list, as OpenAI's API returns lists."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
