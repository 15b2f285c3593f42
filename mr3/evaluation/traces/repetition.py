"""Degenerate traces: text that runs in a loop, or says again what was said.

All measures count characters, so they mean the same in every script; a byte-wise compression ratio does not (a letter
takes one byte in Latin and three in Thai).
"""

from __future__ import annotations

import re

import numpy as np

TAIL = 2_000
"""A model that falls into a loop stays in it until it is cut off, so the loop is looked for at the end."""
_SHINGLE = 16
_LONGEST_PERIOD = 400
_TIMES = 4
_AT_LEAST = 60
_SAID_AGAIN = 0.8
_PIECE = 8


def plain(text: str) -> str:
    """Case folded, with single blanks."""
    return re.sub(r"\s+", " ", text).strip().casefold()


def loop_share(text: str) -> float:
    """Which share of the last 2,000 characters is one block said over and over (at least 4 times, 60 characters).

    The loop must reach the end of the text but for one block. 0.0 where there is none.
    """
    tail = plain(text)[-TAIL:]
    letters = np.frombuffer(tail.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    n = len(letters)
    best = 0
    for period in range(1, min(_LONGEST_PERIOD, n // _TIMES) + 1):
        same = letters[period:] == letters[:-period]
        differs = np.flatnonzero(~same)
        # The run of equal letters that ends the text; a last block that was cut or left may differ.
        for end in {len(same), *([int(differs[-1])] if len(differs) and len(same) - differs[-1] <= period else [])}:
            before = differs[differs < end]
            run = end - (int(before[-1]) + 1 if len(before) else 0)
            if run + period >= max(_TIMES * period, _AT_LEAST):
                best = max(best, run + period)
    return best / n if n else 0.0


def repeated_share(text: str) -> float | None:
    """The share of all stretches of 16 characters that stood in the text before; None under 200 characters."""
    flat = plain(text)
    if len(flat) < 200:
        return None
    count = len(flat) - _SHINGLE + 1
    return 1 - len({flat[i : i + _SHINGLE] for i in range(count)}) / count


def says_again(text: str, sentence: str) -> bool:
    """Whether the text holds the sentence, or nearly: four fifths of its stretches of 8 characters."""
    flat, wanted = plain(text), plain(sentence)
    if not wanted:
        return False
    pieces = {wanted[i : i + _PIECE] for i in range(max(1, len(wanted) - _PIECE + 1))}
    return sum(piece in flat for piece in pieces) >= _SAID_AGAIN * len(pieces)


def degenerate(text: str, share: float = 0.5) -> bool:
    """Whether such a share of the end is a loop, or of the whole text stood in it before."""
    again, at_the_end = repeated_share(text), repeated_share(text[-TAIL:])
    if again is not None and again >= share:
        return True
    # A loop over half of the end repeats most of it, so what does not is spared the search for a period.
    return (at_the_end is None or at_the_end >= share / 2) and loop_share(text) >= share
