"""What a teacher is asked: to write a rubric for a task family or one task, or to improve one that misjudges."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mr3.prompts import neutralise
from mr3.records import Mode, Task
from mr3.rubrics.record import Rubric

_ROLE = (
    "You write evaluation rubrics. A judge will read your rubric and the responses, and nothing else of yours. "
    "Write criteria that can be checked in the text of a response, that don't overlap, the most important first, each "
    "in one or two plain sentences. Don't mention the format of the judge's answer."
)
_DECIDES: dict[str, str] = {
    "pairwise": "The judge compares two responses to the same input; criteria that stand first count most.",
    "pointwise": "The judge rates one response.",
    "binary": "The judge decides whether one response passes.",
    "listwise": "The judge ranks several responses to the same input.",
}
_SHOWN_CHARACTERS = 2_000


def _cut(text: str) -> str:
    text = neutralise(text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " [...]"


def input_text(task: Task) -> str:
    """A task's input as one text."""
    if isinstance(task.input, str):
        return task.input
    return "\n".join(f"{m.role}: {m.content}" for m in task.input)


def _form(labels: Sequence[str], fewest: int, most: int) -> str:
    shape: dict[str, object] = {"criteria": [{"name": "...", "description": "...", "weight": 1}]}
    about = f"Name {fewest} to {most} criteria; a weight is a number above 0."
    if labels:
        shape["levels"] = {label: "..." for label in labels}
        about += f" Describe each level ({', '.join(labels)}, in this order) by what a response of that level is like."
    return (
        f"{about} Answer with one JSON object of this form and nothing else:\n{json.dumps(shape, ensure_ascii=False)}"
    )


def _messages(*parts: str) -> tuple[dict[str, str], ...]:
    return ({"role": "system", "content": _ROLE}, {"role": "user", "content": "\n\n".join(p for p in parts if p)})


def ask_for_family(
    about: str, mode: Mode, labels: Sequence[str], language: str, sizes: tuple[int, int] = (3, 6)
) -> tuple[dict[str, str], ...]:
    """Messages that ask for the rubric of a task family, described in words."""
    return _messages(
        f"Write a rubric for this kind of task:\n{_cut(about)}",
        f"{_DECIDES[mode]} Write the texts in the language with the code {language}.",
        _form(labels, *sizes),
    )


def ask_for_input(
    text: str, reference: str | None, mode: Mode, labels: Sequence[str], language: str, sizes: tuple[int, int] = (3, 6)
) -> tuple[dict[str, str], ...]:
    """Messages that ask for the rubric of one input. No responses are shown: a rubric must not be made for one."""
    return _messages(
        "Write a rubric for responses to this very input.",
        f"# Input\n{_cut(text)}",
        f"# Reference answer\n{_cut(reference)}" if reference else "",
        f"{_DECIDES[mode]} Write the texts in the language with the code {language}.",
        _form(labels, *sizes),
    )


def ask_for_better(
    rubric: Rubric, mode: Mode, mistakes: Sequence[tuple[Task, str, str | None, str | None]], sizes: tuple[int, int]
) -> tuple[dict[str, str], ...]:
    """Messages that ask to improve a rubric.

    Args:
        mistakes: tasks that were judged wrongly, each with the right label, the judge's label (None: no verdict), and
            the judge's explanation.
    """
    shown = {"criteria": [c.model_dump() for c in rubric.criteria], "levels": rubric.levels}
    parts = []
    for number, (task, gold, said, why) in enumerate(mistakes, start=1):
        responses = "\n".join(f"Response {chr(64 + i)}: {_cut(r)}" for i, r in enumerate(task.responses, start=1))
        verdict = f"{said or 'nothing'} ({_cut(why)})" if why else said or "nothing"
        shown_input = _cut(input_text(task))
        parts.append(f"## Case {number}\nInput: {shown_input}\n{responses}\nRight: {gold}\nThe judge said: {verdict}")
    return _messages(
        f"This rubric misleads a judge:\n{json.dumps(shown, ensure_ascii=False)}",
        _DECIDES[mode],
        "Cases that were judged wrongly by it:\n\n" + "\n\n".join(parts),
        "Say for yourself what the right verdicts have in common. Then write a better rubric: add, drop, reorder or "
        f"reword criteria. Keep it general; name nothing of a single case. Write it in the language {rubric.language}.",
        _form(list(rubric.levels), *sizes),
    )
