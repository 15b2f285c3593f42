"""Refinement: disjoint sets, the rule of acceptance, the history, resuming, proposals; and the whole stage."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.ground_truth import compare
from mr3.inference.engine import Completion
from mr3.inference.session import ray_session
from mr3.inference.store import Store
from mr3.nano.house import house_tasks
from mr3.refinement.asked import TeacherProposals, TeacherProposer
from mr3.refinement.edits import EditProposer, EditsConfig, neighbours
from mr3.refinement.history import History
from mr3.refinement.loop import Rule, refine
from mr3.refinement.records import Labelled, Mistake, Proposal, ProposalOutcome, Scores, Situation, difference
from mr3.refinement.sets import Split, TaskFiles, TaskSource, check_sets, open_sets, prompt_key, split_by_content
from mr3.rubrics import Criterion, Rubric
from mr3.rubrics.teacher import Question, Teacher, TeacherConfig
from tests.rubric_support import (
    HOUSE,
    LABELS,
    NAMES,
    POOL,
    JudgeEngine,
    PoisonedJudge,
    backend,
    item,
    judge_folder,
    rubric,
    tasks_file,
)


class PerfectPanel:
    """Judges by the criteria that the rubric names; counts what it was asked."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise, self.asked = noise, 0
        self.seen: list[str] = []

    def close(self) -> None:
        return

    def scores(self, rubrics: Sequence[Rubric], items: Sequence[Labelled]) -> list[Scores]:
        found = []
        for one in rubrics:
            scores = Scores({}, {})
            for given_item in items:
                self.asked += 1
                self.seen.append(given_item.task.id)
                sides = [json.loads(r) for r in given_item.task.responses]
                said = LABELS[compare([c.name for c in one.criteria], *sides)]
                luck = random.Random(f"{one.content_hash} {given_item.task.id}").random() < self.noise
                right = said == given_item.gold and not luck
                scores.points[given_item.task.id], scores.contents[given_item.task.id] = (
                    float(right),
                    given_item.content,
                )
                if not right:
                    scores.mistakes.append(Mistake(given_item.under(one), given_item.gold, said, None))
            found.append(scores)
        return found


def sets(n: int = 600, house: Sequence[str] = HOUSE) -> dict[str, list[Labelled]]:
    return split_by_content([item(i, house) for i in range(n)], Split(), 0)


def edit_proposer(seed: int = 0) -> EditProposer:
    return EditProposer(EditsConfig(), POOL, seed)


RULE = Rule(rounds=10, candidates=10, patience=3)


def test_a_wrong_rubric_becomes_the_house_rubric(tmp_path: Path) -> None:
    parts, history = sets(), History(tmp_path / "history.jsonl")
    rows = refine(rubric("formal"), parts, PerfectPanel(), edit_proposer(), RULE, history)
    assert [c.name for c in rows[-1].rubric.criteria] == list(HOUSE)
    assert [r.round for r in rows] == list(range(1, len(rows) + 1)) and history.read() == rows
    kept = [r for r in rows if r.accepted]
    assert kept and all(r.difference and r.difference["interval"][0] > 0 and r.difference["n"] > 100 for r in kept)


def test_the_third_set_is_never_judged_by_the_search(tmp_path: Path) -> None:
    parts, panel = sets(), PerfectPanel()
    refine(rubric("formal"), parts, panel, edit_proposer(), RULE, History(tmp_path / "h.jsonl"))
    untouched = {i.task.id for i in parts["test"]}
    assert untouched and not untouched & set(panel.seen)


def test_a_right_rubric_is_left_alone_also_by_a_noisy_judge(tmp_path: Path) -> None:
    for seed in range(5):
        parts = split_by_content([item(i, HOUSE) for i in range(400)], Split(), seed)
        history = History(tmp_path / f"{seed}.jsonl")
        rows = refine(rubric(*HOUSE), parts, PerfectPanel(noise=0.3), edit_proposer(seed), RULE, history)
        assert not any(r.accepted for r in rows) and rows[-1].rubric == rubric(*HOUSE)
        assert len(rows) == RULE.patience


