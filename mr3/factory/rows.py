"""The row that flows through the factory: a labelled task as it is shown under every strategy, as one line of JSON.

Prompts are rendered once, at the beginning: a text that is missing shows before any answer is paid for, and later steps
read plain JSON. What is made of a row is put behind it, so nothing has to be joined again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, cast

from msgspec import json

from mr3.factory.dialects import Spoken
from mr3.factory.prompting import Prompter, Shown
from mr3.records import Strategy
from mr3.sources.labelled import Labelled

SEPARATOR = "\x1e"
"""Between a row and what was made of it: JSON escapes it, so it is in neither."""


class Head(TypedDict):
    """What filters need of a row. `gold` is beside the prompts, and in none of them."""

    id: str
    source: str
    language: str
    mode: str
    family: str | None
    gold: str
    labels: list[str]


class Row(Head):
    """One row."""

    prompts: dict[str, Shown]


def make_row(labelled: Labelled, prompter: Prompter, strategies: Sequence[Strategy]) -> str:
    """A row as text: what filters need, the separator, its prompts.

    Raises:
        ValueError: where the profile's library has no text for the task.
    """
    task = labelled.task
    head: Head = {
        "id": labelled.key,
        "source": labelled.source,
        "language": task.language,
        "mode": task.mode,
        "family": task.family,
        "gold": labelled.gold,
        "labels": list(task.labels),
    }
    parts = (head, prompter.prompts(labelled, strategies))
    return SEPARATOR.join(json.encode(part).decode() for part in parts)


def read_head(payload: str) -> Head:
    """What filters need of a payload's row."""
    head: Head = json.decode(payload.partition(SEPARATOR)[0])
    return head


def read_row(payload: str) -> Row:
    """The row of a payload, whatever stands behind it."""
    head, prompts = payload.split(SEPARATOR, 2)[:2]
    return cast("Row", {**json.decode(head), "prompts": json.decode(prompts)})


def rendered(row: Row, strategy: Strategy) -> Spoken:
    """Messages and assistant prefix under a strategy; translated traces are taught behind the prompt of tgt-tgt."""
    shown = row["prompts"]["tgt-tgt" if strategy == "tgt-tgt-translated" else strategy]
    return Spoken(
        system=shown["system"],
        user=shown["user"],
        assistant_prefix=shown["prefix"],
        identity=shown["identity"],
        teacher_system=shown["teacher_system"],
    )


def told(payload: str) -> list[Any]:
    """What was put behind the row, in order."""
    return [json.decode(part) for part in payload.split(SEPARATOR)[2:]]
