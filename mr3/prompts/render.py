"""Render a task into messages.

The layout is mR3's (instruction, rubric and response format in the system message; input and
responses in the user message), so that prompts of one rubric share their prefix. Data can't pose
as markup: chat-template tokens in it are neutralised, and nothing is substituted twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from mr3.records import Task

_SPECIAL = re.compile(r"<\|([^<>|\s]{1,40})\|>|<(/?)(think|tool_call|tool_response)>")
_HEADING = re.compile(r"^(\s*)#(\s)", re.MULTILINE)


class Rendered(BaseModel):
    """What goes to the chat template, and what the assistant's turn is made to begin with."""

    model_config = ConfigDict(frozen=True)

    system: str
    user: str
    assistant_prefix: str = "<think>"

    @property
    def messages(self) -> list[dict[str, str]]:
        """System and user turn."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


def neutralise(text: str) -> str:
    """Make chat-template tokens inside data inert, visibly: `<|im_end|>` becomes `<¦im_end¦>`.

    Covers `<|...|>` tokens, think and tool tags; ordinary text comes back unchanged.
    """
    if "<" not in text:
        return text
    return _SPECIAL.sub(lambda m: f"<¦{m.group(1)}¦>" if m.group(1) else f"<¦{m.group(2)}{m.group(3)}¦>", text)


def _body(text: str) -> str:
    """A data field: neutralised, and without lines that look like the prompt's own headings."""
    text = neutralise(text)
    return _HEADING.sub(r"\1\\#\2", text) if "#" in text else text


def _conversation(task: Task) -> str:
    if isinstance(task.input, str):
        return _body(task.input)
    return "\n".join(f"<{m.role}>\n{_body(m.content)}\n</{m.role}>" for m in task.input)


@cache
def _compact_texts() -> dict[str, Any]:
    source = resources.files("mr3.prompts") / "compact.yaml"
    texts: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return texts


def _rubric_lines(task: Task) -> str:
    criteria = [f"{i}. {neutralise(c.description)}" for i, c in enumerate(task.rubric.criteria, start=1)]
    levels = [f"{label}: {neutralise(text)}" for label, text in task.rubric.levels.items()]
    return "\n".join(criteria + levels)


def _compact_answer(task: Task) -> str:
    texts, n = _compact_texts(), len(task.rubric.criteria)
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
def _compact_system(shared: _ByContent) -> str:
    texts, task = _compact_texts(), shared.task
    head = texts["headings"]
    wanted = json.dumps({"explanation": "...", "score": " | ".join(task.labels)}, ensure_ascii=False)
    return "\n".join(
        (
            _section(head["instruction"], task.instruction or texts["instruction"][task.mode]),
            _section(head["rubric"], _rubric_lines(task)),
            _section(head["format"], wanted),
        )
    )


def _compact(task: Task) -> Rendered:
    if task.mode not in _compact_texts()["instruction"]:
        raise ValueError(f"task {task.id!r}: the profile compact has no texts for mode {task.mode}; use mr3-train")
    head = _compact_texts()["headings"]
    system = _compact_system(_ByContent(task))
    sections = [_section(head["input"], _conversation(task))]
    if task.reference is not None:
        sections.append(_section(head["reference"], _body(task.reference)))
    titles = ["Assistant A", "Assistant B"] if task.mode == "pairwise" else [head["response"]]
    sections += [_section(title, _body(text)) for title, text in zip(titles, task.responses, strict=False)]
    sections.append(f"# {_compact_answer(task)}")
    return Rendered(system=system, user="\n".join(sections).rstrip("\n"))


PROFILES: dict[str, Callable[[Task], Rendered]] = {"compact": _compact}


def render(task: Task, profile: str) -> Rendered:
    """Render one task by a named profile.

    Raises:
        ValueError: for an unknown profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown prompt profile {profile!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[profile](task)
