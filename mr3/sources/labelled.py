"""The labelled row: a task with its gold label, where it came from, and what its prompt says in its own language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

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


def legal_label(value: str, labels: Sequence[str]) -> str:
    """The legal label that a value names, whatever its case and the blanks around it; else the value as it is.

    The public evaluation compares labels in lower case, so `TRUE`, `tie` and `assistant a` are labels too.
    """
    plain = value.strip().casefold()
    return next((label for label in labels if label.casefold() == plain), value)


@dataclass(frozen=True, slots=True)
class SetAside:
    """Something in a source that is no labelled row: where, and why (a reason of few words comes first).

    What can still be read of the row (`id`, `language`, `part`, `gold`) says where a benchmark counts it.
    """

    where: str
    reason: str
    kind: str = "unreadable"
    id: str | None = None
    language: str | None = None
    part: str | None = None
    gold: str | None = None


MOST_SET_ASIDE = 0.05
"""A larger share of set-aside rows says that the source is read wrongly, not that it has bad rows."""
LEFT_OUT = frozenset({"language", "no_difference"})
"""Kinds of rows that a source or a config leaves out on purpose: they count neither for nor against it."""


@dataclass
class SetAsideShare:
    """Counts what a source sets aside, and stops a run that would go on with what is left of a misread source."""

    source: str
    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    """The first reason of each kind, with its place."""

    def aside(self, found: SetAside) -> None:
        """A row that is none; the others are counted in `rows`."""
        self.kinds[found.kind] += 1
        self.first.setdefault(found.kind, f"{found.where}: {found.reason}")

    def check(self, allowed: bool) -> None:
        """After the last row.

        Raises:
            ValueError: unless `allowed`, when more than 5% is set aside, or any gold label is on another scale than the
                declared one (then the others are misread too); with the count and first reason of each kind.
        """
        bad = Counter({kind: n for kind, n in self.kinds.items() if kind not in LEFT_OUT})
        total = self.rows + bad.total()
        if allowed or not (bad["other_scale"] or bad.total() > MOST_SET_ASIDE * total):
            return
        reasons = "; ".join(f"{n} {kind} (first: {self.first[kind]})" for kind, n in bad.most_common())
        raise ValueError(
            f"{self.source}: {bad.total()} of {total} rows are set aside ({bad.total() / total:.1%}): {reasons}. Mend "
            "the source or how it is read; `--allow_set_aside true` goes on with the other rows"
        )
