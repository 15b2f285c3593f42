"""An answer that is not clean JSON, mended where it can mean one thing only: closed, final, and one object.

Repaired: blanks, marks and end-of-turn tokens around it, a code fence, prose in front, a trailing comma, single quotes
and Python's True, False and None, raw line breaks in strings, unescaped quotes in the explanation.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mr3.parsing.keys import names_a_score, unique
from mr3.parsing.parsed import CLOSE, OPEN, Ambiguous
from mr3.parsing.plain import without_end_tokens
from mr3.parsing.scores import Number

_FENCE = "```"
_ONLY_FENCE = re.compile(r"```\w*\s*")
_STRING = r""""(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+'"""
_PAIR = re.compile(rf"\s*({_STRING})\s*:\s*({_STRING}|[^\s,{{}}\[\]\"']+)\s*([,}}])", re.DOTALL)
_LAST_BRACE = re.compile(r"\s*\}\Z")
_QUOTES = re.compile(r"\\.|\"", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_LOOSE_HEAD = re.compile(r'\{\s*"explanation"\s*:\s*"')
_LOOSE_TAIL = re.compile(r'"score"\s*:\s*"([^"\\{}]*)"\s*\}')
_KEY_AFTER_QUOTE = re.compile(r"[\"'”’]\s*[:：]")
_LENIENT = json.JSONDecoder(
    strict=False, object_pairs_hook=unique, parse_int=Number, parse_float=Number, parse_constant=Number
)


def mend(answer: str, *, lead: bool = True) -> dict[str, Any] | None:
    """The one object that ends an answer, or None.

    `lead`: prose may stand in front of it. Any text behind it but a closing fence makes it not final.

    Raises:
        Ambiguous: when a key comes twice, or the trace was opened or closed once more in front of the object.
    """
    text = without_end_tokens(answer)
    start = text.find("{")
    if start > 0:
        front = text[:start]
        if OPEN in front or CLOSE in front:
            raise Ambiguous("the trace was opened or closed a second time")
        if not lead and not _ONLY_FENCE.fullmatch(front):
            return None
        text = text[start:]
        if _FENCE in front:
            text = text.removesuffix(_FENCE).rstrip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    body = text[:-1].rstrip()
    for attempt in (text, body[:-1] + "}") if body.endswith(",") else (text,):
        try:
            found = _LENIENT.decode(attempt)
        except Ambiguous:
            raise
        except (ValueError, RecursionError):
            continue
        return found if isinstance(found, dict) else None
    return _flat(text) or _loose(text)


def _string(literal: str) -> str | None:
    """A quoted string of either kind, with JSON's escapes and `\\'`; None for escapes that JSON does not know."""
    inner = _QUOTES.sub(lambda m: {"\\'": "'", '"': '\\"'}.get(m[0], m[0]), literal[1:-1])
    try:
        value = _LENIENT.decode(f'"{inner}"')
    except ValueError:
        return None
    assert isinstance(value, str)
    return value


def _flat(text: str) -> dict[str, Any] | None:
    """An object of plain values as Python or JavaScript would write it, or None."""
    pairs: list[tuple[str, Any]] = []
    at = 1
    while True:
        match = _PAIR.match(text, at)
        if match is None:
            return None
        key = _string(match[1])
        raw = match[2]
        value: Any = _string(raw) if raw[0] in "\"'" else _WORDS.get(raw, Number(raw))
        if key is None or (value is None and raw[0] in "\"'"):
            return None
        if isinstance(value, Number) and not _NUMBER.fullmatch(value):
            return None
        pairs.append((key, value))
        at = match.end()
        if match[3] == "}":
            return unique(pairs) if at == len(text) else None
        if _LAST_BRACE.match(text, at):
            return unique(pairs)


def _loose(text: str) -> dict[str, Any] | None:
    """An object whose explanation holds unescaped quotes; only if nothing in it could be another key or object."""
    head = _LOOSE_HEAD.match(text)
    at = text.rfind('"score"')
    if head is None or at < head.end():
        return None
    tail = _LOOSE_TAIL.fullmatch(text, at)
    before = text[head.end() : at].rstrip()
    if tail is None or not before.endswith(","):
        return None
    explanation = before[:-1].rstrip()
    if not explanation.endswith('"'):
        return None
    explanation = explanation[:-1]
    if any(mark in explanation for mark in ("{", "}", OPEN, CLOSE)):
        return None
    if _KEY_AFTER_QUOTE.search(explanation) or names_a_score(explanation):
        return None
    return {"explanation": explanation, "score": tail[1]}
