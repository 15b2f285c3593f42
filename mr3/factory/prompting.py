"""A labelled row under a strategy: which texts the prompt has, and with which sentence the trace must begin.

The first half of a strategy's name is the language of the prompt (English, or the task's own), the second that of the
thinking. Where a row says itself with which sentence a forced trace begins, that is taken in place of the profile's.
"""

from __future__ import annotations

from typing import Any

from mr3.factory.dialects import THINK
from mr3.prompts import Rendered, render
from mr3.records import Strategy, Task
from mr3.sources.labelled import Labelled

_SAME = {"tgt-tgt-translated": "tgt-tgt"}
"""Translated traces are taught behind the prompt of tgt-tgt."""


class Prompter:
    """Renders rows by one profile."""

    def __init__(self, profile: str, templates: Any = None) -> None:
        self._profile, self._templates = profile, templates

    def task(self, row: Labelled, strategy: Strategy) -> Task:
        """The task with the texts that the strategy asks for."""
        return row.prompt_task(own_language=not strategy.startswith("eng-"))

    def rendered(self, row: Labelled, strategy: Strategy) -> Rendered:
        """Messages and assistant prefix."""
        shown = _render(self.task(row, strategy), self._profile, _SAME.get(strategy, strategy), self._templates)
        if strategy.startswith("tgt-tgt") and row.own is not None and row.own.forcing:
            return shown.model_copy(update={"assistant_prefix": THINK + row.own.forcing})
        return shown


def _render(task: Task, profile: str, strategy: str, templates: Any) -> Rendered:
    return render(task, profile)
