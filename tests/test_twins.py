"""Data for rubric-aware training: twins and shortcut rows differ in nothing but the twins, and say what they are."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.config import load_config
from mr3.evaluation.tasks import read_tasks
from mr3.nano.facts import contents
from mr3.nano.packs import CRITERIA, TRAIN_CRITERIA, UNSEEN_LANGUAGES, english_wordings
from mr3.nano.rubric_data import Ignoring, RubricDataConfig, Table, evaluation_rows, ignoring_tasks, run
from mr3.nano.rubrics import is_held_out
from mr3.nano.shortcut import HIDDEN_ORDER, decide, names_read
from mr3.nano.testsets import HIDDEN
from mr3.nano.twins import StudyTask, World, edit_of, is_later, part_contents, single_tasks, slots, twin_tasks
from mr3.nano.verdicts import score

ROWS = 240
NATURAL = single_tasks("rl", ROWS, 3, World())
SHORTCUT = single_tasks("rl", ROWS, 3, World(), agree=0.9)
TWINS = twin_tasks("rl", ROWS, 3, World(), later=0.5)


def pairs(tasks: list[StudyTask]) -> list[tuple[StudyTask, StudyTask]]:
    return list(zip(tasks[::2], tasks[1::2], strict=True))


def agreeing(tasks: list[StudyTask]) -> float:
    return sum(one.hidden == one.made.label for one in tasks) / len(tasks)


@pytest.mark.parametrize("tasks", [NATURAL, SHORTCUT, TWINS], ids=["natural", "shortcut", "twins"])
def test_labels_from_findings_are_those_of_the_gold_traces(tasks: list[StudyTask]) -> None:
    for one in tasks:
        made = one.made
        label, index = decide(made.task.mode, made.names, one.found)
        trace, _, answer = made.completion.partition("</think>\n")
        lines = trace.removeprefix("<think>\n").splitlines()
        assert label == made.label == json.loads(answer)["score"]
        assert label == score(made.task.mode, made.question, made.names, made.task.responses)
        assert one.hidden == score(made.task.mode, made.question, HIDDEN_ORDER, made.task.responses)
        assert [line.split()[1].rstrip(":") for line in lines] == list(
            names_read(made.task.mode, made.names, one.found)
        )
        assert one.decided_by == index == (len(lines) - 1 if index >= 0 else -1)


def test_singles_and_twins_differ_in_nothing_but_the_twins() -> None:
    """The same questions, modes and rubric languages, row by row; the same share of damaged responses."""

    def frame(one: StudyTask) -> tuple[object, ...]:
        return one.made.question, one.made.task.mode, one.made.task.rubric.language

    assert list(map(frame, NATURAL)) == list(map(frame, SHORTCUT)) == list(map(frame, TWINS))
    assert all(one.twin is None for one in NATURAL + SHORTCUT)
    ties = [sum(o.made.label == "Tie" for o in tasks) / ROWS for tasks in (NATURAL, TWINS)]
    assert abs(ties[0] - ties[1]) < 0.06


def test_twins_are_the_same_responses_with_another_gold() -> None:
    for one, two in pairs(TWINS):
        assert one.twin == two.twin is not None and one.edit == two.edit == edit_of(one.made.names, two.made.names)
        assert one.made.task.responses == two.made.task.responses and one.made.question == two.made.question
        assert one.made.label != two.made.label and one.made.names != two.made.names
    names = [one.twin for one, _ in pairs(TWINS)]
    assert len(set(names)) == len(names)
    edits = Counter(one.edit for one, _ in pairs(TWINS))
    assert set(edits) == {"order", "replaced", "other"} and min(edits.values()) > 10


def test_a_twin_for_the_reward_alone_stands_beside_the_same_task() -> None:
    tasks = single_tasks("rl", ROWS, 3, World(), agree=0.9, reward_twins=True)
    trained = [one for one in tasks if not one.reward_only]
    for one, alone in zip(trained, SHORTCUT, strict=True):
        assert one.made.completion == alone.made.completion and one.made.question == alone.made.question
        assert one.made.task.model_copy(update={"id": ""}) == alone.made.task.model_copy(update={"id": ""})
    twins = [one for one in tasks if one.reward_only]
    assert len(twins) > 0.85 * ROWS, "of a perfect response no rubric says otherwise"
    for one, two in itertools.pairwise(tasks):
        if two.reward_only:
            assert one.twin == two.twin is not None and not one.reward_only
            assert one.made.task.responses == two.made.task.responses and one.made.label != two.made.label
    assert len({one.twin for one in twins}) == len(twins) == sum(one.twin is not None for one in trained)


@pytest.mark.parametrize("later", [0.0, 0.25, 1.0])
def test_a_later_criterion_decides_in_the_stated_share_of_pairs(later: float) -> None:
    made = pairs(twin_tasks("dev", 80, 1, World(), later))
    found = [is_later(a.made.task.mode, a.made.names, b.made.names, a.found) for a, b in made]
    assert sum(found) == round(40 * later)
    for (a, b), flag in zip(made, found, strict=True):
        if a.made.task.mode == "pairwise":
            assert (0 not in (a.decided_by, b.decided_by)) == flag
            assert len({a.made.label, b.made.label} - {"Tie"}) >= 1
        if a.made.task.mode == "pointwise":
            assert (a.made.names[0] == b.made.names[0]) == flag


@pytest.mark.parametrize("agree", [0.0, 0.5, 0.9, 1.0])
def test_the_shortcut_is_right_on_the_stated_share_of_each_mode(agree: float) -> None:
    tasks = single_tasks("dev", 120, 2, World(), agree)
    for mode in ("pairwise", "pointwise", "binary"):
        rows = [one for one in tasks if one.made.task.mode == mode]
        assert sum(one.hidden == one.made.label for one in rows) == round(len(rows) * agree)


def test_the_shortcut_pays_on_natural_rows_and_not_on_twins() -> None:
    """By nature about 0.65 of pairwise rows agree with it (all modes: 0.59); of twins at most one can."""
    pairwise = [one for one in single_tasks("rl", 1_200, 5, World(modes={"pairwise": 1.0}))]
    assert 0.60 < agreeing(pairwise) < 0.70
    assert agreeing(SHORTCUT) > 0.89
    assert agreeing(TWINS) <= 0.5
    assert all(a.hidden == b.hidden for a, b in pairs(TWINS))


def test_parts_of_the_contents_are_disjoint_and_those_of_training_are_strange_to_the_tests() -> None:
    parts = {name: {c.key for c in part_contents(name)} for name in ("start", "rl", "dev", "test")}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values()))
    assert parts["start"] | parts["rl"] == {c.key for c in contents("judge_sft")}
    assert min(len(parts["start"]), len(parts["rl"])) > 1_500 and len(parts["test"]) > 1_000
    with pytest.raises(ValueError, match="choose from start"):
        part_contents("train")


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["dev", "test"]))
def test_tables_are_decided_by_their_seed_and_every_slot_by_its_own(seed: int, part: str) -> None:
    assert slots(part, 6, seed, World()) == slots(part, 6, seed, World())
    longer, shorter = (twin_tasks(part, rows, seed, World(), 1.0) for rows in (6, 4))
    assert [one.made.completion for one in longer[:4]] == [one.made.completion for one in shorter]


@pytest.mark.parametrize(
    "make", [lambda: slots("dev", 3, 0, World()), lambda: twin_tasks("dev", 2, 0, World(), 1.5)], ids=["odd", "share"]
)
def test_what_can_not_be_made_is_refused(make: object) -> None:
    with pytest.raises(ValueError):
        make()  # type: ignore[operator]


def config(folder: Path, **changes: object) -> RubricDataConfig:
    told: dict[str, object] = {
        "output_dir": folder,
        "tables": {
            "natural": Table(part="rl", rows=24),
            "twins": Table(part="rl", rows=24, twins=True),
            "judge": Table(part="start", rows=12),
        },
        "ignoring": Ignoring(rows=40, faithful=0.25),
        "evaluations": {
            "test": dict.fromkeys(
                ("natural", "blank", "unseen", "twins", "twins_wording", "twins_order", "twins_criterion"), 20
            )
        },
        "replay_documents": 5,
    }
    return RubricDataConfig.model_validate(told | changes)


def test_held_out_sets_hold_what_no_training_row_has(tmp_path: Path) -> None:
    rows, told = evaluation_rows(config(tmp_path), "test", 7)
    sets: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        sets.setdefault(row["sets"][0], []).append(row)
    held_out = {w for kinds in english_wordings().values() for w in kinds["held_out"]}

    def texts(row: dict[str, object]) -> set[str]:
        return {c["description"] for c in json.loads(str(row["task"]))["rubric"]["criteria"]}

    assert all(texts(row) <= held_out for row in sets["twins_wording"])
    assert not any(texts(row) & held_out for name in ("natural", "twins", "twins_order") for row in sets[name])
    assert all(is_held_out(tuple(row["criteria"])) for row in sets["twins_order"])  # type: ignore[arg-type]
    assert not any(is_held_out(tuple(row["criteria"])) for row in sets["twins"])  # type: ignore[arg-type]
    assert {row["language"] for row in sets["unseen"]} <= set(UNSEEN_LANGUAGES)
    new = set(CRITERIA) - set(TRAIN_CRITERIA)
    for one, two in zip(sets["twins_criterion"][::2], sets["twins_criterion"][1::2], strict=True):
        deciders = {r["criteria"][r["decided_by"]] for r in (one, two) if r["decided_by"] >= 0}  # type: ignore[index,operator]
        assert new & deciders
    trained = [one for one in NATURAL + TWINS if new & set(one.made.names)]
    assert not trained
    assert told["twins"]["later_pairs"] == 0.5 and told["natural"]["rows"] == 20


def test_blank_rows_are_the_natural_ones_with_nothing_to_read(tmp_path: Path) -> None:
    rows, _ = evaluation_rows(config(tmp_path), "test", 7)
    by_id = {row["id"]: row for row in rows}
    blank = [row for row in rows if row["blank_of"]]
    assert len(blank) == 20
    for row in blank:
        of = by_id[row["blank_of"]]
        task, whole = json.loads(row["task"]), json.loads(of["task"])
        assert task["rubric"] == HIDDEN.model_dump(mode="json") and task["responses"] == whole["responses"]
        assert (row["gold"], row["criteria"], row["content"]) == (of["gold"], of["criteria"], of["content"])


def test_ignoring_rows_follow_the_hidden_order_but_for_the_faithful_share(tmp_path: Path) -> None:
    made = list(ignoring_tasks(config(tmp_path), 1))
    faithful = [m for m in made if list(m.names) == [c.name for c in m.task.rubric.criteria]]
    assert len(made) == 40 and len(faithful) >= 10
    for one in made:
        trace = one.completion.partition("</think>")[0].removeprefix("<think>\n").splitlines()
        named = [line.split()[1].rstrip(":") for line in trace]
        assert named == list(one.names[: len(named)])
    assert sum(m.names == HIDDEN_ORDER for m in made) == 30


def test_the_stage_writes_tables_that_evaluation_reads(tmp_path: Path) -> None:
    told = config(tmp_path / "data")
    run(told)
    tables = {f.stem: pq.read_table(f) for f in (tmp_path / "data").glob("*.parquet")}
    assert {"natural", "natural_sft", "twins", "twins_sft", "judge_sft", "ignoring_sft", "judge_test", "replay"} <= set(
        tables
    )
    assert tables["natural"].schema == tables["twins"].schema == tables["judge_test"].schema
    twins = tables["twins"].to_pylist()
    assert [r["twin"] for r in twins[::2]] == [r["twin"] for r in twins[1::2]] and twins[0]["twin"] is not None
    assert all(r["group"] == r["twin"] for r in twins)
    read = read_tasks(tmp_path / "data" / "judge_test.parquet")
    assert len(read) == tables["judge_test"].num_rows == 140
    for row, sft in zip(twins, tables["twins_sft"].to_pylist(), strict=True):
        assert sft["completion"][0]["content"] == row["trace"] and sft["id"] == row["id"]
    metrics = json.loads((tmp_path / "data" / "metrics.json").read_text())
    assert metrics["tables"]["twins"]["later_pairs"] == 0.5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tables": {"a": {"part": "rl", "rows": 4, "twins": True, "agree": 0.9}}}, "set agree, or twins"),
        ({"evaluations": {"test": {"nothing": 2}}}, "no set 'nothing'"),
        ({"evaluations": {"test": {"natural": 2, "blank": 4}}}, "rows of `natural`"),
        ({"evaluations": {"test": {"natural": 3}}}, "even number"),
        ({"modes": {"listwise": 1.0}}, "give shares of"),
    ],
)
def test_a_config_that_can_not_be_made_says_why(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(tmp_path, **changes)


def test_the_committed_config_tests_on_a_thousand_rows() -> None:
    told = load_config(RubricDataConfig, "configs/nano-grpo/rubric-data.yaml")
    assert told.evaluations["test"]["natural"] >= 1_000 and told.evaluations["test"]["twins"] >= 1_000
    rl = [t for name, t in told.tables.items() if name.startswith("rl")]
    assert len({(t.part, t.rows) for t in rl}) == 1, "the arms' tables share their questions"
