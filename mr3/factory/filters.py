"""What verdicts say of a row: right or why not, right under every strategy, and how often a student is right.

And whether right traces are fit to learn from: in the language that the strategy names, and without loops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from mr3.evaluation.traces.repetition import degenerate
from mr3.factory.config import TraceRules
from mr3.factory.funnel import Filter
from mr3.factory.rows import Head
from mr3.families import find_family
from mr3.languages.identify import share_in
from mr3.prompts import languages_of

Told = Mapping[str, Any]
"""A verdict as its JSON object."""
RIGHT = "right"
_NOT_SAID = ("engine_failed", "timed_out")


def finding(verdict: Told, gold: str) -> str:
    """`right`, or the reason why not: the failed outcome, `wrong`, or `no_explanation` (of no use as a lesson)."""
    if verdict["outcome"] != "ok":
        return str(verdict["outcome"])
    if verdict["score"] != gold:
        return "wrong"
    return RIGHT if verdict["explanation"] and verdict["trace"] else "no_explanation"


def correctness(findings: Mapping[str, str], required: Sequence[str]) -> str | None:
    """None where the row is right under at least one required strategy, else why not under the first."""
    return None if any(findings[s] == RIGHT for s in required) else findings[required[0]]


def alignment(findings: Mapping[str, str], required: Sequence[str]) -> str | None:
    """None where the row is right under every required strategy, else the first that is not, and why."""
    wrong = [s for s in required if findings[s] != RIGHT]
    return f"{wrong[0]}: {findings[wrong[0]]}" if wrong else None


def right_of(samples: Sequence[Told], gold: str) -> int | None:
    """How many samples are right; None where an engine failed, for that says nothing about the row."""
    if any(s["outcome"] in _NOT_SAID for s in samples):
        return None
    return sum(bool(s["outcome"] == "ok" and s["score"] == gold) for s in samples)


class TraceChecks:
    """The filters `trace_language` and `repetition` over right traces, strategy by strategy.

    A row goes when the trace of a required strategy fails. A trace of another strategy that fails is taken away: it is
    not taught.

    Args:
        rules: thresholds.
        required: strategies without which a row is dropped.
    """

    def __init__(self, rules: TraceRules, required: Sequence[str]) -> None:
        self._rules, self._required = rules, required
        self.language, self.repetition = Filter("trace_language"), Filter("repetition")
        self._checked: dict[str, Counter[str]] = {}

    def fit(self, row: Head, answers: MutableMapping[str, list[dict[str, Any]]], right: Sequence[str]) -> bool:
        """Whether the row goes on; counts it in both filters, and takes unfit traces away from `answers`."""
        place = row["language"], row["source"]
        verdicts = {s: answers[s][0] for s in right}
        foreign = [s for s, v in verdicts.items() if self._foreign(v["trace"], s, row)]
        if self._dropped(self.language, "in another language", foreign, place):
            return False
        looping = [s for s, v in verdicts.items() if s not in foreign and self._loops(v["trace"], s)]
        if self._dropped(self.repetition, "repeats itself", looping, place):
            return False
        for strategy in (*foreign, *looping):
            answers[strategy][0]["trace"] = None
        return True

    def _dropped(self, one: Filter, why: str, failed: Sequence[str], place: tuple[str, str]) -> bool:
        needed = [s for s in failed if s in self._required]
        if needed:
            one.drop(f"{needed[0]}: {why}", *place)
        else:
            one.keep(*place)
        return bool(needed)

    def _count(self, strategy: str, what: str) -> None:
        self._checked.setdefault(strategy, Counter())[what] += 1

    def _foreign(self, trace: str, strategy: str, row: Head) -> bool:
        if self._rules.in_language is None:
            return False
        family = None if row["family"] is None else find_family(row["family"])
        return self.is_foreign(trace, strategy, languages_of(strategy, row["language"], family).thinking)

    def is_foreign(self, trace: str, strategy: str, language: str) -> bool:
        """Whether a trace is known to be in another language; what can't be told passes, and is counted by reason."""
        if self._rules.in_language is None:
            return False
        found = share_in(trace, language, self._rules.enough_letters)
        if found.share is None:
            self._count(strategy, f"not checked: {found.reason}")
            return False
        foreign = found.share < self._rules.in_language
        self._count(strategy, "in another language" if foreign else "in the language")
        return foreign

    def _loops(self, trace: str, strategy: str) -> bool:
        if self._rules.repeated is None:
            return False
        if len(trace) < self._rules.enough_letters:
            self._count(strategy, "too short to repeat itself")
            return False
        loops = degenerate(trace, self._rules.repeated)
        self._count(strategy, "repeats itself" if loops else "does not repeat itself")
        return loops

    def filters(self) -> list[dict[str, Any]]:
        """Both for the step, with what became of the traces of each strategy and the share of rows that went."""
        for one in (self.language, self.repetition):
            one.details = {"dropped_share": 1 - one.rows_out / one.rows_in if one.rows_in else None}
        self.language.details["traces"] = self.traces()
        return [self.language.as_json(), self.repetition.as_json()]

    def traces(self) -> dict[str, dict[str, int]]:
        """Strategy -> finding -> traces."""
        return {s: dict(counts.most_common()) for s, counts in self._checked.items()}
