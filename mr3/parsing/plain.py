"""Characters that carry no meaning at the edges of a value, and the forms of a digit: text made comparable."""

from __future__ import annotations

import re
import unicodedata

BLANKS = "".join(chr(c) for c in range(0x3001) if chr(c).isspace())
# Zero-width and direction marks, which right-to-left text puts around Latin words and digits. The overrides
# U+202D and U+202E are left out: they show 12 as 21, so a value that holds one is not read.
MARKS = "\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u2060\u2066\u2067\u2068\u2069\ufeff"
_DECORATION = "*_`'\"‘’“”„«»「」『』[]()【】《》"
EDGES = BLANKS + MARKS + _DECORATION
_EDGE_SET = frozenset(BLANKS + MARKS)
_STOPS = ".。｡।۔።"
# Full-width forms only: full compatibility folding would read 4² as 42.
_NARROW = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
_WHOLE = re.compile(r"(\d+)\.0+", re.ASCII)
END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<|return|>", "</s>")


def narrow(text: str) -> str:
    """Full-width forms as the ASCII characters that they show."""
    return text.translate(_NARROW)


def plain(value: str) -> str:
    """A score without decoration: narrow, lower case, any script's digits as ASCII, `4.0` as `4`, no final stop."""
    text = narrow(value).strip(EDGES).rstrip(_STOPS).strip(EDGES)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    whole = _WHOLE.fullmatch(text)
    if whole:
        return whole[1]
    return " ".join(text.lower().split())


def without_end_tokens(answer: str) -> str:
    """The answer without blanks and marks at its edges, nor end-of-turn tokens that an engine left in.

    Walks back by index: answers can be endless repetitions, and a copy for each would take quadratic time.
    """
    end = len(answer)
    while end:
        if answer[end - 1] in _EDGE_SET:
            end -= 1
            continue
        token = next((t for t in END_TOKENS if answer.endswith(t, 0, end)), None)
        if token is None:
            break
        end -= len(token)
    return answer[:end].lstrip(BLANKS + MARKS)
