"""From a row of a source data set to a task: which columns hold input and responses, and which rubric it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import ValidationError

from mr3.families.errors import RowError
from mr3.families.sources import family_of_row, turns
from mr3.families.table import FAMILIES, Family
from mr3.records import Message, Task
from mr3.rubrics import Criterion, Rubric

if TYPE_CHECKING:
    from mr3.prompts.texts import Texts

KeyOrder = Literal["file", "reversed"]


class _Row:
    """A row whose columns are asked for by name, so that what is missing is named."""

    def __init__(self, row: Mapping[str, Any], family: Family) -> None:
        self.row, self.family = row, family
        self.id = self.text("id")

    def wrong(self, what: str) -> RowError:
        """An error about this row."""
        language = self.row.get("language")
        name = self.row.get("id")
        return RowError(f"row {name!r} of family {self.family.name} ({language}): {what}", self.family.name, language)

    def text(self, *columns: str) -> str:
        """The first of some columns that the row has; numbers become text."""
        for column in columns:
            value = self.row.get(column)
            if isinstance(value, str):
                return value
            if isinstance(value, int | float) and not isinstance(value, bool):
                return str(value)
        raise self.wrong(f"no text in column {' or '.join(columns)}")

    def messages(self, column: str) -> list[Mapping[str, Any]]:
        """A conversation that has at least one message."""
        found = self.row.get(column)
        if not isinstance(found, Sequence) or isinstance(found, str) or not found:
            raise self.wrong(f"column {column} must be a list of messages")
        for message in found:
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise self.wrong(f"a message of {column} has no role")
        return list(found)

    def content(self, message: Mapping[str, Any], column: str) -> str:
        """A message's text: a string, or the first of its parts (the published prompts show no more); "" if none."""
        content = message.get("content")
        if isinstance(content, str):
            return content
        if isinstance(content, Sequence) and not content:
            return ""
        text = content[0].get("text") if isinstance(content, Sequence) and isinstance(content[0], Mapping) else None
        if not isinstance(text, str):
            raise self.wrong(f"a message of {column} has no text: content must be a string or [{{'text': ...}}]")
        return text


Shown = dict[str, Any]


def _single_turn(row: _Row) -> Shown:
    inputs, responses = [], []
    if turns(row.row) != 1:
        raise row.wrong(f"{turns(row.row)} turns; a conversation of several is of family arena-multi")
    for column in ("conversation_a", "conversation_b"):
        messages = row.messages(column)
        if messages[0]["role"] != "user":
            raise row.wrong(f"{column} does not begin with the user's prompt")
        inputs.append(row.content(messages[0], column))
        answered = len(messages) > 1 and messages[1]["role"] == "assistant"
        responses.append(row.content(messages[1], column) if answered else "")
    if inputs[0] != inputs[1]:
        raise row.wrong("the two conversations begin with different prompts")
    return {"input": inputs[0], "responses": responses}


def _conversation(row: _Row, column: str) -> str:
    shown = [(m["role"], row.content(m, column)) for m in row.messages(column)]
    return "\n".join(f"<{role}>\n{content}\n</{role}>" for role, content in shown)


def _multi_turn(row: _Row) -> Shown:
    return {"input": "", "responses": [_conversation(row, c) for c in ("conversation_a", "conversation_b")]}


def _helpsteer3(row: _Row) -> Shown:
    context = []
    for message in row.messages("context"):
        try:
            context.append(Message(role=cast(Any, message["role"]), content=row.content(message, "context")))
        except ValidationError as error:
            raise row.wrong(f"role {message['role']!r} in context: system, user and assistant are known") from error
    return {"input": context, "responses": [row.text("response1"), row.text("response2")]}


def _pair(row: _Row) -> Shown:
    return {"input": row.text("input"), "responses": [row.text("response_1"), row.text("response_2")]}


def _solution(problem: str, solution: str) -> Callable[[_Row], Shown]:
    return lambda row: {"input": row.text(problem), "responses": [row.text(solution)]}


_READ: dict[str, Callable[[_Row], Shown]] = {
    "arena-single": _single_turn,
    "arena-multi": _multi_turn,
    "helpsteer3": _helpsteer3,
    "mcq": lambda row: {"input": row.text("question"), "responses": [], "options": row.text("options_str")},
    "math500": _solution("problem", "full_solution"),
    "mgsm": _solution("question", "answer"),
    "humanevalxl": _solution("input", "code_response"),
    "polyguard-prompt": lambda row: {"input": row.text("input"), "responses": []},
    "polyguard-response": lambda row: {"input": row.text("input"), "responses": []},
    "rtp-lx": lambda row: {"input": row.text("input"), "responses": []},
    "pairwise": _pair,
}


def task_of_row(
    row: Mapping[str, Any],
    family: str,
    texts: Texts,
    prompt_language: str,
    rubric_index: int = 0,
    key_order: KeyOrder = "file",
) -> Task:
    """The task of one row, with the rubric of its family.

    Args:
        row: the columns of mR3's registry: `id`, `language`, and those of the family.
        family: a family, or what `family_of_row` takes.
        texts: where the rubric comes from (`mr3.prompts.Templates` or `mr3.prompts.OwnTexts`).
        prompt_language: language of the rubric (`mr3.prompts.languages_of`); some families are always English.
        rubric_index: which paraphrase, counted on from the first again after the last.
        key_order: order of the rubric's keys: as in the file, or reversed. Ordinal scales keep theirs.

    Raises:
        FamilyError: RowError for a row that lacks a column, TextsMissing where the texts lack the language.
    """
    about = FAMILIES[family_of_row(family, row)]
    given = _Row(row, about)
    read = _READ.get(about.name, _pair if about.parts == "assistants" and about.mode == "pairwise" else None)
    if read is None:
        raise given.wrong("no data set of the registry has such rows: make a task of its fields yourself")
    if key_order not in ("file", "reversed"):
        raise given.wrong(f"key_order {key_order!r}: use file or reversed")
    language = "en" if about.english else prompt_language
    return Task(
        id=given.id,
        mode=about.mode,
        language=given.text("language"),
        family=about.name,
        rubric=_rubric(about, texts, language, rubric_index, key_order),
        **read(given),
    )


def _rubric(family: Family, texts: Texts, language: str, index: int, order: KeyOrder) -> Rubric:
    found = texts.family(family, language)
    if family.mode == "choice":
        return Rubric(name=family.name, language=found.language, absent=True)
    chosen = found.rubrics[index % len(found.rubrics)]
    keys = list(chosen)
    if order == "reversed" and family.shuffled:
        keys.reverse()
    name = f"{family.name}/{index % len(found.rubrics)}"
    criteria = [Criterion(name=word, description=text) for word, text in found.criteria]
    return Rubric(name=name, language=found.language, criteria=criteria, levels={key: chosen[key] for key in keys})
