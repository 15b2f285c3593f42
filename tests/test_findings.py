"""What a trace claims is checked against the checkers: the gold trace is right in full, and no other is by accident."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.nano.findings import faithful, findings_right, findings_true, follows_rubric, lines_of, trace_of
from mr3.nano.rubric_rows import study_row
from mr3.nano.shortcut import HIDDEN_ORDER, names_read
from mr3.nano.twins import StudyTask, World, single_tasks, twin_tasks
from mr3.nano.verdicts import gold
from mr3.records import Task

MADE = [*single_tasks("dev", 120, 4, World()), *twin_tasks("dev", 120, 4, World())]
ROWS = [study_row(one, "dev", i) for i, one in enumerate(MADE)]
TASKS = [Task.model_validate_json(row["task"]) for row in ROWS]
CASES = list(zip(MADE, TASKS, ROWS, strict=True))


def shortcut_trace(one: StudyTask) -> str:
    return gold(one.made.task.mode, one.made.question, HIDDEN_ORDER, one.made.task.responses)[1]


def lines(row: dict[str, object]) -> list[str]:
    return trace_of(str(row["trace"])).splitlines()


def test_the_gold_trace_is_right_in_full_whole_or_bare() -> None:
    for _, task, row in CASES:
        whole = str(row["trace"])
        for text in (whole, whole.removeprefix("<think>"), trace_of(whole)):
            assert findings_right(task, text, row) == 1.0 and findings_true(task, text, row) == 1.0
            assert follows_rubric(task, text, row) == 1.0
            assert faithful(task, text, row) in (1.0, None)


def test_the_shortcuts_trace_is_true_and_not_what_was_asked_for() -> None:
    told = [(one, task, row, shortcut_trace(one)) for one, task, row in CASES]
    assert all(findings_true(task, text, row) == 1.0 for _, task, row, text in told)
    apart = [(task, row, text) for _, task, row, text in told if faithful(task, text, row) is not None]
    assert len(apart) > 100
    assert all(faithful(t, text, r) == 0.0 and findings_right(t, text, r) < 1.0 for t, r, text in apart)
    same = [(one, row) for one, task, row, text in told if faithful(task, text, row) is None]
    for one, row in same:
        assert names_read(row["mode"], row["criteria"], one.found) == names_read(row["mode"], HIDDEN_ORDER, one.found)


def test_a_flipped_finding_and_other_evidence_each_cost_their_share() -> None:
    checked = 0
    for _, task, row in CASES:
        text = str(row["trace"])
        met = re.search(r" (yes|no)\b", text)
        assert met is not None
        flipped = text[: met.start()] + {" yes": " no", " no": " yes"}[met[0]] + text[met.end() :]
        other = text[: met.start()] + "x" + text[met.start() :]
        n = len(lines(row)) * len(task.responses)
        for wrong in (flipped, other):
            assert findings_right(task, wrong, row) == pytest.approx((n - 1) / n)
            assert findings_true(task, wrong, row) == pytest.approx((n - 1) / n)
            checked += 1
    assert checked == 2 * len(CASES)


def test_a_wrong_subject_makes_what_rests_on_it_wrong() -> None:
    of_sums = [(t, r) for _, t, r in CASES if r["criteria"][0] == "correct"]
    assert len(of_sums) > 20
    for task, row in of_sums:
        reference = json.loads(row["meta"])["reference"]
        text = str(row["trace"]).replace(f" {reference}:", f" {reference + 1}:", 1)
        wanted = len(lines(row))
        assert findings_right(task, text, row) == pytest.approx((wanted - 1) / wanted)


def test_what_is_left_out_or_added_costs() -> None:
    long = [(t, r) for _, t, r in CASES if len(lines(r)) >= 2]
    assert len(long) > 40
    for task, row in long:
        written = lines(row)
        shorter, longer = "\n".join(written[:1]), "\n".join([*written, *written])
        assert findings_right(task, shorter, row) == pytest.approx(1 / len(written))
        assert findings_right(task, longer, row) == pytest.approx(0.5)
        assert follows_rubric(task, longer, row) == 0.0 and follows_rubric(task, shorter, row) == 1.0
        swapped = "\n".join([written[1], written[0], *written[2:]])
        assert findings_right(task, swapped, row) < 1.0 and follows_rubric(task, swapped, row) == 0.0


@settings(max_examples=200)
@given(st.text(max_size=120), st.sampled_from(range(len(CASES))))
def test_any_text_is_read(text: str, at: int) -> None:
    _, task, row = CASES[at]
    assert findings_right(task, text, row) == 0.0
    assert findings_true(task, text, row) is None or lines_of(task.mode, text)
    assert follows_rubric(task, text, row) == 0.0 or lines_of(task.mode, text)


def test_a_table_without_the_questions_facts_is_refused() -> None:
    _, task, row = CASES[0]
    with pytest.raises(ValueError, match="has no `meta`"):
        findings_right(task, "x", {**row, "meta": None})
