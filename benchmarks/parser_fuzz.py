"""The parser against an oracle written apart from it: mutated verdicts of all formats, with what each still says.

Counted: invented scores (one came out where none may, or another than the written one), lost ones (a documented
repair was not made), and mistyped results (another outcome than documented, a repair that is not marked or none that
is, text that no file takes, an exception). Then parsers with a planted bug must each be caught inventing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.verdict_mutations import Case, cases
from mr3.parsing import FORMATS, Parsed
from mr3.records import Outcome

MUTATIONS = 20_000
SEED = 20_251_002
Parser = Callable[[str, str, Sequence[str], str], Parsed]
"""Format name, text, labels, finish reason -> what it says."""


def parser(name: str, text: str, labels: Sequence[str], finish: str) -> Parsed:
    """The parser under test."""
    return FORMATS[name].parse(text, labels, finish)


@dataclass
class Report:
    """What a parser did with the cases: kinds and their counts, and the first examples of each fault."""

    cases: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    invented: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    mistyped: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, Case, object]] = field(default_factory=list)

    def fault(self, kind: str, case: Case, got: object) -> None:
        """Count one fault; three examples of each are kept."""
        counter: Counter[str] = getattr(self, kind)
        counter[case.kind] += 1
        if counter[case.kind] <= 3:
            self.examples.append((kind, case, got))


def examine(case: Case, read: Parser, report: Report) -> None:
    """Read one case and count it."""
    report.cases[case.kind] += 1
    try:
        got = read(case.format, case.text, case.labels, case.finish)
    except Exception as error:  # any exception is the finding
        report.fault("mistyped", case, error)
        return
    report.outcomes[got.outcome] += 1
    scored = got.outcome is Outcome.OK
    if got.score is not None and got.score != case.truth:
        report.fault("invented", case, got)
    elif case.must and not scored:
        report.fault("lost", case, got)
    elif (
        (got.score is not None) != scored
        or (got.reason is None) != scored
        or (case.outcome is not None and got.outcome != case.outcome)
        or (scored and case.repaired is not None and got.repaired != case.repaired)
        or not _fits_a_file(got)
    ):
        report.fault("mistyped", case, got)


def _fits_a_file(got: Parsed) -> bool:
    try:
        f"{got.explanation}{got.trace}{got.reason}".encode()
    except UnicodeEncodeError:
        return False
    return True


def fuzz(mutations: Iterable[Case], read: Parser = parser) -> Report:
    """All cases through one parser."""
    report = Report()
    for case in mutations:
        examine(case, read, report)
    return report


def first_match_wins(name: str, text: str, labels: Sequence[str], finish: str) -> Parsed:
    """Planted bug: the first thing that looks like a score, wherever it stands."""
    match = re.search(r'"score"\s*:\s*"([^"]*)"', text) if finish == "stop" else None
    if match and match[1] in labels:
        return Parsed(Outcome.OK, match[1])
    return parser(name, text, labels, finish)


def cut_answers_are_closed(name: str, text: str, labels: Sequence[str], finish: str) -> Parsed:
    """Planted bug: a truncated answer is completed until it can be read."""
    if finish == "length":
        for tail in ("", '"', '"}', "}"):
            found = parser(name, text + tail, labels, "stop")
            if found.outcome is Outcome.OK:
                return found
    return parser(name, text, labels, finish)


def last_duplicate_wins(name: str, text: str, labels: Sequence[str], finish: str) -> Parsed:
    """Planted bug: JSON as most readers read it."""
    if finish == "stop":
        try:
            found = json.loads(text.rpartition("</think>")[2])
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and isinstance(found.get("score"), str) and found["score"] in labels:
            return Parsed(Outcome.OK, found["score"])
    return parser(name, text, labels, finish)


def what_is_in_front_says_nothing(name: str, text: str, labels: Sequence[str], finish: str) -> Parsed:
    """Planted bug: only the object is read, whatever the text before it says."""
    trace, closed, answer = text.partition("</think>")
    return parser(name, f"{trace}{closed}{answer[max(0, answer.find('{')) :]}", labels, finish)


PLANTED: tuple[Parser, ...] = (
    first_match_wins,
    cut_answers_are_closed,
    last_duplicate_wins,
    what_is_in_front_says_nothing,
)


def run() -> Result:
    """20,000 mutations through the parser, and the same through each planted bug."""
    mutations = list(cases(SEED, MUTATIONS))
    report = fuzz(mutations)
    planted = {bug.__name__: fuzz(mutations, bug).invented for bug in PLANTED}
    return Result(
        {
            "invented": report.invented.total(),
            "lost": report.lost.total(),
            "mistyped": report.mistyped.total(),
            "planted_caught": sum(found.total() > 0 for found in planted.values()),
        },
        n=MUTATIONS,
        details={
            "kinds": dict(report.cases),
            "outcomes": dict(report.outcomes),
            "by_format": dict(Counter(case.format for case in mutations)),
            "planted": {name: dict(found) for name, found in planted.items()},
            "examples": [[kind, case.kind, case.format, repr(case.text[-300:])] for kind, case, _ in report.examples],
        },
    )


BENCHMARK = Benchmark(
    "parser-fuzz",
    "mutations of valid verdicts in all formats: invented scores, lost and mistyped ones; planted parser bugs caught",
    run,
    {
        "invented": Bar("at_most", 0),
        "lost": Bar("at_most", 0),
        "mistyped": Bar("at_most", 0),
        "planted_caught": Bar("at_least", len(PLANTED)),
    },
)
