"""What reading one completion comes to, and the failures that need no reading at all."""

from __future__ import annotations

from dataclasses import dataclass

from mr3.records import Outcome

OPEN, CLOSE = "<think>", "</think>"

_UNREAD = {
    "too_long": (Outcome.TOO_LONG, "the prompt is over the judge's limit"),
    "timed_out": (Outcome.TIMED_OUT, "the engine gave no answer in time"),
    "failed": (Outcome.ENGINE_FAILED, "the engine failed"),
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one completion says; `score` is set exactly when the outcome is `ok`."""

    outcome: Outcome
    score: str | None = None
    explanation: str | None = None
    trace: str | None = None
    repaired: bool = False
    reason: str | None = None


class Ambiguous(ValueError):
    """The answer can be read in more than one way."""


def encodable(text: str) -> str:
    """The text without lone surrogates, which no file takes (JSON escapes can spell them)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def failed(reason: str, trace: str | None = None, explanation: str | None = None) -> Parsed:
    """An answer without one readable score."""
    return Parsed(Outcome.PARSE_FAILED, explanation=explanation, trace=trace, reason=reason)


def off_scale(value: object, labels: tuple[str, ...], trace: str | None, explanation: str | None) -> Parsed:
    """A readable score that is none of the labels; list-wise tasks have too many labels to name them all."""
    known = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    reason = f"score {encodable(str(value)[:40])!r} is none of {known}"
    return Parsed(Outcome.OFF_SCALE, explanation=explanation, trace=trace, reason=reason)


def unfinished(text: str, finish: str) -> Parsed | None:
    """The failure that the engine's finish reason says, or None for `stop`.

    A cut answer is `truncated` whatever its text holds; a finish reason that is not known is a failure of the engine,
    because an answer that was stopped by a filter may look whole.
    """
    if finish == "stop":
        return None
    if finish == "length":
        trace, closed, _ = text.partition(CLOSE)
        where = "in the answer" if closed else "before the answer"
        reason = f"cut off {where}: it reached max_tokens"
        return Parsed(Outcome.TRUNCATED, trace=encodable(trace.strip()), reason=reason)
    if finish in _UNREAD:
        outcome, reason = _UNREAD[finish]
        return Parsed(outcome, reason=reason)
    return Parsed(Outcome.ENGINE_FAILED, reason=f"finish reason {finish!r} is none that an engine may give")