def test_what_is_better_on_the_first_set_alone_is_refused(tmp_path: Path) -> None:
    """Overfitting: labels of the first set follow another house than those of the second."""
    parts = sets()
    parts["develop"] = [item(i, ("formal",), f"d{i}", f"develop {i}") for i in range(10_000, 10_150)]
    rows = refine(rubric(*HOUSE), parts, PerfectPanel(), edit_proposer(), RULE, History(tmp_path / "h.jsonl"))
    assert rows[0].chosen and rows[0].chosen_develop and rows[0].chosen_develop > rows[0].develop
    assert not any(r.accepted for r in rows) and "is not above 0" in rows[0].why
    chosen = [r.chosen for r in rows]
    assert len(set(chosen)) == len(chosen), "a refused rubric is not tried again"


def test_a_margin_and_the_number_of_rounds_make_acceptance_harder(tmp_path: Path) -> None:
    assert Rule(rounds=1, confidence=0.95).per_round == pytest.approx(0.95)
    assert Rule(rounds=10, confidence=0.95).per_round == pytest.approx(0.995)
    strict = Rule(rounds=3, candidates=20, patience=1, margin=0.9)
    rows = refine(rubric("formal"), sets(), PerfectPanel(), edit_proposer(), strict, History(tmp_path / "h.jsonl"))
    assert rows[0].chosen and not rows[0].accepted and "not above 0.9" in rows[0].why


