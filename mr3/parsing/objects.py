"""The answer as one JSON object with `explanation` and `score`: what mR3 and R3 judges write."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mr3.parsing.front import refuse_lost_markup, refuse_other_verdict
from mr3.parsing.keys import meaning, unique
from mr3.parsing.parsed import Ambiguous, Parsed, encodable, failed, off_scale
from mr3.parsing.plain import plain, without_end_tokens
from mr3.parsing.repairs import mend
from mr3.parsing.scores import Number, legal
from mr3.records import Outcome

_CLEAN = {"explanation", "score"}
_STRICT = json.JSONDecoder(object_pairs_hook=unique, parse_int=Number, parse_float=Number, parse_constant=Number)


# Keys that could hold a verdict beside the asked one.
_RIVAL = re.compile(r"score|rating|verdict|winner|result|final|answer|label|choice|preference|judge?ment|decision")


def _strict(text: str) -> dict[str, Any] | None:
    """The text as one clean JSON object, or None."""
    try:
        value = _STRICT.decode(text)
    except Ambiguous:
        raise
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse_inner_scores(found: Mapping[str, Any]) -> None:
    """Scores below the top level compete with the one above them, whatever they are scores of."""
    open_values = [value for value in found.values() if isinstance(value, dict | list)]
    while open_values:
        value = open_values.pop()
        inside = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict) and any(meaning(key) == "score" for key in value):
            raise Ambiguous("there is a score inside another value")
        open_values += [item for item in inside if isinstance(item, dict | list)]


def _canonical(found: Mapping[str, Any]) -> dict[str, Any]:
    """The object with its keys in English; other keys are dropped."""
    _refuse_inner_scores(found)
    result: dict[str, Any] = {}
    for key, value in found.items():
        name = meaning(key)
        if name is None:
            continue
        if name in result:
            raise Ambiguous(f"the answer has two keys that mean {name}")
        result[name] = value
    return result


def _rival(found: Mapping[str, Any], score: str, labels: tuple[str, ...]) -> str | None:
    """A further key that gives another legal score under a name for one."""
    for key, value in found.items():
        if meaning(key) is None and isinstance(value, str | bool) and _RIVAL.search(key.casefold()):
            other = legal(value, labels)[0]
            if other is not None and other != score:
                return key
    return None


def is_object(text: str) -> bool:
    """Whether the whole text is one clean JSON object.

    Raises:
        Ambiguous: when a key of it comes twice.
    """
    return _strict(text) is not None


def read_object(
    answer: str,
    labels: tuple[str, ...],
    trace: str | None,
    *,
    lead: bool = True,
    typed: bool = False,
    aliases: Mapping[str, str | None] | None = None,
) -> Parsed:
    """Read an answer that should be one JSON object.

    Args:
        answer: all that stands behind the trace.
        labels: the legal scores.
        trace: kept in the result.
        lead: prose in front of the object is repaired.
        typed: the format writes numbers and booleans, so these are no repair.
        aliases: other names of labels that the format uses, in plain form.

    Raises:
        Ambiguous: when it can be read in more than one way.
    """
    found = _strict(answer)
    repaired, front = False, ""
    if found is None or found.keys() != _CLEAN or type(found["explanation"]) is not str:
        repaired = True
        if found is None:
            front, found = without_end_tokens(answer).partition("{")[0], mend(answer, lead=lead)
        if found is None:
            return failed("no closed JSON object ends the answer", trace)
        refuse_lost_markup(front)
        written, found = found, _canonical(found)
    else:
        written = found
    explanation = found.get("explanation")
    explanation = encodable(explanation) if isinstance(explanation, str) else None
    value = found.get("score")
    if not isinstance(value, str | bool):
        reason = "the answer has no score" if value is None else f"the score is a {type(value).__name__}"
        return failed(reason, trace, explanation)
    score, mended = legal(value, labels, typed=typed)
    if score is None and aliases is not None:
        score, mended = aliases.get(plain(str(value))), False
    if score is None:
        return off_scale(value, labels, trace, explanation)
    rival = _rival(written, score, labels) if len(written) > len(found) else None
    if rival is not None:
        return failed(f"the key {encodable(rival)!r} gives another score", trace, explanation)
    refuse_other_verdict(front, score, labels)
    return Parsed(Outcome.OK, score, explanation, trace, repaired or mended)
