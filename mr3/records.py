"""The record types that flow between stages: tasks in, verdicts out, pools in, preferences out.

Pure pydantic: importing this module loads neither torch, vllm nor ray.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from functools import cache
from itertools import permutations
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.judging.scale import BINARY_LABELS as BINARY_LABELS
from mr3.rubrics import Rubric
from mr3.rubrics.checks import check_mode

Mode = Literal["pointwise", "pairwise", "binary", "listwise", "choice"]
PoolMode = Literal["pointwise", "pairwise", "binary"]
"""How responses of a pool are judged: a choice has no responses, a list gives no pair that was compared twice."""
Strategy = Literal["eng-eng", "tgt-eng", "tgt-tgt", "tgt-tgt-translated"]

PAIRWISE_LABELS = ("Assistant A", "Assistant B", "Tie")
POINTWISE_LABELS = ("1", "2", "3", "4", "5")
CHOICE_LABELS = ("A", "B", "C", "D")
DEFAULT_LABELS: dict[str, tuple[str, ...]] = {
    "pairwise": PAIRWISE_LABELS,
    "binary": BINARY_LABELS,
    "pointwise": POINTWISE_LABELS,
    "choice": CHOICE_LABELS,
}
MAX_LISTED = 5
"""Responses of one list-wise task: every order of them is a legal score, and 5 have 120 (more: knockout plans)."""
_RESPONSES: dict[str, range] = {
    "pointwise": range(1, 2),
    "pairwise": range(2, 3),
    "binary": range(2),
    "listwise": range(2, MAX_LISTED + 1),
    "choice": range(1),
}


@cache
def ranking_labels(n: int) -> tuple[str, ...]:
    """The legal scores of a list-wise task of n responses, best first: `A > B > C`, `A > C > B`, ..."""
    return tuple(" > ".join(order) for order in permutations("ABCDE"[:n]))


class Record(BaseModel):
    """A strict, immutable row."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Message(Record):
    """One chat turn."""

    role: Literal["system", "user", "assistant"]
    content: str


class Task(Record):
    """One question for the judge: t, i, a and r of the paper (section 2).

    `responses` holds two texts for pairwise (A first), one for pointwise, one or none for binary (a prompt may be
    what is classified), 2 to 5 for listwise, none for choice (the options are part of the input, or `options`).
    `language` is the language of the input, as an ISO 639 code.
    """

    id: str
    mode: Mode
    input: str | list[Message]
    responses: list[str]
    rubric: Rubric
    language: str
    instruction: str | None = Field(None, description="replaces the profile's own instruction text")
    reference: str | None = None
    family: str | None = Field(None, description="task family (mr3.families): decides headings and schema texts")
    options: str | None = Field(None, description="the answer options of a choice, one to a line")

    @model_validator(mode="after")
    def _can_be_judged(self) -> Task:
        wanted = _RESPONSES[self.mode]
        if len(self.responses) not in wanted:
            shown = str(wanted[0]) if len(wanted) == 1 else f"{wanted[0]} to {wanted[-1]}"
            raise ValueError(f"task {self.id!r}: mode {self.mode} takes {shown} response(s), got {len(self.responses)}")
        if self.mode == "choice":
            return self  # levels of a choice name its options, which are told apart by name
        try:
            check_mode(self.rubric, self.mode)
        except ValueError as error:
            raise ValueError(f"task {self.id!r}: {error}") from error
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The legal scores, in order."""
        if self.mode == "listwise":
            return ranking_labels(len(self.responses))
        return tuple(self.rubric.levels) or DEFAULT_LABELS[self.mode]


class Outcome(StrEnum):
    """What became of one judgement. Only `ok` carries a score."""

    OK = "ok"
    PARSE_FAILED = "parse_failed"
    TRUNCATED = "truncated"
    OFF_SCALE = "off_scale"
    TOO_LONG = "too_long"
    TIMED_OUT = "timed_out"
    ENGINE_FAILED = "engine_failed"


class Verdict(Record):
    """One judgement. A failed verdict has a reason and no score.

    It is read back from stores and from servers, which may be of a later version: fields that are not known are left
    out. No user writes one.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    id: str
    task_id: str
    outcome: Outcome
    score: str | None = None
    expected: float | None = Field(None, description="expected score; P(A better) for pairwise")
    distribution: dict[str, float] | None = Field(None, description="label -> probability")
    outside_mass: float | None = Field(None, description="probability outside the legal labels")
    repaired: bool = False
    explanation: str | None = None
    trace: str | None = None
    reason: str | None = Field(None, description="why the verdict failed")
    swapped: bool = Field(False, description="judged with A and B exchanged; score is mapped back")
    sample: int = 0
    attempts: int = 1
    judge: str = ""
    rubric_hash: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0

    @model_validator(mode="after")
    def _score_only_when_ok(self) -> Verdict:
        assert (self.score is not None) == (self.outcome is Outcome.OK), "only ok verdicts have a score"
        return self


class Candidate(Record):
    """One off-policy response and where it came from."""

    text: str
    policy: str
    id: str = ""


class PoolRow(Record):
    """A prompt with n candidate responses from one or several policies."""

    prompt_id: str
    prompt: str | list[Message]
    language: str
    responses: list[Candidate] = Field(min_length=1)
    reference: str | None = None
    meta: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(
        default_factory=dict, description="what the pool's reading did: a language told by the text, rows joined"
    )

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages."""
        if isinstance(self.prompt, str):
            return [{"role": "user", "content": self.prompt}]
        return [m.model_dump() for m in self.prompt]


def content_of(prompt: Any) -> str:
    """The content id of a prompt (text or chat messages) whose row names none."""
    return stable_hash("content", prompt)


def stable_hash(*parts: Any, length: int = 32) -> str:
    """A hex digest of JSON-able values, the same in every process and under every PYTHONHASHSEED."""
    blob = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(blob.encode(), digest_size=length // 2).hexdigest()
