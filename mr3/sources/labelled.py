"""The labelled row: a task with its gold label, where it came from, and what its prompt says in its own language."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, model_validator

from mr3.records import Record, Task
from mr3.rubrics import Rubric


class OwnTexts(Record):
    """What a prompt in the task's own language has in place of the English texts."""

    rubric: Rubric | None = None
    instruction: str | None = None
    forcing: str | None = Field(None, description="first sentence of a forced trace, where the profile has none")


class Labelled(Record):
    """One row of a source. The label is never part of `task`, so no prompt can hold it.

    `task` has the English prompt texts. `own` is None where the source has none in the task's language, which
    an English task does not need.
    """

    source: str
    gold: str
    task: Task
    own: OwnTexts | None = None

    @model_validator(mode="after")
    def _legal(self) -> Labelled:
        if self.gold not in self.task.labels:
            shown = ", ".join(self.task.labels[:8])
            raise ValueError(f"row {self.task.id!r} of {self.source}: the label {self.gold!r} is none of {shown}")
        return self

    @property
    def key(self) -> str:
        """The row's name, the same in every run: ids are unique within a source only."""
        return f"{self.source}/{self.task.id}"

    def prompt_task(self, own_language: bool) -> Task:
        """The task with English texts, or with those of its own language where there are any."""
        if not own_language or self.own is None:
            return self.task
        changes = {"rubric": self.own.rubric, "instruction": self.own.instruction}
        return self.task.model_copy(update={k: v for k, v in changes.items() if v is not None})


@dataclass(frozen=True, slots=True)
class SetAside:
    """Something in a source that is no labelled row: where, and why (a reason of few words comes first)."""

    where: str
    reason: str
    kind: str = "unreadable"
