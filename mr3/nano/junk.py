"""Junk that judge training puts into responses: text that says nothing, so that it neither saves nor sinks one.

Weak policies write on after their answer, and whoever wants a bad response to pass appends noise to it. A judge that
never read such text loses its place in the prompt, most of all where it is long and made of bytes that it never saw.
The families here are those that training rows hold (`FAMILIES`): what canaries and benchmarks make of chat-template
tokens, markup, headings and blank lines is none of them, and measures how far the training carries.

Junk changes no criterion but brevity: more text is more text. `add_junk` keeps what it draws only if the checkers find
the same evidence for every other criterion with and without it.
"""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Callable

from mr3.nano.checks import analyse
from mr3.nano.facts import Question

# First and last letter of scripts: some of the world's languages, some that no text of the world is in.
_SCRIPTS = (
    "az", "az", "AZ", "αω", "ая", "בת", "بغ", "अह", "กฮ", "აჰ", "աֆ", "ሀሏ", "అహ", "ぁん", "一九", "가각",
)  # fmt: skip
# Blocks beyond the first 65,536 code points, four bytes a character: emoji, mathematical letters, hieroglyphs.
_PICTURES = ("\U0001f300\U0001f5ff", "\U0001f600\U0001f64f", "\U0001f680\U0001f6c5", "\U0001f90d\U0001f9ff",
             "\U0001d400\U0001d4ff", "\U00013000\U000133ff")  # fmt: skip
_INVISIBLE = "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufe0e\ufe0f\ufeff"
_SYMBOLS = "#$%&*+-/:;<=>@\\^_`|~()[]{}'\"§°±×÷€£¥©®†‡•…‰←↑→↓↔∂∑∞≈≠≤≥■□▲△◆◇○●★☆☀☂☎♠♣♥♦♪✓✗"
_TAG_WORDS = (
    "end", "div", "br", "note", "item", "page", "cell", "row", "list", "head", "foot", "link", "code", "data", "x", "p",
)  # fmt: skip
_TAGS = ("<{}>", "</{}>", "[{}]", "[/{}]", "{{{{{}}}}}", "<{}/>", "({})", "#{}", "@{}", "<<{}>>", "[[{}]]", "%{}%")
_SENTENCES = re.compile(r"(?<=[.!?。！？।])\s*")
_DRAWS = 8
_BYTES, _LONG_BYTES, _LONG = (4, 90), (90, 900), 0.2


def _of_block(rng: random.Random, block: str, most: int) -> str:
    """Characters by lot between the two that `block` names."""
    first, last = tuple(block)
    return "".join(chr(rng.randint(ord(first), ord(last))) for _ in range(rng.randint(2, most)))


def _letters(rng: random.Random) -> str:
    """A word of random letters of one script."""
    return _of_block(rng, rng.choice(_SCRIPTS), 10)


def _pictures(rng: random.Random) -> str:
    return _of_block(rng, rng.choice(_PICTURES), 4)


def _invisible(rng: random.Random) -> str:
    return "".join(rng.choice(_INVISIBLE) for _ in range(rng.randint(1, 4)))


def _encoded(rng: random.Random) -> str:
    """Bytes by lot in base64 or in hexadecimal digits."""
    found = rng.randbytes(rng.randint(6, 18))
    return base64.b64encode(found).decode() if rng.random() < 0.6 else found.hex()


def _symbols(rng: random.Random) -> str:
    return "".join(rng.choice(_SYMBOLS) for _ in range(rng.randint(1, 6)))


def _repeat(rng: random.Random) -> str:
    return rng.choice([rng.choice(_SYMBOLS), _letters(rng)[:2], ".", "!", "-"]) * rng.randint(4, 14)


def _tag(rng: random.Random) -> str:
    return rng.choice(_TAGS).format(rng.choice(_TAG_WORDS))


FAMILIES: dict[str, Callable[[random.Random], str]] = {
    "letters": _letters,
    "symbols": _symbols,
    "repeat": _repeat,
    "tag": _tag,
    "pictures": _pictures,
    "invisible": _invisible,
    "encoded": _encoded,
}
"""Family -> one piece of it."""


def junk(rng: random.Random, family: str | None = None) -> str:
    """Pieces of one family (by lot if None) up to a length by lot; a fifth of the draws are ten times as long."""
    piece = FAMILIES[family or rng.choice(sorted(FAMILIES))]
    wanted = rng.randint(*(_LONG_BYTES if rng.random() < _LONG else _BYTES))
    between, text = rng.choice([" ", " ", "", "\n"]), piece(rng)
    while len(text.encode()) < wanted:
        text += between + piece(rng)
    return text


def _insert(text: str, extra: str, rng: random.Random) -> str:
    """Behind the text more often than not, else in front of it or between two of its sentences."""
    blank, place = rng.choice([" ", " ", "\n", "\n\n", ""]), rng.random()
    if place < 0.65:
        return f"{text}{blank}{extra}"
    ends = [m.end() for m in _SENTENCES.finditer(text)]
    at = 0 if place < 0.8 or not ends else rng.choice(ends)
    return f"{text[:at]}{extra}{blank or ' '}{text[at:]}"


def add_junk(text: str, question: Question, rng: random.Random) -> str:
    """The text with junk in it, or as it is where no draw leaves the findings alone."""

    def findings(response: str) -> dict[str, object]:
        found = analyse(question.language, question.reference, response)
        return {name: finding for name, finding in found.items() if name != "brief"}

    before = findings(text)
    for _ in range(_DRAWS):
        with_junk = _insert(text, junk(rng), rng)
        if findings(with_junk) == before:
            return with_junk
    return text
