"""From a teacher's text to a rubric: a strict parse with typed outcomes. A failure is an outcome with its reason.

The text is an optional closed `<think>` block, then one JSON object (bare, or alone in one code fence), nothing else.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mr3.records import Mode
from mr3.rubrics.checks import have_no_order, mode_problems
from mr3.rubrics.loading import read_mapping
from mr3.rubrics.record import Rubric

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)
_KEYS = ({"criteria"}, {"levels"}, {"criteria", "levels"})
_CRITERION_KEYS = {"name", "description", "weight"}


class ReplyOutcome(StrEnum):
    """What became of one answer. Only `ok` has a rubric."""

    OK = "ok"
    PARSE_FAILED = "parse_failed"
    INVALID = "invalid"
    TRUNCATED = "truncated"
    TOO_LONG = "too_long"
    TIMED_OUT = "timed_out"
    ENGINE_FAILED = "engine_failed"


_FINISHES = {
    "length": ReplyOutcome.TRUNCATED,
    "too_long": ReplyOutcome.TOO_LONG,
    "timed_out": ReplyOutcome.TIMED_OUT,
    "failed": ReplyOutcome.ENGINE_FAILED,
}


@dataclass(frozen=True, slots=True)
class Reply:
    """A rubric, or why there is none."""

    outcome: ReplyOutcome
    rubric: Rubric | None = None
    reason: str | None = None


class _Refused(ValueError):
    """The text is not one JSON object of the asked form."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
    if twice:
        raise _Refused(f"the key {twice[0]!r} comes twice")
    return dict(pairs)


def _no_constant(name: str) -> float:
    raise _Refused(f"{name} is no number of JSON")


def _object(text: str) -> dict[str, Any]:
    """The one JSON object behind the thinking."""
    opened, closed = text.count("<think>"), text.count("</think>")
    if opened > 1 or closed > 1 or (opened and not closed):
        raise _Refused("the thinking is not closed exactly once")
    body = text.rpartition("</think>")[2].strip()
    fenced = _FENCE.fullmatch(body)
    body = fenced.group(1) if fenced else body
    try:
        found = json.loads(body, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _Refused(f"the answer is not one JSON object: {error.msg} at character {error.pos}") from error
    except _Refused:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise _Refused(f"the answer is not readable as JSON: {error}") from error
    if not isinstance(found, dict):
        raise _Refused(f"the answer is a JSON {type(found).__name__}, not an object")
    if set(found) not in _KEYS:
        raise _Refused(f"the keys are {', '.join(sorted(found)) or 'none'}; wanted are criteria, levels, or both")
    return found


def _checked(data: dict[str, Any], name: str, mode: Mode, labels: tuple[str, ...], language: str) -> Rubric:
    criteria = data.get("criteria")
    extra = [
        k
        for c in (criteria if isinstance(criteria, list) else [])
        if isinstance(c, dict)
        for k in c
        if k not in _CRITERION_KEYS
    ]
    if extra:
        raise ValueError(f"a criterion has the key {extra[0]!r}; wanted are {', '.join(sorted(_CRITERION_KEYS))}")
    told = {"worst_first": True} if have_no_order(labels, mode) else {}  # `labels` go from worst to best
    rubric = read_mapping({**data, "name": name, "language": language, **told}, "the answer").rubric
    problems = mode_problems(rubric, mode)
    if tuple(rubric.levels) != labels:
        problems.append(
            f"levels are {', '.join(rubric.levels) or 'none'}; asked for were {', '.join(labels) or 'none'}"
        )
    if problems:
        raise ValueError("; ".join(problems))
    return rubric


def parse_reply(
    text: str, finish: str, mode: Mode, labels: tuple[str, ...] = (), name: str = "generated", language: str = "en"
) -> Reply:
    """Read one answer.

    Args:
        finish: how the generation ended (`Completion.finish`).
        labels: the levels that were asked for, worst first; none if the rubric is to have criteria only.
    """
    if finish != "stop":
        return Reply(_FINISHES[finish], reason=f"the generation ended as {finish!r}")
    try:
        data = _object(text)
    except _Refused as error:
        return Reply(ReplyOutcome.PARSE_FAILED, reason=str(error))
    except RecursionError:
        return Reply(ReplyOutcome.PARSE_FAILED, reason="the answer is nested too deeply")
    try:
        return Reply(ReplyOutcome.OK, _checked(data, name, mode, labels, language))
    except ValueError as error:
        return Reply(ReplyOutcome.INVALID, reason=" ".join(str(error).split()))
