"""Gold verdicts and gold traces, from the checkers' findings alone.

A trace numbers and names each criterion of the rubric in order (the number makes the next one a look-up in the
prompt), puts the evidence of each response beside the finding, and stops at the first criterion that decides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mr3.nano.checks import Finding, analyse
from mr3.nano.facts import Question
from mr3.nano.text import subject
from mr3.records import Mode

Findings = dict[str, Finding]


def _says(finding: Finding) -> str:
    return f"{finding.evidence} {'yes' if finding.met else 'no'}"


def _answer(trace: Sequence[str], explanation: str, score: str) -> tuple[str, str]:
    body = json.dumps({"explanation": explanation, "score": score}, ensure_ascii=False)
    return score, "<think>\n" + "\n".join(trace) + f"\n</think>\n{body}"


def _pairwise(question: Question, names: Sequence[str], found: list[Findings]) -> tuple[str, str]:
    trace = []
    for i, name in enumerate(names, start=1):
        a, b = found[0][name], found[1][name]
        verdict = "same" if a.met == b.met else ("A" if a.met else "B")
        trace.append(f"{i} {name}{subject(name, question)}: A {_says(a)}, B {_says(b)}: {verdict}")
        if verdict != "same":
            return _answer(trace, f"Assistant {verdict} is better: {name}", f"Assistant {verdict}")
    return _answer(trace, "They are the same.", "Tie")


def _binary(question: Question, names: Sequence[str], found: Findings) -> tuple[str, str]:
    trace = []
    for i, name in enumerate(names, start=1):
        trace.append(f"{i} {name}{subject(name, question)}: {_says(found[name])}")
        if not found[name].met:
            return _answer(trace, f"Not met: {name}", "false")
    return _answer(trace, "All criteria are met.", "true")


def _pointwise(question: Question, names: Sequence[str], found: Findings) -> tuple[str, str]:
    trace, left = [], 5
    for i, name in enumerate(names, start=1):
        step = 0 if found[name].met else 1
        trace.append(f"{i} {name}{subject(name, question)}: {_says(found[name])}: {left} - {step} = {left - step}")
        left -= step
    return _answer(trace, f"{left} of 5", str(left))


def gold(mode: Mode, question: Question, names: Sequence[str], responses: Sequence[str]) -> tuple[str, str]:
    """The right score and the completion that a perfect judge would write."""
    found = [analyse(question.language, question.reference, text) for text in responses]
    if mode == "pairwise":
        return _pairwise(question, names, found)
    if mode == "binary":
        return _binary(question, names, found[0])
    return _pointwise(question, names, found[0])


def score(mode: Mode, question: Question, names: Sequence[str], responses: Sequence[str]) -> str:
    """The right score."""
    return gold(mode, question, names, responses)[0]
