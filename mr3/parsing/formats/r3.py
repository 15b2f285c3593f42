"""R3: `<think> trace </think>` and a JSON object whose score is an integer, a boolean, or `Response 1` / `Response 2`.

Source: arXiv 2505.13388 and the response schemas and SFT targets of its public code (github.com/rubricreward/r3). The
Qwen3 variants think in tags that they open themselves or find in the prompt; an answer without any tag is read only if
it is the object and nothing else, because in prose without tags no one can tell a trace from an answer.

Not run against the published weights. Their own evaluation takes the first `score:` anywhere in the text; this reader
does not, so failure rates differ.
"""

from __future__ import annotations

from mr3.parsing.formats.base import Format, trace_of
from mr3.parsing.objects import is_object, read_object
from mr3.parsing.parsed import CLOSE, OPEN, Parsed, failed
from mr3.parsing.scores import side


def _read(text: str, labels: tuple[str, ...]) -> Parsed:
    aliases = {"response 1": side(True, labels), "response 2": side(False, labels)}
    _, closed, answer = text.partition(CLOSE)
    if closed and not is_object(text):  # an explanation may quote the tag
        return read_object(answer, labels, trace_of(text), typed=True, aliases=aliases)
    if text.lstrip().startswith(OPEN):
        return failed(f"the trace was never closed with {CLOSE}")
    return read_object(text, labels, None, lead=False, typed=True, aliases=aliases)


FORMAT = Format("r3", _read, ("pointwise", "pairwise", "binary"))
