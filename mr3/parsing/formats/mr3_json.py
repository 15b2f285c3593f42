"""mR3: the trace, `</think>`, then one JSON object with `explanation` and `score`, both strings.

Source: the response format in the prompts of the published code, and the model cards of `rubricreward/mR3-Qwen3-*`. The
assistant prefix ends in `<think>`, so the text begins inside the trace. A score is taken from the top level of the one
closed final object and from nowhere else.
"""

from __future__ import annotations

from mr3.parsing.formats.base import Format
from mr3.parsing.objects import read_object
from mr3.parsing.parsed import CLOSE, Parsed, encodable, failed


def _read(text: str, labels: tuple[str, ...]) -> Parsed:
    trace, closed, answer = text.partition(CLOSE)
    trace = encodable(trace.strip())
    if not closed:
        return failed(f"the trace was never closed with {CLOSE}", trace)
    return read_object(answer, labels, trace)


FORMAT = Format("mr3", _read, ("pointwise", "pairwise", "binary", "listwise", "choice"), has_odds=True)
