"""Rows of JSONL and Parquet files, one by one: what is none comes back as `BadRow`, and its neighbours come through."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MAX_LINE = 16 << 20
"""Bytes of a line that is still read as a row."""
MAX_DEPTH = 64
"""Lists and mappings within each other. Beyond some 200, what reads a row can no longer write it."""
_DEEP = f"bad JSON: nested deeper than {MAX_DEPTH} levels"
_BOM = b"\xef\xbb\xbf"


class BadRow(ValueError):
    """Why a row can't be used."""


def json_lines(file: Path) -> Iterator[tuple[str, bytes | BadRow]]:
    """(place, line) of a JSONL file, gzipped or not; empty lines are left out, a byte order mark at the start too.

    Raises:
        ValueError: for a damaged file.
    """
    opener: Any = gzip.open if file.name.endswith(".gz") else open
    number = 0
    try:
        with opener(file, "rb") as stream:
            while line := stream.readline(MAX_LINE + 1):
                number += 1
                where = f"{file.name}:{number}"
                if number == 1:
                    line = line.removeprefix(_BOM)
                if len(line) > MAX_LINE:
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(MAX_LINE)
                    yield where, BadRow(f"the line is longer than {MAX_LINE >> 20} MB")
                elif line.strip():
                    yield where, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{file} is damaged after line {number}: {error}. Give a whole file") from error


def parse_object(text: bytes | str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        BadRow: as `parse_json`, and for any other JSON.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise BadRow("not a JSON object")
    return value


def parse_json(text: bytes | str) -> Any:
    """JSON that can be written again as it was read.

    Raises:
        BadRow: for bad JSON or UTF-8, a key twice in one object, NaN, infinite and endless numbers, lone surrogates,
            and nesting beyond `MAX_DEPTH`.
    """
    try:
        value = json.loads(text if isinstance(text, str) else text.decode(), object_pairs_hook=_once)
    except RecursionError as error:
        raise BadRow(_DEEP) from error
    except ValueError as error:
        raise BadRow(f"bad JSON: {error}") from error
    check_json(value)
    return value


def check_json(value: Any) -> None:
    """
    Raises:
        BadRow: when a decoded value holds what JSON can't, or nests too deeply.
    """
    _check_depth(value)
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise BadRow("bad JSON: a lone surrogate, which is no character") from error
    except ValueError as error:
        raise BadRow(f"bad JSON: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise BadRow(f"the key {name!r} stands twice in one object")
    return found


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for found in level for inner in _inside(found)]
        if not level:
            return
    raise BadRow(_DEEP)


def _inside(value: Any) -> Sequence[Any]:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [v for v in inner if isinstance(v, dict | list)]


def parquet_rows(batches: Iterator[Any]) -> Iterator[dict[str, Any] | BadRow]:
    """The rows of Arrow batches; a file may hold bytes that are no UTF-8 in a column of text."""
    for batch in batches:
        try:
            found = batch.to_pylist()
        except UnicodeDecodeError:
            found = [_one_row(batch.slice(i, 1)) for i in range(batch.num_rows)]
        yield from found


def _one_row(batch: Any) -> dict[str, Any] | BadRow:
    try:
        (row,) = batch.to_pylist()
    except UnicodeDecodeError as error:
        return BadRow(f"text that is not UTF-8: {error}")
    found: dict[str, Any] = row
    return found
