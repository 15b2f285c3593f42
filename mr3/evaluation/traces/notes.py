"""One trace looked at, and what many of them come to, per language of the trace."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mr3.evaluation.traces.conclusion import conclusion, phrases
from mr3.evaluation.traces.mentions import mentioned
from mr3.evaluation.traces.repetition import degenerate, repeated_share, says_again
from mr3.families import find_family
from mr3.judge_card import JudgeCard
from mr3.judging.scale import mirrored
from mr3.languages.codes import base_code
from mr3.languages.identify import LanguageShare, share_in
from mr3.prompts import languages_of
from mr3.records import Task, Verdict
from mr3.stats import Rate, rate

IN_LANGUAGE = 0.5
"""A trace is in a language when so much of it is: it may quote the responses in theirs."""


@dataclass(frozen=True, slots=True)
class TraceNotes:
    """What one trace shows. None where there is nothing to look at, or nothing can be told."""

    language: str
    """In which language the judge was made to think."""
    forced: bool
    concludes: str | None
    """The label it concludes with, A and B in their true order."""
    agrees: bool | None
    degenerate: bool
    says_again: bool | None
    """Whether a forced trace says its forcing sentence again."""
    named: int | None
    criteria: int | None
    in_language: LanguageShare
    """How much of it is in that language, as an identifier reads it."""
    repeated: float | None
    """The share of it that stood in it before; None for a short one."""


class TraceReader:
    """Looks at traces of one judge.

    Args:
        card: its strategy says in which language it thinks, its prompts hold the forcing sentence.
    """

    def __init__(self, card: JudgeCard) -> None:
        self._strategy = card.strategy
        self._render = card.renderer() if card.strategy.startswith("tgt-tgt") else None
        self._forcing: dict[str, str] = {}

    def _forcing_sentence(self, task: Task, language: str) -> str:
        """What the prompt puts behind `<think>`; it depends on the thinking language alone."""
        if self._render is None:
            return ""
        if language not in self._forcing:
            self._forcing[language] = self._render(task).assistant_prefix.removeprefix("<think>").strip()
        return self._forcing[language]

    def read(self, task: Task, verdict: Verdict) -> TraceNotes | None:
        """The notes on one verdict's trace; None where it has none."""
        trace = verdict.trace
        if not trace:
            return None
        family = None if task.family is None else find_family(task.family)
        language = languages_of(self._strategy, task.language, family).thinking
        sentence = self._forcing_sentence(task, language)
        found = conclusion(trace, task.labels, language)
        if found is not None and verdict.swapped:
            found = mirrored(task.labels)[found]
        rubric = task.rubric
        looked_at = rubric.criteria and base_code(rubric.language) == base_code(language)
        named, criteria = mentioned(rubric, trace) if looked_at else (None, None)
        return TraceNotes(
            language=base_code(language),
            forced=bool(sentence),
            concludes=found,
            agrees=found == verdict.score if found is not None and verdict.score is not None else None,
            degenerate=degenerate(trace),
            says_again=says_again(trace, sentence) if sentence else None,
            named=named,
            criteria=criteria,
            in_language=share_in(trace, language),
            repeated=repeated_share(trace),
        )


def _conclusions(notes: Sequence[TraceNotes]) -> dict[str, Rate]:
    return {
        "coverage": rate(n.concludes is not None for n in notes),
        "agrees": rate(n.agrees for n in notes if n.agrees is not None),
    }


def _in_language(notes: Sequence[TraceNotes]) -> dict[str, Any]:
    """The rate over the traces that an identifier could tell the language of; no rate where there is none."""
    shares = [n.in_language.share for n in notes if n.in_language.share is not None]
    reasons = Counter(n.in_language.reason for n in notes if n.in_language.reason is not None)
    found: dict[str, Any] = {**rate(share >= IN_LANGUAGE for share in shares), "not_checked": dict(reasons)}
    if not shares:
        found["reason"] = f"no trace could be checked: {', '.join(sorted(map(str, reasons)))}"
    return found


def _repetition(notes: Sequence[TraceNotes]) -> dict[str, Any]:
    known = [n.repeated for n in notes if n.repeated is not None]
    share: dict[str, Any] = {"value": sum(known) / len(known) if known else None, "n": len(known)}
    if not known:
        share["reason"] = "every trace is too short"
    return {"degenerate": rate(n.degenerate for n in notes), "mean_repeated_share": share}


def trace_metrics(notes: Iterable[TraceNotes | None]) -> dict[str, Any]:
    """Rates over verdicts with a trace; empty where there is none.

    `conclusion`: `agrees` is over the traces whose conclusion can be read and whose verdict has a score; `coverage`
    is how many could be read. `in_named_language` is the share of traces of which at least half is in the language that
    the strategy names, over those that can be told; the others are `not_checked`, by reason. `degenerate` is over all
    traces (of truncated verdicts too, which is where loops end), `repetition` the same with the mean share of a trace
    that stood in it before; `forced` over those with a forcing sentence. `criteria` is over rubrics with named criteria
    in the trace's language: `not_mentioned` of all criteria, and the traces that name `all`.
    """
    seen = [n for n in notes if n is not None]
    if not seen:
        return {}
    by_language: dict[str, list[TraceNotes]] = defaultdict(list)
    for n in seen:
        by_language[n.language].append(n)
    found: dict[str, Any] = {
        "traces": len(seen),
        "conclusion": {
            **_conclusions(seen),
            "by_language": {code: _conclusions(rows) for code, rows in sorted(by_language.items())},
            "languages_without_phrases": sorted(by_language.keys() - phrases().keys()),
        },
        "in_named_language": {
            **_in_language(seen),
            "by_language": {code: _in_language(rows) for code, rows in sorted(by_language.items())},
        },
        "degenerate": rate(n.degenerate for n in seen),
        "repetition": {
            **_repetition(seen),
            "by_language": {code: _repetition(rows) for code, rows in sorted(by_language.items())},
        },
    }
    forced = [n for n in seen if n.forced]
    if forced:
        found["forced"] = {
            "degenerate": rate(n.degenerate for n in forced),
            "says_forcing_sentence_again": rate(bool(n.says_again) for n in forced),
            "by_language": {
                code: rate(n.degenerate or bool(n.says_again) for n in rows if n.forced)
                for code, rows in sorted(by_language.items())
            },
        }
    with_criteria = [n for n in seen if n.criteria is not None]
    if with_criteria:
        unnamed = [k >= (n.named or 0) for n in with_criteria for k in range(n.criteria or 0)]
        found["criteria"] = {
            "not_mentioned": rate(unnamed),
            "all_mentioned": rate(n.named == n.criteria for n in with_criteria),
        }
    return found
