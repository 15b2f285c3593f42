"""The judge's own probabilities of the legal scores, from the logprobs of the answer that it wrote.

At the position where the score begins, each of the top alternatives either spells one legal label, begins
several of them (`Assistant ` before `A`), or none. Walking along what was written resolves the first kind; a branch
that was not taken and still fits several labels needs one more token after that branch as a forced prefix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mr3.inference.engine import TokenLogprobs
from mr3.parsing.keys import SCORE_WORDS

_KEY = re.compile(r'"score"\s*:\s*"')
_SAID = re.compile(
    rf"""["'“”«*]*(?:{"|".join(map(re.escape, sorted(SCORE_WORDS, key=len, reverse=True)))})["'“”»*]*\s*[:：]""",
    re.IGNORECASE,
)
# A branch below this is left in the outside mass: asking for it could not move a score visibly.
NEGLIGIBLE = 1e-3


@dataclass(slots=True)
class Reading:
    """Probability so far: per label, outside all labels, and per prefix that still fits several labels."""

    labels: dict[str, float]
    outside: float = 0.0
    open: dict[str, float] = field(default_factory=dict)

    def spread(self, top: Mapping[str, float], mass: float, so_far: str, skip: str = "") -> None:
        """Share `mass` out over one position's alternatives (token -> logprob).

        `so_far` is the label's text before this position; `skip` is what tokens here hold before the label begins.
        What the top alternatives leave over counts as outside.
        """
        left = mass
        for token, logprob in top.items():
            p = mass * math.exp(logprob)
            left -= p
            if not token.startswith(skip):
                self.outside += p
                continue
            text = so_far + token[len(skip) :]
            fits = [label for label in self.labels if _fits(label, text)]
            if len(fits) == 1:
                self.labels[fits[0]] += p
            elif fits:
                self.open[text] = self.open.get(text, 0.0) + p
            else:
                self.outside += p
        self.outside += max(0.0, left)

    def finish(self) -> tuple[dict[str, float], float] | None:
        """The distribution over the labels (sums to 1) and the mass outside, or None if no label has any."""
        inside = sum(self.labels.values())
        if inside <= 0:
            return None
        return {label: p / inside for label, p in self.labels.items()}, min(1.0, max(0.0, 1.0 - inside))


def _fits(label: str, text: str) -> bool:
    """Whether the text begins the label, or spells it and ends its string; `1` does not spell `10`."""
    whole = f'{label}"'
    return whole.startswith(text) or text.startswith(whole)


def locate(tokens: Sequence[TokenLogprobs]) -> tuple[int, str] | None:
    """The token in which the last score's value begins, and what of that token stands before the value."""
    text = "".join(t.token for t in tokens)
    found = list(_KEY.finditer(text))
    if not found:
        return None
    start, end = found[-1].end(), 0
    for i, token in enumerate(tokens):
        begin, end = end, end + len(token.token)
        if end > start:
            return i, token.token[: start - begin]
    return None


def read_tokens(tokens: Sequence[TokenLogprobs], labels: Sequence[str]) -> Reading | None:
    """What the written answer's logprobs say; None when the value can't be found in them.

    The reading's `open` branches wait for `forced_prefix` requests.
    """
    place = locate(tokens)
    if place is None:
        return None
    first, skip = place
    reading = Reading(dict.fromkeys(labels, 0.0))
    mass, so_far = 1.0, ""
    for position in tokens[first:]:
        reading.spread(position.top, mass, so_far, skip)
        so_far += position.token[len(skip) :]
        skip = ""
        if so_far not in reading.open:
            break
        mass = reading.open.pop(so_far)
    return reading


def settle(reading: Reading) -> list[tuple[str, float]]:
    """Take out the open branches that deserve one more token; the others become outside mass."""
    asked = [(text, p) for text, p in reading.open.items() if p > NEGLIGIBLE]
    reading.outside += sum(p for _, p in reading.open.items() if p <= NEGLIGIBLE)
    reading.open.clear()
    return asked


def answer_until_score(text: str) -> str:
    """A completion cut just before its score's value, ending in `"score": "`: the prefix that forces a score next."""
    trace, _, answer = text.partition("</think>")
    before, key, _ = answer.rpartition('"score"')
    if not key:  # a repaired answer: its key was translated, quoted or written otherwise
        keys = list(_SAID.finditer(answer))
        if not keys:
            return f'{text.rstrip().removesuffix("}").rstrip()}, "score": "'
        before = answer[: keys[-1].start()]  # else the value that was written would give the next one away
    return f'{trace}</think>{before}"score": "'
