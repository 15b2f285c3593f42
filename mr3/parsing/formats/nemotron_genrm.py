r"""NVIDIA Llama-3.3-Nemotron-Super GenRM: `\boxed{}` scores between `[The Begin of ...]` and `[The End of ...]` lines.

Source: arXiv 2505.11475, the model cards of `nvidia/Llama-3_3-Nemotron-Super-49B-GenRM` and `-Multilingual`, and the
prompt in NVIDIA's NeMo-RL code. One response: `Individual Scores` with `\boxed{x}`, helpfulness 1-5. Two responses:
`Individual Scores` with `\boxed{x, y}`, then `Ranking Score` with `\boxed{z}` from 1 (the first is much better) to 6
(the second is much better); there is no tie.

The ranking is the verdict of a pair: 1-3 are the first side, 4-6 the second. With the labels 1-6 it is kept as it is;
with HelpSteer3's 1-7 (4 = equal) 4, 5, 6 become 5, 6, 7. The individual scores don't change it. Analyses may quote
anything: only the one section that ends the text is read. Not run against the published weights.
"""

from __future__ import annotations

import re

from mr3.parsing.formats.base import Format, split_trace
from mr3.parsing.parsed import Parsed, encodable, failed, off_scale
from mr3.parsing.plain import EDGES, plain, without_end_tokens
from mr3.parsing.scores import Number, legal, side
from mr3.records import Outcome

_BOX = re.compile(r"\s*+(?:\$\s*+)?\\boxed\{([^{}]*)\}\s*+(?:\$\s*+)?")
_SIX = tuple("123456")
_SEVEN = tuple("1234567")


def _section(answer: str, name: str) -> tuple[str, str] | None:
    """What stands before the one section of a name that ends the text, and its boxed value.

    None where the section is not there once, not closed, not last, or holds anything but one box.
    """
    begin, end = f"[The Begin of {name}]", f"[The End of {name}]"
    if answer.count(begin) != 1 or answer.count(end) != 1 or not answer.endswith(end):
        return None
    before, _, inside = answer.removesuffix(end).partition(begin)
    box = _BOX.fullmatch(inside)
    return (before, box[1]) if box else None


def _of_pair(ranking: str, labels: tuple[str, ...]) -> str | None:
    """The label of a ranking from 1 to 6."""
    if ranking not in _SIX:
        return None
    if labels == _SIX:
        return ranking
    if labels == _SEVEN:
        return ranking if ranking <= "3" else str(int(ranking) + 1)
    return side(ranking <= "3", labels)


def _read(text: str, labels: tuple[str, ...]) -> Parsed:
    trace, answer = split_trace(text)
    answer = without_end_tokens(answer)
    pair = "[The Begin of Ranking Score]" in answer
    found = _section(answer, "Ranking Score" if pair else "Individual Scores")
    if found is None:
        name = "Ranking Score" if pair else "Individual Scores"
        return failed(f"no closed section {name} with one \\boxed{{}} ends the answer", trace)
    explanation, value = encodable(found[0].strip()), found[1]
    form = plain(value)
    score = _of_pair(form, labels) if pair else legal(Number(value.strip(EDGES)), labels)[0]
    if score is None:
        return off_scale(value.strip(), labels, trace, explanation)
    return Parsed(Outcome.OK, score, explanation, trace, repaired=value.strip() != form)


FORMAT = Format("nemotron-genrm", _read, ("pointwise", "pairwise"))
