"""What stands in front of the answer's object: a preface is harmless, another verdict or a chat token is not.

A judge that writes `Score: 2.` and then an object with "3" contradicts itself, and nobody can say which of the two it
meant. The rule (docs/judgements.md has it with examples): the text must not name another legal label *as a verdict*.

- A label of several characters (`Assistant A`, `Tie`, `false`, `A > B`) is named by any mention as a whole word.
- A single letter or a number, also as the last word of a label (`A` for `Assistant A`), stands in much innocent text.
  It is named on a line of its own; in `[[B]]` and behind `[RESULT]`; behind a word for a score (in any language that
  mr3.parsing.keys knows) and a colon or an equals sign, in English also `is`; behind an English verb of choice where
  the sentence ends with it; in front of `is better`, `wins` and their like; and, a letter or a side's number, behind
  `the better response is` and its like.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from mr3.parsing.keys import SCORE_WORDS
from mr3.parsing.parsed import Ambiguous
from mr3.parsing.plain import BLANKS, MARKS, narrow
from mr3.parsing.scores import legal

_NOUNS = (
    "rating", "grade", "mark", "verdict", "winner", "choice", "result", "decision", "preference", "judgment",
    "judgement", "answer", "final", "conclusion", "label", "evaluation", "assessment",
)  # fmt: skip
_VERBS = (
    "give", "gives", "gave", "given", "assign", "assigned", "award", "awarded", "rate", "rated", "score", "scored",
    "choose", "chose", "chosen", "pick", "picked", "select", "selected", "prefer", "preferred", "deserves", "gets",
    "earns", "go with", "vote for",
)  # fmt: skip
_BETTER = "better|best|stronger|superior|preferred|preferable|winning"
_LOST_MARKUP = re.compile(
    r"<\|[^<>\s]{1,60}\|>|</?s>|</?(?:start|end)_of_turn>|\[/?INST\]|assistant\s*(?:final|analysis|commentary)\b"
    r"|(?:^|\n)[ \t]*(?:assistant|user|system|final|analysis|commentary)[ \t]*(?:\n|$)"
)
_DECORATION = str.maketrans("", "", '*_`"“”„«»' + MARKS)
_RANKING = re.compile(r"(?<!\w)[a-e](?:\s*>\s*[a-e])+(?!\w)", re.IGNORECASE)
_NAME = re.compile(r"\b(?:assistant|response)\s+(?=[A-E]\b)", re.IGNORECASE)


def _readable(text: str) -> str:
    """Narrow, in ASCII digits, without decoration and hidden characters."""
    text = narrow(unicodedata.normalize("NFC", text)).translate(_DECORATION)
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)


def _alone(short: str) -> str:
    """A pattern of a single letter or a number that is part of no other word or number."""
    if short.isdecimal():
        return rf"(?<!\d)(?<!\d[.,]){short}(?!\d)(?![.,]\d)"
    return rf"(?<![A-Za-z0-9]){short}(?![A-Za-z0-9'’])"


@lru_cache(maxsize=256)
def _forms(labels: tuple[str, ...]) -> tuple[dict[str, re.Pattern[str]], bool]:
    """Label -> what names it as a verdict, in readable text; and whether the labels are rankings."""
    nouns = "|".join(map(re.escape, sorted((*_NOUNS, *SCORE_WORDS), key=len, reverse=True)))
    verbs = "|".join(sorted(_VERBS, key=len, reverse=True))
    found = {}
    for label in labels:
        form = " ".join(_readable(label).split())
        short = form.rpartition(" ")[2]
        patterns = []
        if len(form) > 1 and not form.isdecimal():
            spaced = r"\s+".join(map(re.escape, form.split()))
            patterns.append(rf"(?i:(?<!\w){spaced}(?!\w))")
        if short.isdecimal() or (len(short) == 1 and short.isascii() and short.isalpha()):
            one = _alone(short)
            named = rf"(?i:(?:assistant|response|option)\s+)?{one}"
            patterns += [
                rf"(?:^|\n)[^\S\n]{{0,9}}[(\[]{{0,2}}{one}[)\].:。]{{0,3}}[^\S\n]{{0,9}}(?:\n|$)",
                rf"\[\[\s?{named}\s?\]\]",
                rf"(?i:\[result\]|<answer>)[\s:(\[]{{0,9}}{named}",
                rf"(?i:{nouns})[\s)\]]{{0,9}}(?:[:=→]|(?i:\b(?:is|was|of|would\s+be|should\s+be)\b))"
                rf"[\s(\[]{{0,9}}(?i:(?:a|an|the|is)\s+)?[(\[]{{0,2}}{named}",
                rf"(?i:\b(?:{verbs}))(?:\s{{1,3}}[^\W\d]{{1,30}}){{0,4}}\s{{1,3}}[(\[]{{0,2}}{named}[)\]\s]{{0,9}}(?:[.!。\n/]|$)",
                rf"{named}[)\]]{{0,2}}\s{{1,3}}(?i:(?:is|was)\s+(?:the\s+)?(?:better|best|winner|stronger|superior|correct|right"
                r"|preferred|preferable)|wins|won)\b",
            ]
            if not form.isdecimal():  # `the best is 5` may be of words, or of a response and not of a score
                patterns.append(
                    rf"(?i:\b(?:{_BETTER})(?:\s+(?:response|answer|assistant|option|candidate|one))?\s{{0,3}}"
                    rf"(?:[:=→]|\b(?:is|was|would\s+be|should\s+be)\b))[\s(\[]{{0,9}}{named}"
                )
        found[label] = re.compile("|".join(patterns)) if patterns else re.compile(r"(?!)")
    return found, bool(labels) and all(" > " in label for label in labels)


def refuse_lost_markup(front: str) -> None:
    """Chat tokens and channel names in front of the object: what is behind them may be another's turn.

    Raises:
        Ambiguous: where there are any.
    """
    found = _LOST_MARKUP.search(narrow(front))
    if found is not None:
        raise Ambiguous(f"chat markup stands in front of the object: {found[0].strip()[:40]!a}")


def refuse_other_verdict(front: str, score: str, labels: tuple[str, ...]) -> None:
    """Another legal label that is named as a verdict in front of the object.

    Raises:
        Ambiguous: where one is.
    """
    if not front.strip(BLANKS + MARKS):
        return
    text = _readable(front)
    forms, rankings = _forms(labels)
    if rankings:
        said = {legal(match[0], labels)[0] for match in _RANKING.finditer(_NAME.sub("", text))}
        other = next((label for label in labels if label in said and label != score), None)
    else:
        other = next((label for label in labels if label != score and forms[label].search(text)), None)
    if other is not None:
        raise Ambiguous(f"the text in front of the object names another score: {other!a}")
