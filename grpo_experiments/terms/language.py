"""The share of trace and explanation that is in the language they are to be in (mr3.languages, py3langid).

`trace` and `explanation` say which: `en`, any code, or `task` for the task's own (the strategy tgt-tgt thinks in it). A
text that is too short, a language that the identifier does not know, and text it is not sure of are not measured.
"""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from grpo_experiments.contract import Group, Need, Sample, Term, Values
from mr3.languages.identify import is_in, share_in


class Language(Term):
    """Mean of the parts that could be measured."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    trace: str | None = None
    explanation: str | None = None
    enough: int = Field(60, gt=0, description="letters of a trace below which nothing is said")

    @model_validator(mode="after")
    def _something_to_measure(self) -> Self:
        if self.trace is None and self.explanation is None:
            raise ValueError("say in which language: trace: en, trace: task, explanation: task, ...")
        return self

    def score(self, group: Group) -> Values:
        """None where nothing of it can be told; 0 for a completion without a closed trace."""
        return [self._share(s, group.example.task.language) for s in group.samples]

    def _share(self, sample: Sample, own: str) -> float | None:
        parts: list[float] = []
        if self.trace is not None:
            if not sample.trace:
                return 0.0
            share = share_in(sample.trace, own if self.trace == "task" else self.trace, self.enough).share
            parts += [] if share is None else [share]
        if self.explanation is not None and sample.parsed.explanation:
            said = is_in(sample.parsed.explanation, own if self.explanation == "task" else self.explanation)
            parts += [] if said is None else [float(said)]
        return sum(parts) / len(parts) if parts else None


TERM = Language
