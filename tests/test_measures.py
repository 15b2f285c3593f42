"""`mr3 measures` says of judges whose ways are known what is known of them, and refuses what it can't compare."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from mr3.artifacts import stage_run
from mr3.config import StageConfig
from mr3.evaluation.measures import Gate, MeasuresConfig, check_gates, number_at, run
from mr3.evaluation.output import VerdictTable
from mr3.evaluation.tasks import read_tasks
from mr3.items import read_items
from mr3.nano.facts import Question
from mr3.nano.rubric_data import RubricDataConfig
from mr3.nano.rubric_data import run as make_data
from mr3.nano.shortcut import HIDDEN_ORDER
from mr3.nano.twins import part_contents
from mr3.nano.verdicts import gold
from mr3.records import Outcome, Verdict

CHECKERS = {name: f"mr3.nano.findings:{name}" for name in ("faithful", "findings_right", "findings_true")}
Way = Callable[[Mapping[str, Any]], tuple[str | None, str]]
"""Row -> (score, trace) of a judge; no score is a failed verdict."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measures") / "data"
    told = {
        "output_dir": folder,
        "tables": {"a": {"part": "rl", "rows": 2}},
        "evaluations": {"test": {"natural": 60, "blank": 40, "twins": 60, "unseen": 30}},
        "replay_documents": 2,
    }
    make_data(RubricDataConfig.model_validate(told))
    return folder / "judge_test.parquet"


def faithful_way(row: Mapping[str, Any]) -> tuple[str, str]:
    """Reads the rubric; is lost without one."""
    if row["blank_of"]:
        return _shortcut(row)
    return row["gold"], row["trace"].partition("</think>")[0].removeprefix("<think>")


def _question(row: Mapping[str, Any]) -> Question:
    meta = json.loads(row["meta"])
    for content in part_contents("test"):
        for c in (content, dataclasses.replace(content, x=content.y, n=content.m, y=content.x, m=content.n)):
            question = Question(c, meta["family"], meta["language"])
            if content.key == meta["content"] and question.text == json.loads(row["task"])["input"]:
                return question
    raise AssertionError("every row has its question")


def _shortcut(row: Mapping[str, Any]) -> tuple[str, str]:
    label, completion = gold(row["mode"], _question(row), HIDDEN_ORDER, json.loads(row["task"])["responses"])
    return label, completion.partition("</think>")[0].removeprefix("<think>")


def failing_way(row: Mapping[str, Any]) -> tuple[None, str]:
    """Never comes to an end."""
    return None, "1 correct 1 correct"


def judged(folder: Path, data: Path, way: Way, swapped: bool = False) -> Path:
    """A folder such as `mr3 eval` leaves, by a judge of that way."""
    rows = {row["id"]: row for row in pq.read_table(data).to_pylist()}
    with stage_run("eval", StageConfig(output_dir=folder), [data]) as stage:
        with VerdictTable(folder / "verdicts.parquet") as table:
            for given in read_tasks(data):
                score, trace = way(rows[given.id])
                outcome = Outcome.OK if score is not None else Outcome.TRUNCATED
                orders = (False, True) if swapped and given.task.mode == "pairwise" else (False,)
                for turned in orders:
                    verdict = Verdict(
                        id=f"{given.id}/{turned}",
                        task_id=given.id,
                        outcome=outcome,
                        score="Tie" if turned and score is not None else score,
                        trace=trace,
                        swapped=turned,
                        output_tokens=30 if turned else 10,
                    )
                    table.add(given, verdict, score, None)
        stage.metrics["judged"] = len(rows)
    return folder


def measured(tmp_path: Path, data: Path, way: Way, **changes: Any) -> dict[str, Any]:
    swapped = changes.pop("swapped", False)
    told = {
        "output_dir": tmp_path / "measures",
        "tasks": data,
        "runs": {"greedy": judged(tmp_path / "eval", data, way, swapped)},
        "checkers": CHECKERS,
        "split_by": "faithful",
    }
    run(MeasuresConfig.model_validate(told | changes))
    found: dict[str, Any] = json.loads((tmp_path / "measures" / "metrics.json").read_text())
    return found


