"""From a judge's raw completion to a score, or to a named failure: the only place where a score comes into being.

The text is what follows the assistant prefix `<think>`: trace, `</think>`, and one JSON object with `explanation`
and `score`. A score is taken from the top level of that one closed final object and from nowhere else, so neither
a mention in the trace, a quoted verdict in the explanation nor a cut-off answer can become one. Slips of form
(a code fence, `4` for `"4"`, full-width digits, a translated key) are repaired and marked; anything
ambiguous is a failure.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mr3.records import Outcome

CLOSE = "</think>"
Pairs = list[tuple[Any, Any]]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keys that judges thinking in another language were given to translate although they should not.
_SCORE_KEYS = _words(
    """score スコア 得点 点数 評価 评分 分数 得分 評分 점수 оценка балл оцінка puntuación puntaje calificación punteggio
    bewertung punktzahl note pontuação nota skor puan nilai điểm คะแนน स्कोर अंक الدرجة النتيجة βαθμολογία alama"""
)
_EXPLANATION_KEYS = _words(
    """explanation 説明 解説 解释 說明 说明 설명 объяснение пояснення explicación spiegazione erklärung explication
    explicação penjelasan açıklama maelezo व्याख्या الشرح εξήγηση"""
)
_END_TOKENS = ("<|im_end|>", "<|endoftext|>")
_TRAILING_COMMA = re.compile(r",(\s*\}\s*)\Z")
_LOOSE = re.compile(
    r'\A\{\s*"explanation"\s*:\s*"(?P<explanation>.*)"\s*,\s*"score"\s*:\s*"(?P<score>[^"]*)"\s*\}\Z', re.DOTALL
)
_DECORATION = " \t\r\n*_`'\"“”「」[]()"


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one completion says; `score` is set exactly when the outcome is `ok`."""

    outcome: Outcome
    score: str | None = None
    explanation: str | None = None
    trace: str | None = None
    repaired: bool = False
    reason: str | None = None


class _Ambiguous(ValueError):
    """The answer can be read in more than one way."""


def _unique(pairs: Pairs) -> Pairs:
    """Key and value pairs, refused when a key comes twice (JSON readers would silently take the last)."""
    keys = [k for k, _ in pairs]
    if len(set(map(str, keys))) != len(keys):
        raise _Ambiguous("a key of the answer comes twice")
    return pairs


def _object(text: str, *, strict: bool) -> dict[Any, Any] | None:
    """The text as one JSON object, or None."""
    try:
        value = json.loads(text, strict=strict, object_pairs_hook=lambda pairs: dict(_unique(pairs)))
    except _Ambiguous:
        raise
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _python_dict(text: str) -> dict[Any, Any] | None:
    """The text as a Python dict of literals (the published prompts print their schema so), or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            node = ast.parse(text, mode="eval").body
            if not isinstance(node, ast.Dict) or None in node.keys:
                return None
            keys = [ast.literal_eval(k) for k in node.keys if k is not None]
            values = [ast.literal_eval(v) for v in node.values]
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
    return dict(_unique(list(zip(keys, values, strict=True))))


def _loose(text: str) -> dict[Any, Any] | None:
    """An object whose explanation holds unescaped quotes; only if nothing else in it looks like a score."""
    match = _LOOSE.match(text)
    if match is None or text.count('"score"') != 1:
        return None
    return match.groupdict()


def _without_end_tokens(answer: str) -> str:
    """The answer without end-of-turn tokens that an engine left in (no pattern: answers can be endless blanks)."""
    text = answer.strip()
    while text.endswith(_END_TOKENS):
        text = text.removesuffix(_END_TOKENS[0]).removesuffix(_END_TOKENS[1]).rstrip()
    return text


def _mend(answer: str) -> dict[Any, Any] | None:
    """The object of an answer that is not clean JSON. It must still be closed and final."""
    text = _without_end_tokens(answer)
    start = text.find("{")
    if start > 0:  # prose or an opening fence in front; any text behind the object makes it not final
        text = text[start:].removesuffix("```").rstrip() if "```" in text[:start] else text[start:]
    if not (text.startswith("{") and text.endswith("}")):
        return None
    for attempt in (text, _TRAILING_COMMA.sub(r"\1", text)):
        found = _object(attempt, strict=False)
        if found is not None:
            return found
    return _python_dict(text) or _loose(text)


def _canonical(found: dict[Any, Any]) -> dict[str, Any]:
    """The object with its keys in English; other keys are dropped."""
    result: dict[str, Any] = {}
    for key, value in found.items():
        word = unicodedata.normalize("NFKC", str(key)).strip(" :*_").casefold()
        name = "score" if word in _SCORE_KEYS else "explanation" if word in _EXPLANATION_KEYS else None
        if name is None:
            continue
        if name in result:
            raise _Ambiguous(f"the answer has two keys that mean {name}")
        result[name] = value
    return result


def _plain(value: str) -> str:
    """A score without decoration: NFKC, any script's digits as ASCII, no markdown, no final stop."""
    text = unicodedata.normalize("NFKC", value).strip(_DECORATION).rstrip(".。।").strip(_DECORATION)
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text).casefold()


