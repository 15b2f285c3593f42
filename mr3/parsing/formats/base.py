"""The interface of a judge's answer format, and what formats with an optional trace share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mr3.parsing.parsed import CLOSE, OPEN, Ambiguous, Parsed, encodable, failed, unfinished

Reader = Callable[[str, tuple[str, ...]], Parsed]


@dataclass(frozen=True, slots=True)
class Format:
    """How one family of judges writes its verdicts.

    Attributes:
        name: what a judge's card calls it.
        read: text of a finished completion and labels -> what it says; may raise Ambiguous.
        modes: what such judges can be asked.
        has_odds: the score stands in a JSON string under `"score"`, so the logprobs of its tokens can be read
            (mr3.judging.expected); judges of other formats must not be asked for logprobs.
    """

    name: str
    read: Reader
    modes: tuple[str, ...]
    has_odds: bool = False

    def parse(self, text: str, labels: Sequence[str], finish: str) -> Parsed:
        """Read one completion.

        Args:
            text: what the model wrote, after the assistant prefix if it has one.
            labels: the legal scores.
            finish: the engine's finish reason: `stop`, `length`, `too_long`, `timed_out` or `failed`.

        Returns:
            Outcome `truncated` for `length` whatever the text holds (a cut answer is never repaired), `too_long`,
            `timed_out` and `engine_failed` as the engine said, `off_scale` for a readable score that is no label, else
            `ok` or `parse_failed`. Never raises on any text.
        """
        stopped = unfinished(text, finish)
        if stopped is not None:
            return stopped
        try:
            return self.read(text, tuple(labels))
        except Ambiguous as error:
            return failed(str(error), trace_of(text))


def trace_of(text: str) -> str | None:
    """What stands before the first `</think>`; None where there is none."""
    trace, closed, _ = text.partition(CLOSE)
    return encodable(trace.strip().removeprefix(OPEN).strip()) if closed else None


def split_trace(text: str) -> tuple[str | None, str]:
    """Trace and answer of a judge that may or may not think in tags; without tags the trace is None.

    Raises:
        Ambiguous: when the trace was never closed, or opened or closed a second time.
    """
    trace, closed, answer = text.partition(CLOSE)
    if not closed:
        if OPEN in text:
            raise Ambiguous(f"the trace was never closed with {CLOSE}")
        return None, text
    if OPEN in answer or CLOSE in answer:
        raise Ambiguous("the trace was opened or closed a second time")
    return trace_of(f"{trace}{CLOSE}"), answer
