"""The share of a trace's findings that a checker confirms, where a checker exists.

`checker: package.module:function`, called as `check(task, trace, facts)` with the task as it was shown, the trace, and
what the data say of the task: `meta`, `criteria`, `decided_by`, `swapped`, and `gold_trace` where the order is the
data's (`mr3.nano.findings` holds such checkers). It returns a share from 0 to 1, or None where it can't tell (then
nothing is paid and nothing withheld).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from pydantic import field_validator

from grpo_experiments.contract import Example, Group, Need, Term, Values
from mr3.importing import load_named


class Findings(Term):
    """Pays for findings that are true."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    checker: str

    @field_validator("checker")
    @classmethod
    def _can_be_loaded(cls, checker: str) -> str:
        load_named(checker, "rewards.findings.checker")
        return checker

    @cached_property
    def _check(self) -> Any:
        return load_named(self.checker, "rewards.findings.checker")

    def score(self, group: Group) -> Values:
        """A completion without a closed trace earns 0.

        Raises:
            ValueError: when the checker returns what is no share.
        """
        return [self._share(group.example, s.trace) if s.trace else 0.0 for s in group.samples]

    def _share(self, example: Example, trace: str) -> float | None:
        facts = {
            "criteria": example.criteria,
            "decided_by": example.decided_by,
            "swapped": example.swapped,
            "meta": example.meta,
            "gold_trace": None if example.swapped else example.trace,
        }
        share = self._check(example.task, trace, facts)
        if share is not None and not 0 <= share <= 1:
            raise ValueError(
                f"{self.checker} gave {share!r} for task {example.task.id!r}: a share is from 0 to 1, or None"
            )
        return None if share is None else float(share)


TERM = Findings
