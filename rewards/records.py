"""The record types of labelling: what was compared, what came of it, what is set aside, what people said."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mr3.records import Record

Result = Literal["a", "b", "tie", "failed"]


class SetAside(Record):
    """A pool row (or one of its responses) that can't be judged: where it stands, and why."""

    where: str = Field(description="file and line (or row) of the pool")
    prompt_id: str | None = None
    response_id: str | None = None
    reason: str


class Comparison(Record):
    """Two responses of one prompt after all their judgements were combined."""

    a: str
    b: str
    result: Result
    p_a: float | None = Field(None, description="P(A better), mean over orders and samples; None when failed")
    margin: float | None = Field(None, description="how far apart: 2 P - 1 for pairwise, score difference otherwise")
    flip: bool = Field(False, description="the two orders disagreed")
    verdict_ids: tuple[str, ...] = ()

    @property
    def winner(self) -> str | None:
        """The id of the better response, or None without a decision."""
        return {"a": self.a, "b": self.b}.get(self.result)

    @property
    def loser(self) -> str | None:
        """The id of the worse response, or None without a decision."""
        return {"a": self.b, "b": self.a}.get(self.result)


class Pair(Record):
    """One selected preference, by response ids."""

    chosen: str
    rejected: str
    p_better: float | None
    margin: float | None
    verdict_ids: tuple[str, ...]


class GoldLabel(Record):
    """What a person said about one response, joined to verdicts by the response's id."""

    response_id: str
    prompt_id: str | None = Field(None, description="needed where response ids are unique within a prompt only")
    language: str
    label: str | None = Field(description="a legal score of the mode; None where the annotator left it blank")
    annotator: str = "first"
    text: str | None = Field(None, description="the text that the annotator read")
    tidied: bool = Field(False, description="that text differs from the policy's own output")


class GoldPair(Record):
    """What a person said about two responses of a prompt, joined to the comparison of the same two."""

    prompt_id: str
    a: str = Field(description="response id")
    b: str = Field(description="response id")
    language: str
    label: Literal["a", "b", "tie"] | None = Field(description="the better one; None where it was left blank")
    annotator: str = "first"

    @property
    def flipped(self) -> GoldPair:
        """The same judgement with the two responses named in the other order."""
        label: Literal["a", "b", "tie"] | None = {"a": "b", "b": "a", "tie": "tie"}.get(self.label or "")  # type: ignore[assignment]
        return self.model_copy(update={"a": self.b, "b": self.a, "label": label})


Gold = GoldLabel | GoldPair
CONSENSUS = "consensus"
"""The annotator's name under which the majority of several people stands."""
