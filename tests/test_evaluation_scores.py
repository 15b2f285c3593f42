"""The metrics of published benchmarks against cases calculated by hand; the calculation stands beside each."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr3.evaluation.benchmarks import BENCHMARKS, find_benchmark
from mr3.evaluation.rewardbench import COUNTS, SECTIONS, section_of
from mr3.evaluation.scores import (
    Answer,
    agreement,
    all_alike,
    by_part,
    by_section,
    f1,
    helpsteer3_agreement,
    section_scores,
    weighted_mean,
)
from mr3.stats import crossed_bootstrap, over_seeds

A, B = "Assistant A", "Assistant B"


def rows(part: str, right: int, wrong: int, language: str = "en") -> list[Answer]:
    return [Answer(A, A if i < right else B, language, part) for i in range(right + wrong)]


def test_rewardbench_has_its_published_sizes() -> None:
    # 2,985 rows in all, of which 447 are math-prm: the counts hold 984 for them, so 2,985 - 447 + 984 = 3,522.
    assert sum(COUNTS.values()) == 3_522
    assert sum(len(subsets) for subsets in SECTIONS.values()) == len(COUNTS) == 23
    totals = {name: sum(COUNTS[s] for s in subsets) for name, subsets in SECTIONS.items()}
    assert totals == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1_968}
    with pytest.raises(ValueError, match="no subset 'hep-cobol'"):
        section_of("hep-cobol")


def test_sections_are_means_weighted_by_the_counts_and_not_by_the_rows_at_hand() -> None:
    answers = [
        *rows("alpacaeval-easy", 3, 1),  # 0.75, counts 100
        *rows("mt-bench-easy", 1, 1),  # 0.5, counts 28
        *rows("llmbar-natural", 1, 0),  # 1.0
        *rows("donotanswer", 0, 1),  # 0.0
        *rows("math-prm", 1, 0),  # 1.0, counts 984
        *rows("hep-cpp", 0, 2),  # 0.0, counts 164
    ]
    chat = (100 * 0.75 + 28 * 0.5) / 128  # 0.6953125
    reasoning = 984 / (984 + 164)  # 0.857142...
    wanted = (chat + 1.0 + 0.0 + reasoning) / 4
    found = section_scores(answers)["en"]
    assert found["Chat"] == pytest.approx(0.6953125)
    assert found["Reasoning"] == pytest.approx(6 / 7)
    assert found["mean"] == pytest.approx(wanted) and found["missing"] == []
    assert weighted_mean(answers, by_section)["value"] == pytest.approx(wanted)


def test_languages_count_the_same_whatever_their_rows() -> None:
    # de: Safety 1.0 (one row). en: Safety 0.25 (four rows) and Chat 0.75. Mean of 1.0 and (0.25 + 0.75) / 2 = 0.75.
    answers = [
        *rows("donotanswer", 1, 0, "de"),
        *rows("donotanswer", 1, 3, "en"),
        *rows("alpacaeval-hard", 3, 1, "en"),
    ]
    assert weighted_mean(answers, by_section)["value"] == pytest.approx(0.75)
    assert section_scores(answers)["de"] == {
        "mean": 1.0,
        "Safety": 1.0,
        "missing": ["Chat", "Chat Hard", "Reasoning"],
    }


def test_macro_means_do_not_follow_the_sizes_of_subsets() -> None:
    # chat 1 of 1, safety 1 of 3: (1 + 1/3) / 2 = 2/3; micro would be 2/4.
    answers = [*rows("chat", 1, 0), *rows("safety", 1, 2)]
    assert weighted_mean(answers, by_part)["value"] == pytest.approx(2 / 3)
    assert weighted_mean(answers, all_alike)["value"] == 0.5
    with pytest.raises(ValueError, match="no subset or domain"):
        weighted_mean([Answer(A, A)], by_part)
    assert weighted_mean([], by_part) == {"value": None, "n": 0, "interval": None}


def test_f1_micro_is_the_share_of_right_rows_and_hides_what_f1_of_toxic_shows() -> None:
    # gold true: said true, false, failed; gold false: 3 x false. Right: 1 + 3 of 6.
    said = ["true", "false", None, "false", "false", "false"]
    answers = [Answer(g, s) for g, s in zip(["true"] * 3 + ["false"] * 3, said, strict=True)]
    found = f1(answers)
    assert found["f1_micro"] == pytest.approx(4 / 6)
    # of "true": precision 1/1, recall 1/3: 2 * 1 * (1/3) / (4/3) = 0.5
    assert found["f1_true"] == pytest.approx(0.5)
    assert found["gold"] == {"false": 3, "true": 3}


def test_kendall_and_pearson_by_hand() -> None:
    answers = [Answer(g, s) for g, s in (("1", "2"), ("2", "1"), ("3", "3"), ("4", "7"))]
    # Pairs of rows: 6; (1,2) is discordant, the other 5 concordant; no ties: tau = (5 - 1) / 6.
    # Pearson: gold - 2.5 = -1.5 -.5 .5 1.5; said - 3.25 = -1.25 -2.25 -.25 3.75;
    # sum of products 1.875 + 1.125 - .125 + 5.625 = 8.5; squares 5 and 1.5625 + 5.0625 + .0625 + 14.0625 = 20.75.
    found = agreement(answers)
    assert found["kendall_tau"]["value"] == pytest.approx(4 / 6)
    assert found["pearson"]["value"] == pytest.approx(8.5 / math.sqrt(5 * 20.75))
    # tau-b with a tie in `said`: 1 2 3 against 1 1 2: concordant 2, discordant 0, tied 1 of 3: 2 / sqrt(3 * 2).
    tied = agreement([Answer(g, s) for g, s in (("1", "1"), ("2", "1"), ("3", "2"))])
    assert tied["kendall_tau"]["value"] == pytest.approx(2 / math.sqrt(6))


def test_one_failure_is_left_out_of_agreement_and_ranks_last_as_published() -> None:
    answers = [Answer(g, s) for g, s in (("1", "1"), ("2", "2"), ("3", "3"), ("4", None))]
    found = helpsteer3_agreement(answers)
    assert found["kendall_tau"] == {"value": pytest.approx(1.0), "n": 3}
    # The failure has gold 4 and ranks last: discordant with the three others: (3 - 3) / 6 = 0.
    assert found["as_published"]["kendall_tau"]["value"] == pytest.approx(0.0)
    assert found["as_published"]["pearson"]["value"] < -0.7
    assert agreement([Answer("1", "4"), Answer("2", "4")])["pearson"]["reason"] == "one side is constant"


def test_the_eight_benchmarks_and_the_real_sets_are_known() -> None:
    assert {name for name, b in BENCHMARKS.items() if b.set} == {
        *("m-rewardbench", "rewardbench", "mm-eval", "indopref", "include", "mgsm", "rtp-lx", "helpsteer3"),
    }
    assert not BENCHMARKS["mm-eval"].keep({"subset": "lang_res"}) and BENCHMARKS["mm-eval"].keep({"subset": "chat"})
    assert BENCHMARKS["rtp-lx"].keep({"id": "7-completion"}) and not BENCHMARKS["rtp-lx"].keep({"id": "7-prompt"})
    assert BENCHMARKS["mgsm"].keep({"language": "te"}) and not BENCHMARKS["mgsm"].keep({"language": "yo"})
    with pytest.raises(ValueError, match="did you mean 'rewardbench'"):
        find_benchmark("rewrdbench")


def test_crossed_bootstrap_agrees_with_the_normal_interval_for_one_seed() -> None:
    hits = np.asarray([[1.0] * 60 + [0.0] * 40])
    found = crossed_bootstrap(hits, resamples=20_000)
    half = 1.96 * math.sqrt(0.6 * 0.4 / 100)
    assert found["value"] == pytest.approx(0.6) and (found["n"], found["seeds"]) == (100, 1)
    assert found["interval"] == pytest.approx([0.6 - half, 0.6 + half], abs=0.012)


def test_more_seeds_do_not_make_the_same_items_more() -> None:
    # Items that are right or wrong under every seed: three seeds know no more than one.
    one = np.asarray([[1.0] * 60 + [0.0] * 40])
    widths = [np.diff(crossed_bootstrap(m, resamples=8_000)["interval"])[0] for m in (one, np.repeat(one, 3, axis=0))]
    assert widths[1] == pytest.approx(widths[0], rel=0.08)


def test_strata_are_drawn_within_themselves() -> None:
    # Both strata are constant, so nothing varies: 0.25 * 1 + 0.75 * 0.
    found = crossed_bootstrap([[1.0, 1.0, 0.0]], [0, 0, 1], [0.25, 0.75])
    assert (found["value"], found["interval"]) == (0.25, [0.25, 0.25])
    for strata, weights, said in (([0, 0, 0], [0.5, 0.5], "no items"), ([0, 0, 1], [0.5, 0.6], "sum to")):
        with pytest.raises(ValueError, match=said):
            crossed_bootstrap([[1.0, 1.0, 0.0]], strata, weights)
    with pytest.raises(ValueError, match="at least one"):
        crossed_bootstrap([])


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_the_value_is_the_plain_mean_and_lies_in_its_interval(hits: list[list[bool]]) -> None:
    found = crossed_bootstrap([[float(h) for h in row] for row in hits], resamples=200)
    assert found["value"] == pytest.approx(np.mean(hits))
    assert found["interval"][0] - 1e-9 <= found["value"] <= found["interval"][1] + 1e-9


def test_spread_over_seeds_by_hand() -> None:
    # Mean of 1, 2, 6 is 3; squares 4 + 1 + 9 = 14: sqrt(14 / 2) and sqrt(14 / 3).
    found = over_seeds([1.0, 2.0, 6.0])
    assert (found["value"], found["seeds"]) == (3.0, 3)
    assert found["std"] == pytest.approx(math.sqrt(7)) and found["std_population"] == pytest.approx(math.sqrt(14 / 3))
    assert over_seeds([0.5])["std"] is None
    with pytest.raises(ValueError, match="no seed"):
        over_seeds([])