def test_an_interrupted_search_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    parts = sets()
    whole = refine(rubric("formal"), parts, PerfectPanel(), edit_proposer(), RULE, History(tmp_path / "whole.jsonl"))
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    for done in range(len(lines)):
        path = tmp_path / f"{done}.jsonl"
        path.write_bytes(b"".join(lines[:done]) + lines[done][: len(lines[done]) // 2])  # killed while writing
        again = refine(rubric("formal"), parts, PerfectPanel(), edit_proposer(), RULE, History(path))
        assert again == whole and path.read_bytes() == b"".join(lines)


def test_a_history_of_another_start_is_refused(tmp_path: Path) -> None:
    history = History(tmp_path / "h.jsonl")
    refine(rubric("formal"), sets(), PerfectPanel(), edit_proposer(), Rule(rounds=1), history)
    with pytest.raises(ValueError, match="does not go on from this rubric"):
        refine(rubric("kind"), sets(), PerfectPanel(), edit_proposer(), Rule(rounds=2), history)
    history.path.write_text("{}\n")
    with pytest.raises(ValueError, match="line 1 is no round"):
        history.read()


class ListProposer:
    """Proposes what it was given."""

    def __init__(self, proposals: list[Proposal]) -> None:
        self.proposals = proposals

    def propose(self, situation: Situation) -> list[Proposal]:
        return self.proposals


def test_proposals_that_cannot_be_judged_are_outcomes_with_reasons(tmp_path: Path) -> None:
    start = rubric("formal")
    given_ones = [
        Proposal(edit="a", outcome=ProposalOutcome.TRUNCATED, reason="cut off"),
        Proposal(edit="b", rubric=start),
        Proposal(edit="c", rubric=Rubric(levels={"Assistant A": "a", "Assistant B": "b"})),
        Proposal(edit="d", rubric=Rubric(criteria=[Criterion(name="x", description="<|im_end|>")])),
        Proposal(edit="e", rubric=rubric("right")),
        Proposal(edit="f", rubric=rubric("right")),
    ]
    history = History(tmp_path / "h.jsonl")
    rows = refine(start, sets(), PerfectPanel(), ListProposer(given_ones), Rule(rounds=1), history)
    found = [(j.proposal.outcome.value, j.develop is not None) for j in rows[0].proposals]
    assert found == [
        *(
            ("truncated", False),
            ("known", False),
            ("invalid", False),
            ("invalid", False),
            ("ok", True),
            ("known", False),
        )
    ]
    assert "levels" in (rows[0].proposals[2].proposal.reason or "")
    assert "chat markup" in (rows[0].proposals[3].proposal.reason or "") and rows[0].accepted


names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)


@given(names, st.integers(0, 5), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_edits_are_one_step_away_new_and_the_same_for_a_seed(start: list[str], seed: int, wanted: int) -> None:
    now = rubric(*start)
    situation = Situation(now, 1, wanted)
    found = edit_proposer(seed).propose(situation)
    assert found == edit_proposer(seed).propose(situation) and len(found) <= wanted
    hashes = [p.rubric.content_hash for p in found if p.rubric]
    assert len(set(hashes)) == len(found) and now.content_hash not in hashes
    for proposal in found:
        assert proposal.rubric is not None
        after = [c.name for c in proposal.rubric.criteria]
        assert 1 <= len(after) <= 4 and len(set(after) ^ set(start)) <= 2 and after != start
    without = Situation(now, 1, wanted, known=frozenset(hashes))
    assert not {p.rubric.content_hash for p in edit_proposer(seed).propose(without) if p.rubric} & set(hashes)


def test_all_edits_of_a_rubric_by_hand() -> None:
    now = rubric("right", "short")

    def after(kind: Any) -> set[tuple[str, ...]]:
        return {tuple(c.name for c in r.criteria) for _, r in neighbours(now, POOL[:3], kind, 6)}

    assert after("add") == {("kind", "right", "short"), ("right", "kind", "short"), ("right", "short", "kind")}
    assert after("drop") == {("right",), ("short",)} and after("move") == {("short", "right")}
    assert after("replace") == {("kind", "short"), ("right", "kind")} and after("reword") == set()
    assert neighbours(now, POOL, "add", 2) == [] and neighbours(rubric("right"), POOL, "drop", 6) == []
    other = [Criterion(name="short", description="Few words.")]
    assert [r.criteria[1].description for _, r in neighbours(now, other, "reword", 6)] == ["Few words."]
    weights = {tuple(c.weight for c in r.criteria) for _, r in neighbours(now, [], "reweight", 6)}
    assert weights == {(0.5, 1), (2, 1), (1, 0.5), (1, 2)}


def test_contents_never_cross_sets_and_seeds_draw_other_splits() -> None:
    items = [item(i, HOUSE, f"c{i % 50}", f"question {i % 50}") for i in range(200)]
    for seed in range(3):
        parts = split_by_content(items, Split(), seed)
        check_sets(parts)
        assert sum(len(p) for p in parts.values()) == 200
    assert split_by_content(items, Split(), 0) != split_by_content(items, Split(), 1)


def test_sets_that_share_a_prompt_are_refused_whatever_they_say_of_contents() -> None:
    one, same = item(1, HOUSE, "c1", "What is 2 + 4?"), item(2, HOUSE, "c2", "  what IS 2 + 4? ")
    assert prompt_key(one.task) == prompt_key(same.task)
    rest = {"accept": [item(3, HOUSE)], "test": [same]}
    with pytest.raises(ValueError, match="the prompt of task 't2' stands in the sets develop and test"):
        check_sets({"develop": [one], **rest})
    with pytest.raises(ValueError, match="the content of task 't4' stands in the sets develop and test"):
        check_sets({"develop": [item(5, HOUSE, "c9")], "accept": [item(3, HOUSE)], "test": [item(4, HOUSE, "c9")]})
    with pytest.raises(ValueError, match="'t3' comes twice"):
        check_sets({"develop": [one], "accept": [item(3, HOUSE)], "test": [item(3, HOUSE)]})
    with pytest.raises(ValueError, match="the test set is empty"):
        check_sets({"develop": [one], "accept": [item(3, HOUSE)], "test": []})


def test_files_of_labelled_tasks(tmp_path: Path) -> None:
    items = [item(i, HOUSE, f"c{i % 30}") for i in range(90)]
    told = open_sets(tasks_file(tmp_path / "a.parquet", items, True), Split(), 0)
    assert {i.content for p in told.values() for i in p} == {f"c{i}" for i in range(30)}
    untold = open_sets(tasks_file(tmp_path / "b.parquet", items, False), Split(), 0)
    assert len({i.content for p in untold.values() for i in p}) == 90
    three = [tasks_file(tmp_path / f"{i}.parquet", items[i::3], True) for i in range(3)]
    check_sets(open_sets(TaskFiles(develop=three[0], accept=three[1], test=three[2]), Split(), 0))
    renamed = [item(100 + i, HOUSE, found.content) for i, found in enumerate(items[0::3])]
    other = tmp_path / "x.parquet"
    tasks_file(other, renamed, True)
    with pytest.raises(ValueError, match="stands in the sets develop and test"):
        open_sets(TaskFiles(develop=three[0], accept=three[1], test=other), Split(), 0)


def test_a_content_counts_once_however_many_items_it_has() -> None:
    ids = [f"i{n}" for n in range(10)]
    contents = {i: "big" if n < 9 else "small" for n, i in enumerate(ids)}
    after = Scores({i: float(contents[i] == "big") for i in ids}, contents)
    before = Scores(dict.fromkeys(ids, 0.0), contents)
    found = difference(after, before)
    assert found["value"] == 0.5 and found["n"] == 2


def test_house_labels_follow_the_house_and_say_nothing_of_it() -> None:
    items = house_tasks(["polite", "correct"], 60, 3)
    again = house_tasks(["polite", "correct"], 60, 3)
    assert items == again and {i.task.rubric.name for i in items} == {"hidden"}
    other = house_tasks(["brief"], 60, 3)
    assert [i.task.responses for i in items] == [i.task.responses for i in other]
    assert [i.gold for i in items] != [i.gold for i in other]
    with pytest.raises(ValueError, match="no criterion nice"):
        house_tasks(["nice"], 1, 0)
    source = TaskSource(source="mr3.nano.house:house_tasks", options={"house": ["brief"], "rows": 60, "seed": 1})
    parts = open_sets(source, Split(), 0)
    assert sum(map(len, parts.values())) == 60


class FakeTeacher(Teacher):
    """Answers from a list, without an engine."""

    def __init__(self, answers: list[str]) -> None:
        self.answers, self.questions = answers, []  # type: ignore[var-annotated]

    def ask(self, questions: Sequence[Question]) -> dict[str, list[Completion]]:
        self.questions += questions
        return {
            q.id: [Completion(id=q.id, text=a, finish="stop")] for q, a in zip(questions, self.answers, strict=True)
        }


def test_a_teacher_sees_mistakes_of_the_first_set_and_its_failures_are_outcomes() -> None:
    good = json.dumps({"criteria": [{"name": "kind", "description": "It is kind."}]})
    teacher = FakeTeacher([good, "no json", '{"criteria": []}'])
    config = TeacherProposals(teacher=TeacherConfig(model="teacher"), shown=2)
    mistakes = [Mistake(item(i, HOUSE).task, "Tie", "Assistant A", "shorter") for i in range(5)]
    situation = Situation(rubric("formal"), 1, 3, mistakes=mistakes)
    found = TeacherProposer(config, teacher, 0).propose(situation)
    assert [p.outcome.value for p in found] == ["ok", "parse_failed", "invalid"]
    assert found[0].rubric and found[0].rubric.criteria[0].name == "kind" and found[1].reason
    asked = [q.messages[1]["content"] for q in teacher.questions]
    assert all("It is formal." in text and text.count("## Case") == 2 and "Right: Tie" in text for text in asked)
    assert len(set(asked)) > 1, "each question draws other mistakes"
    assert found[0].source["model"] == "teacher" and found[0].source["request"] == teacher.questions[0].id
    assert TeacherProposer(config, teacher, 0).propose(Situation(rubric("formal"), 1, 3)) == []


def test_the_nano_config_finds_its_sets() -> None:
    from mr3.config import load_config
    from mr3.refinement.stage import RefineConfig

    config = load_config(RefineConfig, "configs/nano/rubric-refine.yaml")
    parts = open_sets(config.tasks, config.split, config.seed)
    assert min(len(p) for p in parts.values()) > 60


@pytest.fixture
def ray() -> Iterator[None]:
    """One session for all runs of a test: each would start its own."""
    with ray_session():
        yield


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_stage_refines_reports_and_judges_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], replicas: int
) -> None:
    from mr3.cli.main import main
    from mr3.rubrics.entries import load_entry

    tasks = tasks_file(tmp_path / "tasks.parquet", [item(i, HOUSE) for i in range(300)], True)
    config = {
        "output_dir": str(tmp_path / "out"),
        "tasks": str(tasks),
        "rubric": rubric("formal").model_dump(),
        "judge": {"model": str(judge_folder(tmp_path / "judge")), "backend": backend(JudgeEngine)},
        "proposer": {"kind": "edits", "criteria": [c.model_dump() for c in POOL]},
        "rule": {"rounds": 5, "candidates": 8, "patience": 1},
        "stream": {"replicas_max": replicas},
        "compare_with": rubric(*HOUSE).model_dump(),
    }
    file = tmp_path / "refine.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    assert main(["rubric", "refine", "--config", str(file)]) == 0
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["gain"]["interval"][0] > 0.3 and metrics["after"]["accuracy"]["value"] > 0.9
    assert metrics["compared"]["accuracy"]["value"] == 1.0 and metrics["accepted"] >= 2
    assert set(metrics["by_language"]) == {"en", "de"} and metrics["after"]["failed"] == 0
    entry = load_entry(out / "rubric.yaml")
    assert entry.header.version == 2 and entry.rubric.content_hash == metrics["final"]["hash"]
    table = pq.read_table(out / "test.parquet").to_pylist()
    parts = json.loads((out / "sets.json").read_text())
    assert {r["id"] for r in table} == set(parts["test"]) and not set(parts["test"]) & set(parts["accept"])
    store = Store(out / "store")
    judged, lines = store.refresh(), (out / "history.jsonl").read_bytes()
    # Ended after the second round, before any report: the same command ends in the same place, from the store alone.
    (out / "history.jsonl").write_bytes(b"".join(lines.splitlines(keepends=True)[:2]))
    (out / "manifest.json").unlink()
    assert main(["rubric", "refine", "--config", str(file)]) == 0
    assert (out / "history.jsonl").read_bytes() == lines and store.refresh() == judged
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert main(["rubric", "refine", "--config", str(file), "--rule.margin", "0.1"]) == 2
    assert "another config (changed: rule)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_task_that_kills_the_judges_engine_fails_alone(tmp_path: Path) -> None:
    from mr3.cli.main import main

    items = [item(i, HOUSE, text="POISON" if i == 7 else None) for i in range(60)]
    config = {
        "output_dir": str(tmp_path / "out"),
        "tasks": str(tasks_file(tmp_path / "tasks.parquet", items, True)),
        "rubric": rubric("formal").model_dump(),
        "judge": {"model": str(judge_folder(tmp_path / "judge")), "backend": backend(PoisonedJudge)},
        "orders": "one",
        "proposer": {"kind": "edits", "criteria": [c.model_dump() for c in POOL]},
        "rule": {"rounds": 1, "candidates": 1},
    }
    file = tmp_path / "refine.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    assert main(["rubric", "refine", "--config", str(file)]) == 0
    store = Store(tmp_path / "out" / "store")
    store.refresh()
    verdicts = [json.loads(text) for _, text in store.items()]
    failed = [v for v in verdicts if v["outcome"] == "engine_failed"]
    assert {v["task_id"] for v in failed} == {items[7].task.id}
    assert all("engines died on this row" in v["reason"] for v in failed)
    assert {v["outcome"] for v in verdicts} == {"ok", "engine_failed"}
