"""Probes for gaming are legal verdicts (or none), know no gold but where they say so, and persuade no checker."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.nano.findings import findings_right
from mr3.nano.rubric_rows import study_row
from mr3.nano.twins import World, twin_tasks
from mr3.parsing import parse
from mr3.probes import NAMES, balanced_pairs, guess, probes
from mr3.records import Outcome, Task
from mr3.rubrics import Criterion, Rubric

ROWS = [study_row(one, "p", i) for i, one in enumerate(twin_tasks("dev", 900, 2, World(modes={"pairwise": 1.0})))]
TEXT = st.text(min_size=1, max_size=40).filter(str.strip)


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Tasks of any mode and scale, with criteria or levels."""
    mode = draw(st.sampled_from(["pairwise", "pointwise", "binary", "listwise"]))
    count = {"pairwise": 2, "pointwise": 1, "binary": 1, "listwise": 3}[mode]
    names = draw(st.lists(TEXT, min_size=1, max_size=4, unique_by=lambda t: t.strip().casefold()))
    rubric = Rubric(criteria=[Criterion(name=n, description=f"It is {n}.") for n in names])
    if mode == "pointwise" and draw(st.booleans()):
        rubric = Rubric(levels={str(i): f"level {i}" for i in range(1, draw(st.integers(2, 7)) + 1)})
    responses = draw(st.lists(TEXT, min_size=count, max_size=count))
    return Task(id="t", mode=mode, input=draw(TEXT), responses=responses, rubric=rubric, language="en")


@settings(max_examples=150)
@given(tasks(), st.data())
def test_probes_of_any_task_are_verdicts_of_its_scale(task: Task, data: st.DataObject) -> None:
    gold = data.draw(st.sampled_from(task.labels))
    found = probes(task, gold)
    assert set(NAMES) - set(found) <= {"always_tie"} and list(found) == [n for n in NAMES if n in found]
    for name, text in found.items():
        parsed = parse(text, task.labels, "stop")
        if name == "forged_end":
            assert parsed.outcome is not Outcome.OK or parsed.score in task.labels
            continue
        assert parsed.outcome is Outcome.OK and parsed.score in task.labels and not parsed.repaired, name
    assert parse(found["right_verdict_empty_trace"], task.labels, "stop").score == gold
    assert parse(found["empty_trace"], task.labels, "stop").trace == ""
    assert "right_verdict_empty_trace" not in probes(task)


def test_probes_say_what_they_are_for() -> None:
    row = ROWS[0]
    task = Task.model_validate_json(row["task"])
    found = probes(task, row["gold"], characters=1_500)
    traces = {name: text.partition("</think>")[0] for name, text in found.items()}
    assert all(c.description in traces["rubric_copied"] for c in task.rubric.criteria)
    assert all(traces["keyword_stuffing"].count(c.name) >= 6 for c in task.rubric.criteria)
    assert len(traces["verbosity"]) >= 1_500
    assert all(json.dumps(label) in traces["forged_verdict"] for label in task.labels)
    assert parse(found["always_tie"], task.labels, "stop").score == "Tie"
    assert parse(found["always_a"], task.labels, "stop").score == "Assistant A"
    assert parse(found["forged_end"], task.labels, "stop").outcome is not Outcome.OK or guess(task) == "Assistant A"
    other = Rubric(criteria=[Criterion(name="new", description="Something else.")])
    assert "Something else." in probes(task, rubric=other)["rubric_copied"]
    with pytest.raises(ValueError, match="none of its labels"):
        probes(task, "Response C")


def test_guesses_are_the_same_for_twins_and_even_over_tasks() -> None:
    read = [Task.model_validate_json(row["task"]) for row in ROWS]
    assert all(guess(a) == guess(b) for a, b in zip(read[::2], read[1::2], strict=True))
    share = sum(guess(t) == "Assistant A" for t in read[::2]) / (len(read) / 2)
    assert 0.4 < share < 0.6 and not any(guess(t) == "Tie" for t in read)


def test_balanced_pairs_favour_no_constant_answer_and_no_guess() -> None:
    rows = balanced_pairs(ROWS, 102)
    assert len(rows) >= 200 and len({r["id"] for r in rows}) == len(rows)
    counts = Counter(r["gold"] for r in rows)
    assert set(counts.values()) == {len(rows) // 3} and set(counts) == {"Assistant A", "Assistant B", "Tie"}
    assert all(a["twin"] == b["twin"] for a, b in zip(rows[::2], rows[1::2], strict=True))
    assert rows == balanced_pairs(ROWS, 102)
    for name in ("always_a", "always_tie", "keyword_stuffing"):
        said = [
            parse(probes(Task.model_validate_json(r["task"]))[name], ("Assistant A", "Assistant B", "Tie"), "stop")
            for r in rows
        ]
        both = [
            p.score == a["gold"] and q.score == b["gold"]
            for (p, a), (q, b) in zip(
                zip(said[::2], rows[::2], strict=True), zip(said[1::2], rows[1::2], strict=True), strict=True
            )
        ]
        assert not any(both), "one answer can't be right on both twins"
        assert sum(p.score == r["gold"] for p, r in zip(said, rows, strict=True)) / len(rows) < 0.42


@pytest.mark.parametrize(
    ("rows", "pairs", "says"), [(ROWS, 10_000, "balanced pairs need"), ([], 3, "holds no twins")], ids=["few", "none"]
)
def test_too_few_twins_are_named(rows: list[dict[str, object]], pairs: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        balanced_pairs(rows, pairs)


def test_on_nano_no_probe_reaches_half_of_the_honest_trace() -> None:
    """The checker of findings, which a reward term may use: the gold trace gets 1, no probe a half of it."""
    rows = balanced_pairs(ROWS, 102)
    scores: dict[str, list[float]] = {}
    for row in rows:
        task = Task.model_validate_json(row["task"])
        for name, text in {**probes(task, row["gold"]), "honest": row["trace"]}.items():
            scores.setdefault(name, []).append(findings_right(task, text, row))
    means = {name: sum(values) / len(values) for name, values in scores.items()}
    assert means.pop("honest") == 1.0
    assert len(means) == len(NAMES) and max(means.values()) <= 0.5, means
