"""Rows of a source in the pool's own form, by its `columns:`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mr3.records import stable_hash
from rewards.pools.columns import Columns, EachResponse, ResponseColumns, column_of, evaluate
from rewards.pools.languages import language_code
from rewards.pools.messages import Messages, Unreadable, as_messages, normalised, prompt_key


@dataclass
class Mapped:
    """A row in the pool's own form, and its responses that are no responses: (id, reason)."""

    row: dict[str, Any]
    unusable: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A response as it stands in the source."""

    text: Any
    policy: Any
    id: Any


@dataclass(frozen=True, slots=True)
class _Turn:
    """A response and the turns before it; or what is wrong with it."""

    before: Messages
    text: str | None
    problem: str | None = None


class Mapper:
    """`columns` applied to rows.

    `by_prompt`: an id that the source does not give is a hash of the prompt alone, so that a prompt keeps its name when
    responses are added; else of prompt and responses, so that two rows of one prompt have two names.
    """

    def __init__(self, columns: Columns, by_prompt: bool) -> None:
        self._columns = columns
        self._by_prompt = by_prompt
        self._answers = _reader(columns)

    def __call__(self, row: dict[str, Any]) -> Mapped:
        """Bring one row into the pool's form; `language` is empty where the source gives none.

        Raises:
            Unreadable: with the reason, when the row has no prompt or its responses answer different ones.
        """
        given = self._columns
        answers = self._answers(row)
        turns = [_turn(answer.text) for answer in answers]
        try:
            prompt = self._prompt(row, [t.before for t in turns if t.before])
        except Unreadable as error:  # what is wrong with a response often says why there is no prompt
            problem = next((t.problem for t in turns if t.problem), None)
            raise Unreadable(f"{error} ({problem})" if problem else str(error)) from error
        prompt_id = self._id(row, prompt, [t.text for t in turns if t.text is not None])
        language = evaluate(given.language, row, row)
        reference = evaluate(given.reference, row, row)
        mapped = Mapped(
            {
                "prompt_id": prompt_id,
                "prompt": prompt,
                "language": (language_code(language) or "") if isinstance(language, str) else "",
                "reference": str(reference) if isinstance(reference, int | float) else reference,
                "meta": self._meta(row),
            }
        )
        mapped.row["responses"] = _responses(prompt_id, answers, turns, mapped.unusable)
        return mapped

    def _prompt(self, row: dict[str, Any], before: list[Messages]) -> str | Messages:
        found = own = _as_prompt(evaluate(self._columns.prompt, row, row))
        if before:
            found = before[0]
            if any(prompt_key(other) != prompt_key(found) for other in before[1:]):
                raise Unreadable("the responses answer different conversations")
            if own is not None and prompt_key(own) != prompt_key(found) and not _is_last_turn(own, found):
                raise Unreadable("the prompt is not the one that the responses' conversations begin with")
        if not found:
            raise Unreadable("missing or empty: prompt")
        system = evaluate(self._columns.system, row, row)
        if isinstance(system, str) and system.strip() and found[0]["role"] != "system":
            found = [{"role": "system", "content": system}, *found]
        if found[-1]["role"] != "user":
            raise Unreadable(f"the prompt ends with a turn of the {found[-1]['role']}, where a user is to be answered")
        return found[0]["content"] if len(found) == 1 else found

    def _id(self, row: dict[str, Any], prompt: str | Messages, texts: list[str]) -> str:
        given = evaluate(self._columns.prompt_id, row, row)
        if given is None or given == "":
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            key = prompt_key(messages)
            return key if self._by_prompt else stable_hash(key, texts)
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise Unreadable(f"prompt_id is neither text nor number but {type(given).__name__}")
        return str(given)

    def _meta(self, row: dict[str, Any]) -> dict[str, Any]:
        meta = self._columns.meta
        if isinstance(meta, dict):
            return {name: evaluate(expression, row, row) for name, expression in meta.items()}
        found = evaluate(meta, row, row)
        if found is not None and not isinstance(found, dict):
            raise Unreadable(f"meta is no mapping but {type(found).__name__}")
        return found or {}


def _responses(
    prompt_id: str, answers: list[_Answer], turns: list[_Turn], unusable: list[tuple[str, str]]
) -> list[dict[str, str]]:
    """The usable responses, named; the others go to `unusable`. A response keeps its number whatever its neighbours."""
    found = []
    for number, (answer, turn) in enumerate(zip(answers, turns, strict=True)):
        name = f"{prompt_id}#{number}" if answer.id is None or answer.id == "" else str(answer.id)
        problem = turn.problem
        if problem is None and (not isinstance(answer.policy, str) or not answer.policy):
            problem = "a response without a policy"
        if problem is not None:
            unusable.append((name, problem))
        else:
            assert turn.text is not None
            found.append({"id": name, "text": turn.text, "policy": answer.policy})
    return found


def _reader(columns: Columns) -> Callable[[dict[str, Any]], list[_Answer]]:
    """The function from a row to its responses, as they stand there."""
    responses = columns.responses
    if isinstance(responses, str):
        return lambda row: _parallel(evaluate(responses, row, row), evaluate(columns.policy, row, row))
    if isinstance(responses, EachResponse):
        return lambda row: [_answer(responses, element, row) for element in _each(responses, row)]
    entries = [ResponseColumns(text=e) if isinstance(e, str) else e for e in responses]
    return lambda row: [_answer(entry, row, row) for entry in entries]


def _answer(entry: ResponseColumns, element: Any, row: Any) -> _Answer:
    policy = column_of(entry.text) if entry.policy is None else evaluate(entry.policy, element, row)
    return _Answer(evaluate(entry.text, element, row), policy, evaluate(entry.id, element, row))


def _each(entry: EachResponse, row: Any) -> list[Any]:
    value = evaluate(entry.each, row, row)
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        lengths = {len(v) for v in value.values()}  # a struct of lists: how older data sets keep a list of structs
        if len(lengths) == 1:
            return [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]
    return _elements(value)


def _parallel(texts: Any, policies: Any) -> list[_Answer]:
    found = _elements(texts)
    if not isinstance(policies, list):
        return [_Answer(text, policies, None) for text in found]
    if len(policies) != len(found):
        raise Unreadable(f"{len(found)} responses, but {len(policies)} policies")
    return [_Answer(text, policy, None) for text, policy in zip(found, policies, strict=True)]


def _elements(value: Any) -> list[Any]:
    if value is None or value == []:
        raise Unreadable("missing or empty: responses")
    if not isinstance(value, list):
        raise Unreadable(f"responses are no list but {type(value).__name__}")
    return value


def _turn(value: Any) -> _Turn:
    if value is None:
        return _Turn([], None, "empty response")
    if isinstance(value, str):
        return _Turn([], value)
    try:
        messages = as_messages(value)
    except Unreadable as problem:
        return _Turn([], None, f"bad response: {problem}")
    if messages[-1]["role"] != "assistant":
        return _Turn([], None, "bad response: its conversation does not end with the assistant")
    return _Turn(messages[:-1], messages[-1]["content"])


def _as_prompt(value: Any) -> Messages | None:
    if value is None or value == "":
        return None
    return [{"role": "user", "content": value}] if isinstance(value, str) else as_messages(value)


def _is_last_turn(own: Messages, conversation: Messages) -> bool:
    """Whether a prompt is just the last turn of a longer conversation."""
    return len(own) == 1 and normalised(own[0]["content"]) == normalised(conversation[-1]["content"])
