"""One raw row of a source to a `Placed` pool row, or to a `SetAside` with the reason: never an exception.

Whole JSON lines take a fast way (one call of pydantic-core); what does not pass it goes the slow way, which says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from mr3.records import Candidate, PoolRow
from mr3.rows import BadRow, parse_json
from rewards.pools.languages import Tagger
from rewards.pools.mapper import Mapper
from rewards.pools.messages import Unreadable
from rewards.records import SetAside

COLUMNS = ("prompt_id", "prompt", "language", "responses", "reference", "meta", "provenance")
REQUIRED = ("prompt_id", "prompt", "responses")
_SLOW = (b"NaN", b"Infinity")
"""What pydantic reads as null, and JSON does not know."""
_KEYS = re.compile(rb'"(' + "|".join(COLUMNS).encode() + rb')"\s*:')
_NONE_LEFT = "no response is left"
_UNTOLD = (
    "missing or empty: language, and the last user turn does not tell it (give default_language to keep such rows)"
)


@dataclass(frozen=True, slots=True)
class Placed:
    """A readable pool row and where it stands."""

    where: str
    row: PoolRow


PoolItem = Placed | SetAside


class RowReader:
    """Raw rows of one source to pool items."""

    def __init__(self, tagger: Tagger | None = None, mapper: Mapper | None = None) -> None:
        self._tagger = tagger or Tagger()
        self._mapper = mapper

    def items(self, where: str, raw: Any) -> Iterable[PoolItem]:
        """`raw` is a JSON line (bytes), a decoded row, a `PoolRow` or a `SetAside`.

        Gives at most one `Placed`; before it, its responses that are set aside one by one.
        """
        if isinstance(raw, bytes):
            row = _whole(raw) if self._mapper is None else None
            if row is not None:
                return self._finished(where, row)
            try:
                raw = parse_json(raw)
            except BadRow as problem:
                return (SetAside(where=where, reason=str(problem)),)
        if isinstance(raw, SetAside):
            return (raw,)
        if isinstance(raw, PoolRow):
            return self._kept(where, raw.prompt_id, raw)
        if not isinstance(raw, dict):
            reason = f"expected an object with {', '.join(REQUIRED)}, got {type(raw).__name__}"
            return (SetAside(where=where, reason=reason),)
        return self._own(where, raw) if self._mapper is None else self._mapped(where, raw, self._mapper)

    def _mapped(self, where: str, raw: dict[str, Any], mapper: Mapper) -> Iterator[PoolItem]:
        try:
            mapped = mapper(raw)
        except Unreadable as problem:
            yield SetAside(where=where, reason=str(problem))
            return
        name = mapped.row["prompt_id"]
        for response_id, reason in mapped.unusable:
            yield SetAside(where=where, prompt_id=name, response_id=response_id, reason=reason)
        if mapped.unusable and not mapped.row["responses"]:
            yield SetAside(where=where, prompt_id=name, reason=_NONE_LEFT)
            return
        yield from self._checked(where, name, mapped.row)

    def _own(self, where: str, value: dict[str, Any]) -> Iterable[PoolItem]:
        """A row that is in the pool's own form, as far as one can see."""
        prompt_id = value.get("prompt_id")
        name = prompt_id if isinstance(prompt_id, str) and prompt_id else None
        missing = [c for c in REQUIRED if value.get(c) in (None, "", [])]
        if missing:
            return (SetAside(where=where, prompt_id=name, reason=f"missing or empty: {', '.join(missing)}"),)
        try:
            decoded = _decoded(value)
        except BadRow as problem:
            return (SetAside(where=where, prompt_id=name, reason=f"in a column, {problem}"),)
        return self._checked(where, name, decoded)

    def _checked(self, where: str, name: str | None, value: dict[str, Any]) -> Iterable[PoolItem]:
        try:
            row = PoolRow.model_validate(value)
        except ValidationError as error:
            return (SetAside(where=where, prompt_id=name, reason=_first_problem(error)),)
        return self._kept(where, name, row)

    def _kept(self, where: str, name: str | None, row: PoolRow) -> Iterable[PoolItem]:
        """A row that did not come as one line of JSON, if it can be written and read as one: that is how it goes on."""
        try:
            from_json(row.model_dump_json())
        except ValueError as error:  # what JSON can't hold: surrogates, objects, nesting and numbers without end
            return (SetAside(where=where, prompt_id=name, reason=f"it can't be written as JSON: {error}"),)
        return self._finished(where, row)

    def _finished(self, where: str, row: PoolRow) -> Iterable[PoolItem]:
        ids = set()
        for response in row.responses:
            if not response.id or not response.text or response.text.isspace():
                return self._finish(where, row)
            ids.add(response.id)
        return (Placed(where, row),) if row.language and len(ids) == len(row.responses) else self._finish(where, row)

    def _finish(self, where: str, row: PoolRow) -> Iterator[PoolItem]:
        """Name the responses, set the empty ones aside, tell the language."""
        if not all(r.id for r in row.responses):
            row = row.model_copy(update={"responses": [_named(row, i, r) for i, r in enumerate(row.responses)]})
        if len({r.id for r in row.responses}) < len(row.responses):
            yield SetAside(where=where, prompt_id=row.prompt_id, reason="two responses have the same id")
            return
        kept = [r for r in row.responses if r.text.strip()]
        if len(kept) < len(row.responses):
            for response in row.responses:
                if not response.text.strip():
                    name = response.id
                    yield SetAside(where=where, prompt_id=row.prompt_id, response_id=name, reason="empty response")
            if not kept:
                yield SetAside(where=where, prompt_id=row.prompt_id, reason=_NONE_LEFT)
                return
            row = row.model_copy(update={"responses": kept})
        tagged = row if row.language else self._tagger.tag(row)
        if tagged is None:
            yield SetAside(where=where, prompt_id=row.prompt_id, reason=_UNTOLD)
            return
        yield Placed(where, tagged)


