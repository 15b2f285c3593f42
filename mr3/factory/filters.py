"""What verdicts say of a row: right or why not, right under every strategy, and how often a student is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
