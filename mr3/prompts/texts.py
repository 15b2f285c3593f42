"""What a prompt takes from a library of texts, and the interface that the published and the project's own ones keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mr3.families.errors import FamilyError
from mr3.families.table import Family, find_family
from mr3.records import Task


@dataclass(frozen=True, slots=True)
class FamilyTexts:
    """The texts of one family in one language.

    `rubrics` are paraphrases of what the scores mean; `generic` says that they speak of criteria in general, so that
    they complete a rubric that has criteria and no description per score. `part_title` heads what follows the input
    where that is not a response (a solution, the options). `reference_title` is None where the texts have none. A
    `fixed_schema` is printed as it stands. `criteria` (name and description, ranked) go before
    the scores.
    """

    language: str
    instruction_title: str
    instruction: str
    rubric_title: str
    format_title: str
    response_title: str
    input_title: str
    conversation_title: str
    part_title: str
    reference_title: str | None
    rubrics: tuple[Mapping[str, str], ...]
    explanation: str
    score: str
    generic: bool = False
    criteria: tuple[tuple[str, str], ...] = ()
    fixed_schema: Mapping[str, Any] | None = None

    def schema(self, labels: Sequence[str], ranked: int = 0) -> Mapping[str, Any]:
        """The JSON schema of the answer: that of the library, or one with the given scores.

        Args:
            labels: the legal scores.
            ranked: of a list-wise task with many orders, the number of responses: then a pattern stands for the list.
        """
        if self.fixed_schema is not None:
            return self.fixed_schema
        score: dict[str, Any] = {"type": "string", "description": self.score}
        if ranked:
            last = "ABCDE"[ranked - 1]
            score["pattern"] = f"^[A-{last}]( > [A-{last}]){{{ranked - 1}}}$"
        else:
            score["enum"] = list(labels)
        explanation = {"type": "string", "description": self.explanation}
        properties = {"explanation": explanation, "score": score}
        return {"type": "object", "properties": properties, "required": ["explanation", "score"]}


class Texts(Protocol):
    """A library of texts by family and language."""

    name: str

    def family(self, family: Family, language: str) -> FamilyTexts:
        """The texts of a family; in English where that is what the library falls back to.

        Raises:
            TextsMissing: when there are none.
        """

    def default(self, task: Task) -> Family:
        """The family of a task that names none.

        Raises:
            TextsMissing: when the library has none for its mode and scores.
        """

    def identity(self, language: str) -> str:
        """The first line of the system message, in the thinking language.

        Raises:
            TextsMissing: when there is none.
        """

    def teacher_system(self, language: str) -> str:
        """The system message of a gpt-oss teacher that must think in a language; empty where the library has none.

        Raises:
            TextsMissing: when the library has such messages, and none in this language.
        """

    def forcing(self, language: str) -> str:
        """The sentence that makes a trace begin in a language.

        Raises:
            TextsMissing: when there is none.
        """


def family_of_task(task: Task, texts: Texts) -> Family:
    """The task's family, or the library's default for its mode.

    Raises:
        FamilyError: for an unknown family, or one of another mode.
    """
    if task.family is None:
        return texts.default(task)
    family = find_family(task.family)
    if family.mode != task.mode:
        raise FamilyError(
            f"task {task.id!r} is {task.mode}, but its family {family.name} is {family.mode}",
            family.name,
            task.language,
        )
    return family