def _legal(value: Any, labels: Sequence[str]) -> tuple[str | None, bool]:
    """The label that a score value means and whether reading it took a repair; None if it means none."""
    if isinstance(value, str) and value in labels:
        return value, False
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, float) and value.is_integer():
        value = str(int(value))
    plain = _plain(str(value))
    matches = [label for label in labels if _plain(label) == plain]
    return (matches[0], True) if len(matches) == 1 else (None, True)


def _encodable(text: str) -> str:
    """JSON escapes can spell lone surrogates, which no file takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _judgement(answer: str, labels: Sequence[str], trace: str) -> Parsed:
    found = _object(answer, strict=True)
    repaired = False
    if found is None or found.keys() != {"explanation", "score"}:
        found = found if found is not None else _mend(answer)
        repaired = True
        if found is None:
            return Parsed(Outcome.PARSE_FAILED, trace=trace, reason="no closed JSON object ends the answer")
        found = _canonical(found)
    explanation = found.get("explanation")
    if isinstance(explanation, str):
        explanation = _encodable(explanation)
    else:
        explanation, repaired = None, True
    value = found.get("score")
    if not isinstance(value, str | int | float):
        reason = "the answer has no score" if value is None else f"the score is a {type(value).__name__}"
        return Parsed(Outcome.PARSE_FAILED, explanation=explanation, trace=trace, reason=reason)
    score, mended = _legal(value, labels)
    if score is None:
        shown = _encodable(str(value)[:40])
        reason = f"score {shown!r} is none of {', '.join(labels)}"
        return Parsed(Outcome.OFF_SCALE, explanation=explanation, trace=trace, reason=reason)
    return Parsed(Outcome.OK, score, explanation, trace, repaired or mended)


def parse(text: str, labels: Sequence[str], finish: str) -> Parsed:
    """Read one completion.

    Args:
        text: what the model wrote after the assistant prefix `<think>`.
        labels: the legal scores.
        finish: the engine's finish reason: `stop`, `length`, `too_long`, `timed_out` or `failed`.

    Returns:
        Outcome `truncated` for `length` whatever the text holds (a cut answer is never repaired), `too_long`,
        `timed_out` and `engine_failed` as the engine said, `off_scale` for a readable score that is no label, else `ok`
        or `parse_failed`. Never raises on any text.
    """
    if finish == "too_long":
        return Parsed(Outcome.TOO_LONG, reason="the prompt is over the judge's limit")
    if finish == "timed_out":
        return Parsed(Outcome.TIMED_OUT, reason="the engine gave no answer in time")
    if finish == "failed":
        return Parsed(Outcome.ENGINE_FAILED, reason="the engine failed")
    trace, closed, answer = text.partition(CLOSE)
    trace = trace.strip()
    if finish == "length":
        reason = "cut off in the answer" if closed else "cut off in the trace"
        return Parsed(Outcome.TRUNCATED, trace=trace, reason=f"{reason}: it reached max_tokens")
    if not closed:
        return Parsed(Outcome.PARSE_FAILED, trace=trace, reason=f"the trace was never closed with {CLOSE}")
    try:
        return _judgement(answer, labels, trace)
    except _Ambiguous as error:
        return Parsed(Outcome.PARSE_FAILED, trace=trace, reason=str(error))
