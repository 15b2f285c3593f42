"""Prometheus 2: `Feedback: ... [RESULT] 4` for one response, `... [RESULT] A` for two.

Source: arXiv 2405.01535 and the prompts and parser of github.com/prometheus-eval/prometheus-eval. Their parser loses
`[RESULT] 4.`, `[RESULT] **4**`, a translated tag and full-width digits (their issue 76), and reads `score of 3` in the
middle of a feedback as the verdict. Here the tag must come exactly once, and the score is all that follows it.

Translated tags that are read stand in `_TAGS`. `[SCORE]` and bare `Score:` are not tags here: feedback uses such words.
Not run against the published weights.
"""

from __future__ import annotations

import re

from mr3.parsing.formats.base import Format, split_trace
from mr3.parsing.parsed import Parsed, encodable, failed, off_scale
from mr3.parsing.plain import BLANKS, MARKS, plain, without_end_tokens
from mr3.parsing.scores import legal, side
from mr3.records import Outcome

_TAGS = """result|results|ergebnis|resultado|résultat|resultat|risultato|rezultat|resultaat|wynik|výsledek|výsledok|
eredmény|tulos|sonuç|результат|αποτέλεσμα|結果|结果|결과|النتيجة|نتیجه|نتیجہ|תוצאה|परिणाम|ফলাফল|ผลลัพธ์|kết quả|hasil|
matokeo""".replace("\n", "")
_TAG = re.compile(rf"[\[［【]\s*(?:{_TAGS})\s*[\]］】]", re.IGNORECASE)
_AROUND_TAG = BLANKS + MARKS + "*_:："
_LONGEST_SCORE = 40


def _read(text: str, labels: tuple[str, ...]) -> Parsed:
    trace, answer = split_trace(text)
    answer = without_end_tokens(answer)
    tags = list(_TAG.finditer(answer))
    if len(tags) != 1:
        reason = "the answer has no [RESULT]" if not tags else "the answer has more than one [RESULT]"
        return failed(reason, trace)
    tag = tags[0]
    feedback = answer[: tag.start()].rstrip(_AROUND_TAG).lstrip(BLANKS + MARKS)
    explanation = encodable(feedback.removeprefix("Feedback:").strip())
    behind = answer[tag.end() :].strip(BLANKS)
    value = behind.strip(_AROUND_TAG)
    if len(value) > _LONGEST_SCORE or "\n" in value:
        return failed("more than a score follows [RESULT]", trace, explanation)
    if not value:
        return failed("nothing follows [RESULT]", trace, explanation)
    score, mended = legal(value, labels)
    if score is None:
        choice = plain(value).removeprefix("response ")
        score, mended = (side(choice == "a", labels), value != choice.upper()) if choice in ("a", "b") else (None, True)
    if score is None:
        return off_scale(value, labels, trace, explanation)
    return Parsed(Outcome.OK, score, explanation, trace, mended or value != behind or tag[0] != "[RESULT]")


FORMAT = Format("prometheus", _read, ("pointwise", "pairwise"))
