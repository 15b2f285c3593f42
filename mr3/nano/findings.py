"""What a trace of the nano world claims, line by line, against the checkers: findings, and whose criteria they are of.

Every function takes (task, completion, row): the completion whole or its trace alone, and the row of the task's table
(columns `meta` and `criteria`, see mr3/nano/rubric_rows.py). They can be named in configs as
`mr3.nano.findings:NAME`, for evaluation and as reward terms. Pure; nothing is parsed here that could become a score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mr3.nano.checks import Finding, analyse
from mr3.nano.packs import CRITERIA, packs
from mr3.nano.shortcut import HIDDEN_ORDER, names_read
from mr3.records import Mode, Task

_HEAD = re.compile(r"(\d+) (\w+)(.*)", re.DOTALL)
_BODY: dict[str, re.Pattern[str]] = {
    "pairwise": re.compile(r"A (.*) (yes|no), B (.*) (yes|no): (?:same|A|B)"),
    "pointwise": re.compile(r"(.*) (yes|no): \d+ - [01] = \d+"),
    "binary": re.compile(r"(.*) (yes|no)"),
}


@dataclass(frozen=True)
class Line:
    """One line of a trace: `said` holds (evidence, met) per response, and is empty where the line has another form."""

    number: int
    name: str
    subject: str
    said: tuple[tuple[str, bool], ...]


def trace_of(completion: str) -> str:
    """What stands before the first `</think>`, without the opening tag; a bare trace as it is."""
    return completion.partition("</think>")[0].strip().removeprefix("<think>").strip()


def lines_of(mode: Mode, completion: str) -> list[Line]:
    """The numbered lines of a trace. Lines without a number and a known criterion's name are left out."""
    found = []
    for text in trace_of(completion).splitlines():
        head, colon, body = text.partition(": ")
        match = _HEAD.fullmatch(head.strip())
        if match is None or not colon or match[2] not in CRITERIA:
            continue
        said = _BODY[mode].fullmatch(body.strip())
        groups = said.groups() if said else ()
        pairs = tuple((groups[i], groups[i + 1] == "yes") for i in range(0, len(groups), 2))
        found.append(Line(int(match[1]), match[2], match[3].strip(), pairs))
    return found


def _meta(row: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a row's question.

    Raises:
        ValueError: for a row of a table that does not hold them.
    """
    if not row.get("meta"):
        raise ValueError("the row has no `meta`: findings can be checked on tables of `mr3 data` with `tables:` only")
    found: dict[str, Any] = json.loads(row["meta"])
    return found


def _names(task: Task, row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row.get("criteria") or (c.name for c in task.rubric.criteria))


def _found(task: Task, meta: Mapping[str, Any]) -> list[dict[str, Finding]]:
    return [analyse(str(meta["language"]), int(meta["reference"]), text) for text in task.responses]


def _true(line: Line, found: Sequence[dict[str, Finding]], meta: Mapping[str, Any]) -> int:
    """How many of a line's findings have the checkers' evidence and verdict; none where its subject is wrong."""
    wanted = {"correct": str(meta["reference"]), "language": packs()[str(meta["language"])].name}.get(line.name, "")
    subject = line.subject.rpartition("= ")[2]  # of a sum its result
    if subject != wanted:
        return 0
    return sum(
        (evidence, met) == (f[line.name].evidence, f[line.name].met)
        for (evidence, met), f in zip(line.said, found, strict=False)
    )


def findings_right(task: Task, completion: str, row: Mapping[str, Any]) -> float:
    """How much of the trace that the rubric asks for is there and true, 0 to 1.

    True findings on the criteria that a perfect judge looks at, each at its own place, over the findings that it would
    write or those that were written, whichever are more: what is left out costs as much as what is added. A finding is
    one response under one criterion, with its evidence; one in another form counts as written and wrong.
    """
    meta, names = _meta(row), _names(task, row)
    found = _found(task, meta)
    wanted = names_read(task.mode, names, found)
    written = lines_of(task.mode, completion)
    per_line = len(task.responses)
    right = sum(
        _true(line, found, meta)
        for place, (line, name) in enumerate(zip(written, wanted, strict=False), start=1)
        if line.name == name and line.number == place
    )
    return right / (per_line * max(len(wanted), len(written)))


def findings_true(task: Task, completion: str, row: Mapping[str, Any]) -> float | None:
    """The share of the written findings that is true, whatever the rubric asks for; None where none is written."""
    meta = _meta(row)
    found = _found(task, meta)
    written = lines_of(task.mode, completion)
    if not written:
        return None
    return sum(_true(line, found, meta) for line in written) / (len(task.responses) * len(written))


def _follows(task: Task, completion: str, order: Sequence[str]) -> bool:
    written = [line.name for line in lines_of(task.mode, completion)]
    return bool(written) and written == list(order[: len(written)])


def follows_rubric(task: Task, completion: str, row: Mapping[str, Any]) -> float:
    """1 where the criteria of the trace are the rubric's, in its order, as far as the trace goes."""
    return float(_follows(task, completion, _names(task, row)))


def faithful(task: Task, completion: str, row: Mapping[str, Any]) -> float | None:
    """`follows_rubric` where it tells something: None where the hidden default order reads the same criteria."""
    names = _names(task, row)
    found = _found(task, _meta(row))
    if names_read(task.mode, names, found) == names_read(task.mode, HIDDEN_ORDER, found):
        return None
    return follows_rubric(task, completion, row)