def test_a_judge_that_reads_the_rubric(tmp_path: Path, data: Path) -> None:
    found = measured(tmp_path, data, faithful_way, swapped=True)["greedy"]
    twins, natural = found["sets"]["twins"], found["sets"]["natural"]
    assert twins["both_right"]["value"] == 1.0 and twins["twins"]["pairs"] == 30
    assert twins["twins"]["same_label"]["value"] == 0.0
    assert set(twins["twins"]["both_right_by_edit"]) == {"order", "replaced", "other"}
    assert sum(r["n"] for r in twins["twins"]["both_right_by_edit"].values()) == 30
    for name in ("accuracy", "shortcut_right", "shortcut_wrong"):
        assert natural[name]["value"] == 1.0
    assert natural["shortcut_right"]["n"] + natural["shortcut_wrong"]["n"] == 60
    assert natural["checks"]["findings_right"]["value"] == 1.0 and natural["split"]["share"]["value"] == 1.0
    gap = found["blank"]
    assert gap["accuracy"]["value"] == 1.0 and gap["gap"]["n"] == 40
    assert gap["gap"]["value"] == pytest.approx(1.0 - gap["blank"]["value"]) and 0.2 < gap["gap"]["value"] < 0.7
    # Its second order always says Tie: consistent where the first does too.
    ties = [t.gold for t in read_tasks(data) if t.task.mode == "pairwise" and "natural" in t.sets]
    assert natural["order_consistency"]["value"] == pytest.approx(sum(g == "Tie" for g in ties) / len(ties))
    pairs, single = len(ties), 60 - len(ties)
    assert natural["tokens_per_verdict"]["value"] == pytest.approx((pairs * 40 + single * 10) / (2 * pairs + single))


def test_a_judge_that_takes_the_shortcut(tmp_path: Path, data: Path) -> None:
    found = measured(tmp_path, data, _shortcut)["greedy"]
    twins, natural = found["sets"]["twins"], found["sets"]["natural"]
    assert twins["both_right"]["value"] == 0.0 and twins["twins"]["same_label"]["value"] == 1.0
    assert natural["shortcut_right"]["value"] == 1.0 and natural["shortcut_wrong"]["value"] == 0.0
    assert natural["shortcut_taken"]["value"] == 1.0
    assert natural["accuracy"]["value"] == pytest.approx(natural["shortcut"]["value"])
    assert found["blank"]["gap"]["value"] == 0.0 and found["blank"]["same_label"]["value"] == 1.0
    assert twins["checks"]["findings_true"]["value"] == 1.0 and twins["checks"]["findings_right"]["value"] < 0.7
    assert twins["split"]["share"]["value"] == 0.0 and twins["split"]["difference"] is None


def test_failed_verdicts_are_wrong_and_counted(tmp_path: Path, data: Path) -> None:
    found = measured(tmp_path, data, failing_way)["greedy"]
    assert found["blank"]["same_label"]["value"] == 0.0, "two failures are no label that both have"
    natural = found["sets"]["natural"]
    assert natural["failed"]["value"] == 1.0 and natural["accuracy"]["value"] == 0.0
    assert natural["checks"]["findings_right"]["value"] == 0.0
    assert natural["ece"]["pairwise"]["value"] is None


def test_items_pair_runs_by_task_and_by_twins(tmp_path: Path, data: Path) -> None:
    found = measured(tmp_path, data, faithful_way)["greedy"]["sets"]
    items = read_items("measures", tmp_path / "measures")
    by_set: dict[str, list[float]] = {}
    for item in items:
        by_set.setdefault(item.set, []).append(item.score)
    assert len(by_set["greedy/twins/both_right"]) == 30 and len(by_set["greedy/natural/accuracy"]) == 60
    wrong = by_set["greedy/natural/shortcut_wrong"]
    assert sum(wrong) / len(wrong) == found["natural"]["shortcut_wrong"]["value"]
    assert len({(i.set, i.id) for i in items}) == len(items)


