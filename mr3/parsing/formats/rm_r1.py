"""RM-R1: a rubric or a solution and an `<eval>` in tags, then `<answer>[[A]]</answer>` or `<answer>[[B]]</answer>`.

Source: arXiv 2505.02387, figure 3, and the prompts of its public code (github.com/RM-R1-UIUC/RM-R1). The distilled
variants think in `<think>` tags first, the instruct variants do not. Pairs only; there is no tie.

The verdict is read from the one `<answer>` behind the trace, and only if it ends the text. Their own evaluation asks
whether `[[A]]` stands anywhere, so that any mention of it in the reasoning wins. Not run against the published weights.
"""

from __future__ import annotations

import re

from mr3.parsing.formats.base import Format, split_trace
from mr3.parsing.parsed import Parsed, encodable, failed, off_scale
from mr3.parsing.plain import EDGES, plain, without_end_tokens
from mr3.parsing.scores import side
from mr3.records import Outcome

_ANSWER, _END = "<answer>", "</answer>"
_EVAL = re.compile(r"<eval>(.*)</eval>", re.DOTALL)


def _read(text: str, labels: tuple[str, ...]) -> Parsed:
    trace, answer = split_trace(text)
    answer = without_end_tokens(answer)
    before, opened, rest = answer.rpartition(_ANSWER)
    evaluation = _EVAL.search(before) if before.count("<eval>") == 1 else None
    explanation = encodable(evaluation[1].strip()) if evaluation else None
    if not opened or not rest.endswith(_END):
        return failed(f"no {_ANSWER} closed with {_END} ends the answer", trace, explanation)
    if _ANSWER in before or answer.count(_END) != 1:
        return failed(f"the answer has more than one {_ANSWER}", trace, explanation)
    value = rest.removesuffix(_END)
    choice = plain(value)
    score = side(choice == "a", labels) if choice in ("a", "b") else None
    if score is None:
        return off_scale(value.strip(EDGES), labels, trace, explanation)
    return Parsed(Outcome.OK, score, explanation, trace, repaired=value != f"[[{choice.upper()}]]")


FORMAT = Format("rm-r1", _read, ("pairwise",))
