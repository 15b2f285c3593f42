"""The parser against mutated verdicts whose truth is known from their making, and against any text at all."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.parser_fuzz import MUTATIONS, PLANTED, SEED, Parser, Report, fuzz
from benchmarks.verdict_mutations import cases, draft
from benchmarks.verdict_texts import LABELS
from mr3.parsing import FORMATS
from mr3.records import Outcome

FEW = 1_500
FINISHES = ("stop", "length", "too_long", "timed_out", "failed", "content_filter")
# Pieces of verdicts: put together at random they come closer to the parser's branches than random letters do.
PIECES = (
    '{"explanation": "x", "score": "4"}', '{"score": 4}', '"score": "Assistant A"', *"{}\"',:[]\\x48A \n", "</think>",
    "<think>", "```json\n", "```", "<answer>[[A]]</answer>", "<answer>", "</answer>", "[[B]]", "[RESULT] ", "[결과] 4",
    "true", "Assistant A", "A > B", "[The Begin of Ranking Score]", "[The End of Ranking Score]", "\\boxed{2}", "점수",
    "[The Begin of Individual Scores]\n\\boxed{3}\n[The End of Individual Scores]", "<|im_end|>", "\u202e", "\u200f",
    "\ud800", "score", "{'explanation': 'x', 'score': 'B'}", "NaN", "\\u0034", "８",
)  # fmt: skip
texts = st.one_of(
    st.text(st.characters(exclude_categories=[]), max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
)
formats = st.sampled_from(sorted(FORMATS))
label_sets = st.sampled_from(sorted(LABELS.values()))


@pytest.fixture(scope="module")
def report() -> Report:
    return fuzz(cases(SEED + 1, FEW))


def test_no_mutated_verdict_gives_a_score_that_was_not_written(report: Report) -> None:
    assert (report.invented, report.examples) == (Counter(), [])


def test_all_that_is_documented_as_repaired_is_repaired_and_all_outcomes_are_as_documented(report: Report) -> None:
    assert (report.lost, report.mistyped) == (Counter(), Counter())
    assert set(report.outcomes) == set(Outcome)
    assert len(report.cases) > 40 and min(report.cases.values()) > 20


def test_the_mutations_cover_every_format_and_label_set() -> None:
    made = list(cases(SEED, FEW))
    assert {case.format for case in made} == set(FORMATS)
    assert {case.labels for case in made} == set(LABELS.values())
    assert made == list(cases(SEED, FEW))


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_caught(bug: Parser) -> None:
    assert fuzz(cases(SEED + 1, FEW), bug).invented.total() > 0


@pytest.mark.slow
def test_twenty_thousand_mutations() -> None:
    report = fuzz(cases(SEED + 2, MUTATIONS))
    assert report.examples == [] and report.cases.total() == MUTATIONS


@settings(deadline=None)
@given(name=formats, text=texts, labels=label_sets, finish=st.sampled_from(FINISHES))
def test_any_text_gives_an_outcome_and_a_score_only_from_the_labels(
    name: str, text: str, labels: tuple[str, ...], finish: str
) -> None:
    parsed = FORMATS[name].parse(text, labels, finish)
    assert (parsed.score in labels) == (parsed.outcome is Outcome.OK) == (parsed.reason is None)
    assert finish == "stop" or parsed.score is None
    assert f"{parsed.explanation}{parsed.trace}{parsed.reason}".encode()


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), more=texts, share=st.floats(0, 1))
def test_nothing_behind_a_cut_answer_makes_it_a_score(seed: int, more: str, share: float) -> None:
    whole = draft(random.Random(seed))
    cut = whole.text[: int(len(whole.text) * share)]
    for text in (whole.text, whole.text + more, cut + more, cut, more):
        parsed = FORMATS[whole.writer.name].parse(text, whole.labels, "length")
        assert (parsed.outcome, parsed.score) == (Outcome.TRUNCATED, None)


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize(
    "unit",
    ["<answer>", "[RESULT] ", "\\boxed{", "[The Begin of Ranking Score]", "<eval>", "</s>", "[", '"a": 1,', "note "],
)
def test_degenerate_repetition_takes_no_noticeable_time(name: str, unit: str) -> None:
    begun = time.process_time()
    long = unit * 20_000
    inside = f'{{"explanation": "a" {long}", "score": "4"}}'
    for text in (long, f"{long}</think>{long}", inside, f"x</think>{inside}", f"x</think>{{{long}}}"):
        FORMATS[name].parse(text, LABELS["scale5"], "stop")
    assert time.process_time() - begun < 2