def test_gates_are_kept_missed_or_not_measured(tmp_path: Path, data: Path) -> None:
    gates = {
        "greedy.sets.twins.both_right": {"max": 0.1},
        "greedy.sets.natural.accuracy": {"min": 0.99},
        "greedy.sets.twins.split.difference": {"min": 0.3},
    }
    found = measured(tmp_path, data, _shortcut, gates=gates)
    assert [gate["met"] for gate in found["gates"].values()] == [True, False, False] and not found["gates_met"]
    assert found["gates"]["greedy.sets.twins.split.difference"]["value"] is None
    with pytest.raises(ValueError, match="no measure at"):
        check_gates({"a": {"b": 1.0}}, {"a.c": Gate(max=1)})
    assert number_at({"a": {"value": 0.5, "n": 3}}, "a") == 0.5 and number_at({"a": {"n": 3}}, "a.n") == 3


def other_table(tmp_path: Path, data: Path) -> Iterator[tuple[Path, str]]:
    table = pq.read_table(data)
    few = tmp_path / "few.parquet"
    pq.write_table(table.slice(0, 5), few)
    yield few, "not in `tasks`"
    rows = table.to_pylist()
    rows[0]["gold"] = next(g for g in ("1", "2", "true", "false", "Tie", "Assistant A") if _legal(rows[0], g))
    changed = tmp_path / "changed.parquet"
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), changed)
    yield changed, "judged another table"


def _legal(row: Mapping[str, Any], label: str) -> bool:
    modes = {"pairwise": ("Tie", "Assistant A"), "binary": ("true", "false"), "pointwise": ("1", "2")}
    return label in modes[row["mode"]] and label != row["gold"]


def test_evaluations_of_other_tasks_are_refused(tmp_path: Path, data: Path) -> None:
    folder = judged(tmp_path / "eval", data, faithful_way)
    for tasks, says in other_table(tmp_path, data):
        told = {"output_dir": tmp_path / tasks.stem, "tasks": tasks, "runs": {"greedy": folder}}
        with pytest.raises(ValueError, match=says):
            run(MeasuresConfig.model_validate(told))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"split_by": "nothing"}, "name one of checkers"),
        ({"gates": {"other.sets": {"max": 1}}}, "of no run"),
        ({"gates": {"greedy.sets": {}}}, "needs min, max or both"),
        ({"runs": {}}, "at least 1"),
    ],
)
def test_a_config_that_can_not_be_measured_says_why(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    told = {"output_dir": tmp_path, "tasks": tmp_path / "x", "runs": {"greedy": tmp_path}}
    with pytest.raises(ValueError, match=says):
        MeasuresConfig.model_validate(told | changes)


def test_the_command_measures_and_a_folder_that_is_no_evaluation_is_an_error(tmp_path: Path, data: Path) -> None:
    folder = judged(tmp_path / "eval", data, faithful_way)
    told = {
        "output_dir": str(tmp_path / "out"),
        "tasks": str(data),
        "runs": {"greedy": str(folder)},
        "checkers": CHECKERS,
    }
    told["gates"] = {"greedy.sets.twins.both_right": {"min": 1.0}}
    config = tmp_path / "measures.yaml"
    config.write_text(yaml.safe_dump(told))
    command = [sys.executable, "-m", "mr3.cli.main", "measures", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "ok   greedy.sets.twins.both_right: 1.000" in done.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["gates_met"] is True
    again = [*command, "--runs.greedy", str(tmp_path), "--output_dir", str(tmp_path / "new")]
    failed = subprocess.run(again, capture_output=True, text=True, timeout=300, check=False)
    assert failed.returncode == 2 and "not a finished stage" in failed.stderr