def _named(row: PoolRow, number: int, response: Candidate) -> Candidate:
    return response if response.id else response.model_copy(update={"id": f"{row.prompt_id}#{number}"})


def _whole(line: bytes) -> PoolRow | None:
    """The row of a JSON line that is valid as it stands and has a language; None where the slow way must look."""
    try:
        row = PoolRow.model_validate_json(line)
    except ValidationError:
        return None
    if any(sign in line for sign in _SLOW):
        return None
    keys = _KEYS.findall(line)
    if len(keys) > len(set(keys)):  # perhaps the same key twice in one object
        return None
    ready = row.prompt_id and row.prompt and row.language
    if not ready or (isinstance(row.prompt, str) and row.prompt.lstrip().startswith("[")):
        return None
    return row


def decoded_prompt(prompt: Any) -> Any:
    """A prompt of a Parquet column: chat turns where it is a JSON list of them, else as it is (a text may begin so)."""
    if not isinstance(prompt, str) or not prompt.lstrip().startswith("["):
        return prompt
    try:
        decoded = parse_json(prompt)
    except BadRow:
        return prompt
    turns = isinstance(decoded, list) and decoded and all(isinstance(m, dict) and "role" in m for m in decoded)
    return decoded if turns else prompt


def _decoded(value: dict[str, Any]) -> dict[str, Any]:
    """Undo the JSON columns of the Parquet form: message lists in `prompt`, mappings in `meta` and `provenance`."""
    row = dict(value)
    row["prompt"] = decoded_prompt(row["prompt"])
    for name in ("meta", "provenance"):
        given = row.get(name)
        row[name] = (parse_json(given) if given else {}) if isinstance(given, str) else given or {}
    if row.get("language") is None:
        row["language"] = ""
    return row


def _first_problem(error: ValidationError) -> str:
    problem = max(error.errors(), key=lambda e: len(e["loc"]))  # the deepest one is the most telling
    return f"{'.'.join(str(p) for p in problem['loc'])}: {problem['msg']}"
