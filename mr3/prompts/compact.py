"""The profile `compact`: mR3's section order in few words, for small models.

Instruction, rubric and response format in the system message, input and responses in the user message, so that
prompts of one rubric share their prefix. Lines of data that look like the prompt's own headings are escaped.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import yaml

from mr3.prompts.rendered import Rendered, neutralise, neutralise_turn, without_headings
from mr3.records import Task


def _body(text: str) -> str:
    """A data field: neutralised, and without lines that look like the prompt's own headings."""
    return without_headings(neutralise(text))


def _conversation(task: Task) -> str:
    if isinstance(task.input, str):
        return _body(task.input)
    return "\n".join(f"<{m.role}>\n{without_headings(neutralise_turn(m.content))}\n</{m.role}>" for m in task.input)


@cache
def _texts() -> dict[str, Any]:
    source = resources.files("mr3.prompts") / "compact.yaml"
    texts: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return texts


def _rubric_lines(task: Task) -> str:
    criteria = [f"{i}. {_body(c.description)}" for i, c in enumerate(task.rubric.criteria, start=1)]
    levels = [_body(f"{label}: {text}") for label, text in task.rubric.levels.items()]
    return "\n".join(criteria + levels)


def _answer(task: Task) -> str:
    texts, n = _texts(), len(task.rubric.criteria)
    count = texts["criteria"]["one" if n == 1 else "many"].format(n=n) if n else ""
    return f"{texts['answer'][task.mode]} {count}".rstrip()


def _section(title: str, body: str) -> str:
    return f"# {title}\n{body}"


@lru_cache(maxsize=1024)
def _wanted(labels: tuple[str, ...]) -> str:
    return json.dumps({"explanation": "...", "score": neutralise(" | ".join(labels))}, ensure_ascii=False)


_systems: OrderedDict[tuple[str, str | None, str, tuple[str, ...]], str] = OrderedDict()
_SYSTEMS, _SYSTEM_CHARS = 1024, 16_384
"""System messages that are kept, and how long one may be: a server's clients can send any number of any length."""


def _system(task: Task) -> str:
    """The system message, which many tasks share."""
    # The hash is the same whatever the order of the levels; the message shows them in it.
    key = (task.mode, task.instruction, task.rubric.content_hash, tuple(task.rubric.levels))
    found = _systems.get(key)
    if found is not None:
        return found
    texts = _texts()
    head = texts["headings"]
    found = "\n".join(
        (
            _section(head["instruction"], _body(task.instruction or texts["instruction"][task.mode])),
            _section(head["rubric"], _rubric_lines(task)),
            _section(head["format"], _wanted(tuple(task.labels))),
        )
    )
    if len(found) <= _SYSTEM_CHARS:
        _systems[key] = found
        if len(_systems) > _SYSTEMS:
            _systems.popitem(last=False)
    return found


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
    return Rendered(system=_system(task), user="\n".join(sections).rstrip("\n"))
