"""A labelled row under a strategy: which texts the prompt has, and with which sentence the trace must begin.

The first half of a strategy's name is the language of the prompt (English, or the task's own), the second that of the
thinking. Where a row says itself with which sentence a forced trace begins, that is taken in place of the profile's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from mr3.factory.dialects import THINK
from mr3.prompts import Rendered, needs_texts, render
from mr3.records import Strategy
from mr3.sources.families import library_of
from mr3.sources.labelled import Labelled
from mr3.sources.spec import Texts


class Shown(TypedDict):
    """A task under one strategy: the two messages, what the assistant's turn begins with, the rubric's hash."""

    system: str
    user: str
    prefix: str
    rubric: str


class Prompter:
    """Renders rows by one profile."""

    def __init__(self, profile: str, texts: Texts) -> None:
        self._profile = profile
        # A profile without a library of texts has one layout; a strategy is then a matter of the row's own texts.
        self._library = library_of(texts) if needs_texts(profile) else None

    def prompts(self, row: Labelled, strategies: Sequence[Strategy]) -> dict[str, Shown]:
        """The row under each strategy.

        Raises:
            ValueError: where the library has no text for the task.
        """
        found: dict[str, Shown] = {}
        tasks = {own: row.prompt_task(own) for own in {not s.startswith("eng-") for s in strategies}}
        bare: dict[int, Rendered] = {}
        for strategy in strategies:
            task = tasks[not strategy.startswith("eng-")]
            if self._library is not None:
                shown = render(task, self._profile, strategy, self._library)
            else:
                shown = bare.get(id(task)) or bare.setdefault(id(task), render(task, self._profile))
            prefix = shown.assistant_prefix
            if strategy == "tgt-tgt" and row.own is not None and row.own.forcing:
                prefix = THINK + row.own.forcing
            rubric = task.rubric.content_hash
            found[strategy] = {"system": shown.system, "user": shown.user, "prefix": prefix, "rubric": rubric}
        return found
