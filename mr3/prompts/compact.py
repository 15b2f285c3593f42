"""The profile `compact`: mR3's section order in few words, for small models.

Instruction, rubric and response format in the system message, input and responses in the user message, so that
prompts of one rubric share their prefix. Lines of data that look like the prompt's own headings are escaped.
"""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import yaml

from mr3.prompts.rendered import Rendered, neutralise
from mr3.records import Task

_HEADING = re.compile(r"^(\s*)#(\s)", re.MULTILINE)


def _body(text: str) -> str:
    """A data field: neutralised, and without lines that look like the prompt's own headings."""
    text = neutralise(text)
    return _HEADING.sub(r"\1\\#\2", text) if "#" in text else text


def _conversation(task: Task) -> str:
    if isinstance(task.input, str):
        return _body(task.input)
    return "\n".join(f"<{m.role}>\n{_body(m.content)}\n</{m.role}>" for m in task.input)


@cache
def _texts() -> dict[str, Any]:
    source = resources.files("mr3.prompts") / "compact.yaml"
    texts: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return texts


def _rubric_lines(task: Task) -> str:
    criteria = [f"{i}. {neutralise(c.description)}" for i, c in enumerate(task.rubric.criteria, start=1)]
    levels = [f"{label}: {neutralise(text)}" for label, text in task.rubric.levels.items()]
    return "\n".join(criteria + levels)


def _answer(task: Task) -> str:
    texts, n = _texts(), len(task.rubric.criteria)
    count = texts["criteria"]["one" if n == 1 else "many"].format(n=n) if n else ""
    return f"{texts['answer'][task.mode]} {count}".rstrip()


def _section(title: str, body: str) -> str:
    return f"# {title}\n{body}"


class _ByContent:
    """A task as far as its system message goes: many tasks share one."""

    __slots__ = ("key", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.key = (task.mode, task.instruction, task.rubric.content_hash)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByContent) and self.key == other.key


@lru_cache(maxsize=1024)
def _wanted(labels: tuple[str, ...]) -> str:
    return json.dumps({"explanation": "...", "score": " | ".join(labels)}, ensure_ascii=False)


@lru_cache(maxsize=1024)
def _system(shared: _ByContent) -> str:
    texts, task = _texts(), shared.task
    head = texts["headings"]
    return "\n".join(
        (
            _section(head["instruction"], task.instruction or texts["instruction"][task.mode]),
            _section(head["rubric"], _rubric_lines(task)),
            _section(head["format"], _wanted(tuple(task.labels))),
        )
    )


def compact(task: Task) -> Rendered:
    """Render one task.

    Raises:
        ValueError: for a mode that small models are not asked for.
    """
    if task.mode not in _texts()["instruction"]:
        raise ValueError(f"task {task.id!r}: the profile compact has no texts for mode {task.mode}; use mr3-train")
    head = _texts()["headings"]
    sections = [_section(head["input"], _conversation(task))]
    if task.reference is not None:
        sections.append(_section(head["reference"], _body(task.reference)))
    titles = ["Assistant A", "Assistant B"] if task.mode == "pairwise" else [head["response"]]
    sections += [_section(title, _body(text)) for title, text in zip(titles, task.responses, strict=False)]
    sections.append(f"# {_answer(task)}")
    return Rendered(system=_system(_ByContent(task)), user="\n".join(sections).rstrip("\n"))
