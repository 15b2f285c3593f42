"""A labelled row under a strategy: which texts the prompt has, and with which sentence the trace must begin.

The first half of a strategy's name is the language of the prompt (English, or the task's own), the second that of the
thinking. Where a row says itself with which sentence a forced trace begins, that is taken in place of the profile's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from mr3.factory.dialects import THINK
from mr3.prompts import Rendered, languages_of, needs_texts, render
from mr3.prompts.texts import family_of_task
from mr3.records import Strategy, Task
from mr3.sources.families import library_of
from mr3.sources.labelled import Labelled
from mr3.sources.spec import Texts


class Shown(TypedDict):
    """A task under one strategy: the two messages, what the assistant's turn begins with, the rubric's hash, and who
    the reader is said to be (see `mr3.factory.dialects.Spoken`)."""

    system: str
    user: str
    prefix: str
    rubric: str
    identity: str
    teacher_system: str


class Prompter:
    """Renders rows by one profile.

    Args:
        harmony: a gpt-oss model reads the prompts, too.
    """

    def __init__(self, profile: str, texts: Texts, harmony: bool = False) -> None:
        self._profile, self._harmony = profile, harmony
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
            identity, teacher = self._who(task, strategy)
            found[strategy] = {
                "system": shown.system,
                "user": shown.user,
                "prefix": prefix,
                "rubric": task.rubric.content_hash,
                "identity": identity,
                "teacher_system": teacher,
            }
        return found

    def _who(self, task: Task, strategy: Strategy) -> tuple[str, str]:
        """The identity line of a prompt, and gpt-oss's system message where its trace is forced."""
        if self._library is None or not self._harmony:
            return "", ""
        thinking = languages_of(strategy, task.language, family_of_task(task, self._library)).thinking
        teacher = self._library.teacher_system(thinking) if strategy.startswith("tgt-tgt") else ""
        return self._library.identity(thinking), teacher
