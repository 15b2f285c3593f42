"""A labelled row under a strategy: which texts the prompt has, and with which sentence the trace must begin.

The first half of a strategy's name is the language of the prompt (English, or the task's own), the second that of the
thinking. Where a row says itself with which sentence a forced trace begins, that is taken in place of the profile's.
"""

from __future__ import annotations

from mr3.factory.dialects import THINK
from mr3.prompts import Rendered, needs_texts, render
from mr3.records import Strategy, Task
from mr3.sources.families import library_of
from mr3.sources.labelled import Labelled
from mr3.sources.spec import Texts

_FORCED = ("tgt-tgt", "tgt-tgt-translated")
"""Translated traces are taught behind the prompt of tgt-tgt."""


class Prompter:
    """Renders rows by one profile."""

    def __init__(self, profile: str, texts: Texts) -> None:
        self._profile = profile
        # A profile without a library of texts has one layout; a strategy is then a matter of the row's own texts.
        self._library = library_of(texts) if needs_texts(profile) else None

    def task(self, row: Labelled, strategy: Strategy) -> Task:
        """The task with the texts that the strategy asks for."""
        return row.prompt_task(own_language=not strategy.startswith("eng-"))

    def rendered(self, row: Labelled, strategy: Strategy) -> Rendered:
        """Messages and assistant prefix.

        Raises:
            ValueError: where the library has no text for the task.
        """
        task = self.task(row, strategy)
        if self._library is None:
            shown = render(task, self._profile)
        else:
            shown = render(task, self._profile, "tgt-tgt" if strategy in _FORCED else strategy, self._library)
        if strategy in _FORCED and row.own is not None and row.own.forcing:
            return shown.model_copy(update={"assistant_prefix": THINK + row.own.forcing})
        return shown
