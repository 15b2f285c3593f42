"""What a reward of the judge may look at: the example, the samples of its group, its twins; and what a term is.

A *bundle* is what must lie side by side in one generation batch: an example, its twins (the same responses under
another rubric) and, where both orders are trained, each with A and B exchanged. Free of torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from mr3.parsing import CLOSE, Parsed
from mr3.records import Outcome, Task

Need = Literal["gold", "twin", "swapped", "label_probs", "blank_probs", "rubric_gain", "reader_probs"]
"""What a term can't do without. The last four are measured by forward passes, and only where a term asks for them."""
Finish = Literal["stop", "length"]
Values = list[float | None]
"""One value per sample of a group, from 0 (worst) to 1 (best); None is *not measured*, never a bad mark."""


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt of the judge. All but the task and its gold label is None (or empty) where the data do not say it.

    Args:
        gold: the right score, in the order that is shown.
        content: what the task is about: rows of one content are never split between training and held-out tasks.
        twin: shared by the tasks that ask for the same responses under another rubric.
        criteria: names of the rubric's criteria, in order.
        hidden: the verdict of the shortcut that ignores the rubric, in the order that is shown.
        decided_by: which criterion decides, from 0; -1 for none (a tie).
        trace: the completion of a perfect judge. No term reads it: it is there for measuring.
        meta: what a checker needs to know of the task, as the data write it.
        reward_only: it is sampled for what it says of its twins, and is not trained on.
        swapped: A and B are shown exchanged.
    """

    task: Task
    gold: str | None
    content: str
    twin: str | None = None
    criteria: tuple[str, ...] = ()
    hidden: str | None = None
    decided_by: int | None = None
    trace: str | None = None
    meta: str | None = None
    reward_only: bool = False
    swapped: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion, read by the parser of the judge's card.

    Args:
        text: as generated, without what the prompt made it begin with.
        tokens: how many were sampled.
        finish: `length` where it was cut off.
        label_probs: probability of each legal score at the place where the written one stands, given all before it.
            What they lack to 1 lies outside the legal scores.
        blank_probs: the same behind a prompt whose rubric is blanked.
        rubric_gain: log p(completion | prompt) - log p(completion | prompt with the rubric blanked), in nats.
        reader_probs: as a frozen reader has them that sees nothing but the explanation.
    """

    text: str
    tokens: int
    finish: Finish
    parsed: Parsed
    label_probs: Mapping[str, float] | None = None
    blank_probs: Mapping[str, float] | None = None
    rubric_gain: float | None = None
    reader_probs: Mapping[str, float] | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a legal verdict."""
        return self.parsed.outcome is Outcome.OK

    @property
    def trace(self) -> str | None:
        """The trace, if it was closed: of an unclosed one nobody knows where the reasoning ends."""
        return self.parsed.trace or None if CLOSE in self.text else None

    def right(self, gold: str) -> bool:
        """Whether the verdict is that one; a failed verdict is the trained judge's own failure, and so not right."""
        return self.ok and self.parsed.score == gold


@dataclass(frozen=True, slots=True)
class Group:
    """An example with its samples, and the groups of the same generation batch that belong to it.

    The groups inside `twins` and `swapped` have none of their own.
    """

    example: Example
    samples: tuple[Sample, ...]
    twins: tuple[Group, ...] = ()
    swapped: Group | None = None

    def share_right(self) -> float | None:
        """The share of its samples with the right verdict; None without a gold label."""
        gold = self.example.gold
        if gold is None or not self.samples:
            return None
        return sum(s.right(gold) for s in self.samples) / len(self.samples)


class RewardTerm(BaseModel):
    """One reward term: its options are its fields, its file is its name (`grpo_experiments/terms/NAME.py`).

    It is a `Term`, which looks at one group, or a `ServedTerm`, which asks a service.

    Args:
        weight: its share in the composite, before the weights are divided by their sum.
        gate: a sample whose value is below 1 has the reward 0, whatever the other terms say. A gate needs no weight.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    needs: ClassVar[frozenset[Need]] = frozenset()
    per_group: ClassVar[bool] = False
    """Whether its value is the same factor for a whole group (a baseline of the group alone cancels that)."""

    weight: float = Field(1.0, ge=0)
    gate: bool = False

    def wanted(self) -> frozenset[Need]:
        """What this one can't do without, by its options."""
        return self.needs


class Term(RewardTerm, ABC):
    """A pure function of a group."""

    @abstractmethod
    def score(self, group: Group) -> Values:
        """The values of a group's samples. Pure: of two calls with the same group both say the same."""


class ServedTerm(RewardTerm, ABC):
    """A term that asks somebody else, for all groups of a batch at once."""

    @abstractmethod
    async def score_all(self, groups: Sequence[Group]) -> list[Values]:
        """The values of all groups. What could not be judged is None; a service that is gone for good raises.

        Raises:
            ValueError: when no answer can be had, with what to do.
        """

    def close(self) -> None:
        """Give back what it holds."""


def blanked(task: Task) -> Task:
    """The task with nothing of its rubric left but the legal scores."""
    levels = {label: "-" for label in task.rubric.levels}
    criteria: list[dict[str, Any]] = [{"name": "blank", "description": "The response is good."}]
    rubric = task.rubric.model_validate(
        {"name": "blank", "language": "en", "criteria": [] if levels else criteria, "levels": levels}
        | {"worst_first": task.rubric.worst_first}
    )
    return task.model_copy(update={"rubric": rubric})
