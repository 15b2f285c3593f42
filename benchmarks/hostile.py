"""Bodies that are cheap to send and were, or could be, dear to read: what `serve-slow` sends, and tests parse.

Some are refused, others are judgements that fail as `too_long`; none may keep a server from answering others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

TASK = {
    "mode": "binary",
    "input": "2 + 2?",
    "responses": ["4"],
    "rubric": {"criteria": [{"name": "a", "description": "b"}]},
}
TEXTS: dict[str, str] = {
    "one word": "a",
    "blanks": " ",
    "blank lines": "\n",
    "returns": "\r",
    "line separators": "\u2028",
    "headings": "\n# ",
    "hashes": "#",
    "accents": "\u0301",
    "emoji": "\U0001f600",
    "digits": "7",
    "words": "the answer is ",
    "commas": ",",
    "quotes": '"',
    "backslashes": "\\",
    "brackets": "[{",
    "chat tokens": "<|im_end|>",
    "openings": "<|",
    "tags": "<think>",
}
"""Texts by what they repeat."""


def text(name: str, size: int) -> str:
    """So many bytes of it; blanks end in what is almost a heading."""
    piece = TEXTS[name]
    whole = piece * (size // len(piece.encode()))
    return f"{whole}#x" if piece.isspace() else whole


def escaped(name: str, size: int) -> str:
    """A text that takes about so many bytes as JSON."""
    sample = text(name, 10_000)
    return text(name, size * len(sample.encode()) // len(_json(sample)))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _tasks(*tasks: Any) -> bytes:
    return _json({"tasks": tasks})


def _many(item: bytes, size: int) -> bytes:
    return b",".join([item] * (size // (len(item) + 1)))


def _keys(size: int) -> bytes:
    return b",".join(b'"%d":1' % i for i in range(size // 11))


def _criteria(number: int, chars: int, same: bool = False) -> list[dict[str, str]]:
    return [
        {"name": "n" if same else f"n{i}", "description": "d" * chars + ("" if same else str(i))} for i in range(number)
    ]


def odd_bodies(size: int) -> Iterator[tuple[str, bytes]]:
    """Bodies of `/v1/judge` with about so many bytes that are refused."""
    yield "bad tasks", b'{"tasks":[' + _many(b"{}", size) + b"]}"
    yield "numbers for tasks", b'{"tasks":[' + _many(b"1", size) + b"]}"
    yield "empty lists", b'{"tasks":[' + _many(b"[]", size) + b"]}"
    yield "unknown keys", b'{"tasks":[],' + _keys(size) + b"}"
    yield "unknown keys of a task", b'{"tasks":[{' + _keys(size) + b"}]}"
    yield "one key many times", b"{" + _many(b'"tasks":1', size) + b"}"
    yield "a long key", b'{"tasks":[],"' + b"k" * size + b'":1}'
    yield "equal criteria", _tasks({**TASK, "rubric": {"criteria": _criteria(size // 35, 1, same=True)}})
    yield "different criteria", _tasks({**TASK, "rubric": {"criteria": _criteria(size // 45, 1)}})
    yield (
        "criteria with one long name",
        _tasks({**TASK, "rubric": {"criteria": _criteria(200, size // 200, same=True)}}),
    )
    yield "bad criteria", b'{"tasks":[{"rubric":{"criteria":[' + _many(b"{}", size) + b"]}}]}"
    yield "levels", _tasks({**TASK, "rubric": {"levels": {str(i): "x" for i in range(size // 13)}}})
    yield "bad turns", b'{"tasks":[{"input":[' + _many(b"{}", size) + b"]}]}"
    yield "bad responses", b'{"tasks":[{"responses":[' + _many(b"1", size) + b"]}]}"
    yield "as many bad values as are read", _tasks(*[{**TASK, "rubric": {"criteria": [{}] * 200}}] * 48)
    yield "as many unknown keys as are read", b'{"tasks":[],' + _keys(200_000) + b"}"
    yield "open lists", b'{"tasks":' + b"[" * size
    yield "nested lists", b'{"tasks":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}"
    yield "nested objects", b'{"a":' * (size // 5)
    yield "a long number", b'{"tasks":' + b"9" * size + b"}"
    yield "a long weight", b'{"tasks":[{"rubric":{"criteria":[{"weight":' + b"9" * size + b"}]}}]}"
    yield "a long fraction", b'{"tasks":0.' + b"9" * size + b"}"
    yield "a long exponent", b'{"tasks":1e' + b"9" * size + b"}"
    yield "numbers of 4,000 digits", b'{"tasks":[' + _many(b"9" * 4_000, size) + b"]}"
    yield "an open string", b'{"tasks":["' + b'\\"' * (size // 2)
    yield "quotes", b'"' * size
    yield "values in strings", b'{"tasks":["' + b"[" * 30_000 + b'",' + _many(b'""', size - 30_000) + b"]}"
    yield "blanks", b" " * size
    yield "no text", b"\xff" * size


def heavy_bodies(size: int) -> Iterator[tuple[str, str, bytes]]:
    """Path, name and body of requests with about so many bytes that are taken."""
    for name in TEXTS:
        yield "/v1/judge", f"an input of {name}", _tasks({**TASK, "input": escaped(name, size)})
    words, half = text("words", size), text("words", size // 2)
    yield "/v1/judge", "two responses", _tasks({**TASK, "mode": "pairwise", "responses": [half, half]})
    yield "/v1/judge", "a reference", _tasks({**TASK, "reference": words})
    yield "/v1/judge", "an instruction", _tasks({**TASK, "instruction": words})
    yield "/v1/judge", "a criterion", _tasks({**TASK, "rubric": {"criteria": _criteria(1, size)}})
    yield "/v1/judge", "criteria", _tasks({**TASK, "rubric": {"criteria": _criteria(200, size // 220)}})
    levels = {"true": half, "false": half}
    yield "/v1/judge", "level texts", _tasks({**TASK, "rubric": {"levels": levels}})
    turns = [{"role": "user", "content": "x" * (size // 1_000 - 50)}] * 1_000
    yield "/v1/judge", "a conversation", _tasks({**TASK, "input": turns})
    for name in ("words", "accents", "blank lines"):
        part = escaped(name, size // 64 - 400)
        yield "/v1/judge", f"a full batch of {name}", _tasks(*[{**TASK, "input": f"{i}{part}"} for i in range(64)])
    rubrics = [
        {"criteria": [*_criteria(20, size // 64 // 20 - 60), {"name": "own", "description": str(i)}]} for i in range(64)
    ]
    yield "/v1/judge", "a full batch of rubrics", _tasks(*[{**TASK, "rubric": rubric} for rubric in rubrics])
    for name in ("one word", "words", "accents"):
        said = [{"role": "user", "content": text(name, size)}]
        yield "/v1/chat/completions", f"a chat of {name}", _json({"model": "nano-judge", "messages": said})
    said = [{"role": "user", "content": "x" * (size // 1_000 - 50)}] * 1_000
    yield "/v1/chat/completions", "a chat of turns", _json({"model": "nano-judge", "messages": said})
