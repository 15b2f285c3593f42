"""The records of refinement: labelled items in three sets, proposals, scores, and the rounds of a history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from mr3.records import Task
from mr3.rubrics import Rubric
from mr3.stats import Rate, paired_bootstrap

PARTS = ("develop", "accept", "test")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A task with its gold label. `content` is what must not stand in two sets (by default the prompt itself)."""

    task: Task
    gold: str
    content: str

    def under(self, rubric: Rubric) -> Task:
        """The task as judged by a rubric."""
        return self.task.model_copy(update={"rubric": rubric})


class ProposalOutcome(StrEnum):
    """What became of a proposal. Only `ok` is judged."""

    OK = "ok"
    PARSE_FAILED = "parse_failed"
    INVALID = "invalid"
    KNOWN = "known"
    TRUNCATED = "truncated"
    TOO_LONG = "too_long"
    TIMED_OUT = "timed_out"
    ENGINE_FAILED = "engine_failed"


class Proposal(BaseModel):
    """A changed rubric and where it came from; without a rubric, why not."""

    model_config = ConfigDict(frozen=True)

    edit: str
    outcome: ProposalOutcome = ProposalOutcome.OK
    rubric: Rubric | None = None
    reason: str | None = None
    source: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Mistake:
    """A task of the development set that the judge got wrong under the present rubric."""

    task: Task
    gold: str
    said: str | None
    explanation: str | None


@dataclass(frozen=True, slots=True)
class Situation:
    """What a proposer may know: nothing of the second and third set."""

    current: Rubric
    round: int
    wanted: int
    known: frozenset[str] = frozenset()
    """Content hashes of rubrics that were judged already."""
    mistakes: Sequence[Mistake] = ()


class Proposer(Protocol):
    """Makes changed rubrics of the present one."""

    def propose(self, situation: Situation) -> list[Proposal]: ...


@dataclass
class Scores:
    """Per item of a set: how much of it was right (0, 1, or a half where one of two orders was)."""

    points: dict[str, float]
    contents: dict[str, str]
    failed: int = 0
    verdicts: int = 0
    new: int = 0
    mistakes: list[Mistake] = field(default_factory=list)

    def by_content(self) -> dict[str, float]:
        """The mean per content: items of one content are not independent, so contents are what is resampled."""
        groups: dict[str, list[float]] = defaultdict(list)
        for item, points in self.points.items():
            groups[self.contents[item]].append(points)
        return {content: sum(found) / len(found) for content, found in groups.items()}

    def mean(self) -> float:
        """The mean over contents."""
        found = self.by_content()
        return sum(found.values()) / len(found)


class Panel(Protocol):
    """Judges items under rubrics."""

    def scores(self, rubrics: Sequence[Rubric], items: Sequence[Labelled]) -> list[Scores]: ...

    def close(self) -> None: ...


def difference(after: Scores, before: Scores, confidence: float = 0.95, seed: int = 0) -> Rate:
    """The mean of after - before over the contents of one set, with the interval of that difference."""
    a, b = after.by_content(), before.by_content()
    assert a.keys() == b.keys(), "a paired comparison is over the same contents"
    names = sorted(a)
    return paired_bootstrap([a[n] for n in names], [b[n] for n in names], seed=seed, confidence=confidence)


def level(scores: Scores, seed: int = 0) -> Rate:
    """The mean over contents with its interval."""
    found = scores.by_content()
    return paired_bootstrap([found[n] for n in sorted(found)], [0.0] * len(found), seed=seed)


Sets = Mapping[str, Sequence[Labelled]]
