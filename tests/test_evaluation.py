"""Evaluation: every metric against cases counted by hand, and the whole stage against a scripted judge behind HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mr3.artifacts import read_json
from mr3.config import build_config
from mr3.evaluation.baselines import baselines
from mr3.evaluation.metrics import Combine, Judged, all_metrics, combine_orders
from mr3.evaluation.output import choose_examples
from mr3.evaluation.stage import EvalConfig, main, run
from mr3.evaluation.tasks import EvalTask, read_tasks
from mr3.ground_truth import compare, load_checker
from mr3.inference.session import ray_session
from mr3.records import PAIRWISE_LABELS, Outcome, Task, Verdict
from mr3.rubrics import Rubric
from tests.judging_support import pair, single
from tests.rewards_support import judge_server, make_judge

A, B, TIE = PAIRWISE_LABELS


def verdict(score: str | None, expected: float | None = None, **more: Any) -> Verdict:
    outcome = Outcome.OK if score is not None else Outcome.PARSE_FAILED
    return Verdict(id="v", task_id="t", outcome=more.pop("outcome", outcome), score=score, expected=expected, **more)


def judged(
    gold: str,
    first: str | None,
    second: str | None = "-",
    *,
    task: Task | None = None,
    sets: tuple[str, ...] = ("s",),
    group: str | None = None,
    combine: Combine = "none",
) -> Judged:
    swapped = None if second == "-" else verdict(second, swapped=True)
    return Judged(EvalTask(task or pair(), gold, sets, group), verdict(first), swapped, combine)


def test_a_failed_verdict_is_wrong_and_its_failure_is_counted() -> None:
    rows = [judged(A, A), judged(A, B), judged(A, None), judged(TIE, TIE)]
    rows.append(Judged(EvalTask(pair(), A, ("s",)), verdict(A, repaired=True)))
    found = all_metrics(rows)["sets"]["s"]
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (3 / 5, 5)
    assert found["failed"]["rate"]["value"] == 1 / 5
    assert found["failed"]["before_repair"]["value"] == 2 / 5
    assert found["failed"]["outcomes"] == {"ok": 4, "parse_failed": 1}
    assert found["accuracy"]["contents"] == 1, "five verdicts about one prompt are no five independent ones"
    apart = [replace(j, given=replace(j.given, content=str(i))) for i, j in enumerate(rows)]
    low, high = all_metrics(apart)["sets"]["s"]["accuracy"]["interval"]
    assert 0.2 < low < 0.6 < high < 0.9
    one = found["accuracy"]["interval"]
    assert one[0] < low and high < one[1]


def test_modes_languages_and_sets_are_counted_apart() -> None:
    rows = [
        judged(A, A, sets=("x", "y")),
        judged(A, B, task=pair(language="de")),
        judged("4", "2", task=single("pointwise")),
        judged("true", "true", task=single("binary", language="de")),
    ]
    found = all_metrics(rows)
    assert found["sets"].keys() == {"s", "x", "y"}
    assert found["sets"]["y"]["accuracy"]["value"] == 1.0
    s = found["sets"]["s"]
    assert {k: v["value"] for k, v in s["by_language"].items()} == {"de": 0.5, "en": 0.0}
    assert {k: v["accuracy"]["value"] for k, v in s["by_mode"].items()} == {
        "binary": 1.0,
        "pairwise": 0.0,
        "pointwise": 0.0,
    }
    assert s["by_mode"]["pointwise"]["mean_absolute_error"] == {"value": 2.0, "n": 1}
    assert s["by_mode"]["binary"]["kappa"]["value"] is None
    assert "order_consistency" not in s


def test_order_consistency_is_over_pairs_answered_in_both_orders() -> None:
    rows = [judged(A, A, A), judged(A, B, B), judged(A, A, B), judged(A, TIE, TIE), judged(A, None, A)]
    found = all_metrics(rows)["sets"]["s"]
    assert (found["order_consistency"]["value"], found["order_consistency"]["n"]) == (3 / 4, 4)
    # Six decided verdicts. First is A in the given order and B in the exchanged one: one in rows 1 and 2, two in row 3.
    assert (found["first_shown_wins"]["value"], found["first_shown_wins"]["n"]) == (4 / 6, 6)
    assert found["failed"]["rate"]["n"] == 10


@pytest.mark.parametrize(
    ("first", "second", "agree", "mean"),
    [
        (verdict(A), verdict(A), A, A),
        (verdict(A), verdict(B), TIE, TIE),
        (verdict(A, 0.9), verdict(B, 0.4), TIE, A),
        (verdict(A, 0.6), verdict(B, 0.1), TIE, B),
        (verdict(TIE), verdict(B), TIE, B),
        (verdict(None), verdict(B), None, None),
    ],
)
def test_combining_orders(first: Verdict, second: Verdict, agree: str | None, mean: str | None) -> None:
    assert combine_orders(first, second, PAIRWISE_LABELS, "agree") == agree
    assert combine_orders(first, second, PAIRWISE_LABELS, "mean") == mean


def test_combined_answers_decide_accuracy_only_where_configured() -> None:
    rows: list[Combine] = ["none", "agree", "mean"]
    right = {how: judged(A, A, B, combine=how).right for how in rows}
    assert right == {"none": True, "agree": False, "mean": False}
    with pytest.raises(ValueError, match="combine: none"):
        combine_orders(verdict("1"), verdict("7"), tuple("1234567"), "agree")


def test_a_rubric_flip_counts_only_when_all_partners_are_right() -> None:
    rows = [judged(A, A, group="1"), judged(B, B, group="1"), judged(A, A, group="2"), judged(B, A, group="2")]
    found = all_metrics(rows, ["s"])["sets"]["s"]
    assert (found["rubric_flip"]["value"], found["rubric_flip"]["n"]) == (0.5, 2)
    assert found["accuracy"]["value"] == 0.75
    with pytest.raises(ValueError, match="one row only"):
        all_metrics(rows[:3], ["s"])
    with pytest.raises(ValueError, match="no group"):
        all_metrics([judged(A, A)], ["s"])
    with pytest.raises(ValueError, match="not evaluated: z"):
        all_metrics(rows, ["z"])


def test_baselines_on_pairs() -> None:
    tasks = [
        EvalTask(pair("longer one", "short"), A, ("s",), None, A),
        EvalTask(pair("x", "longer"), A, ("s",), None, B),
        EvalTask(pair("same", "size"), TIE, ("s",), None, TIE),
        EvalTask(pair("x", "longer"), B, ("s",)),
        EvalTask(single("binary"), "true", ("s",)),
        EvalTask(pair(rubric=Rubric(levels={"1": "a", "2": "b", "3": "c", "4": "d"})), "1", ("s",)),
    ]
    found = baselines(tasks)
    assert {k: (v["value"], v["n"]) for k, v in found.items()} == {
        "longer": (3 / 4, 4),
        "always_a": (2 / 4, 4),
        "first_criterion": (2 / 3, 3),
    }
    assert baselines(tasks[4:]) == {}


def test_examples_are_of_many_languages_and_modes() -> None:
    tasks = [
        EvalTask(make(m, id=f"{c}-{m}-{i}", language=c), "4", ("s",))
        for c in ("de", "en", "ja")
        for m, make in (("binary", single), ("pointwise", single))
        for i in range(5)
    ]
    chosen = choose_examples(tasks, 6)
    assert len(chosen) == 6
    assert {i.rsplit("-", 1)[0] for i in chosen} == {
        f"{c}-{m}" for c in ("de", "en", "ja") for m in ("binary", "pointwise")
    }
    assert choose_examples(tasks[:2], 9) == {t.id for t in tasks[:2]}
    assert choose_examples(tasks, 0) == set()


def test_the_first_criterion_that_differs_decides() -> None:
    a, b = {"correct": True, "brief": False}, {"correct": True, "brief": True}
    assert [compare(["correct", "brief"], *p) for p in ((a, b), (b, a), (a, a))] == [-1, 1, 0]
    assert compare(["correct"], a, b) == 0
    with pytest.raises(ValueError, match="does not know the criterion 'polite'"):
        compare(["polite"], a, b)


def test_checkers_are_imported_by_name() -> None:
    checker = load_checker("tests.rewards_support:check")
    assert checker({"answer": 4}, "It is 4")["correct"]
    for path, message in (
        ("tests.rewards_support", "package.module:name"),
        ("tests.nowhere:check", "No module named"),
        ("tests.rewards_support:nothing", "no attribute 'nothing'"),
        ("tests.rewards_support:TEMPLATE", "not a function"),
    ):
        with pytest.raises(ValueError, match=message):
            load_checker(path)


def row(task: Task, gold: str, *sets: str, group: str | None = None) -> dict[str, Any]:
    return {"id": task.id, "task": task.model_dump_json(), "gold": gold, "sets": list(sets), "group": group}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_bad_task_files_are_named_errors(tmp_path: Path) -> None:
    good = row(pair(id="a"), A, "s")
    for rows, message in (
        ([good, good], r"row 2 \('a'\) has an id that comes twice"),
        ([good | {"gold": "A"}], "gold 'A'"),
        ([good | {"gold": None}], "has no gold"),
        ([good | {"task": "{}"}], r"row 1 \('a'\) holds a task that is not valid"),
        ([good | {"id": "b"}], "with the id 'a'"),
        ([{"id": "a"}], "no column task, gold, sets"),
    ):
        with pytest.raises(ValueError, match=message):
            read_tasks(write(tmp_path / "t.parquet", rows))
    with pytest.raises(ValueError, match="has no set z; it has s"):
        read_tasks(write(tmp_path / "t.parquet", [good]), ["z"])
    with pytest.raises(ValueError, match="no evaluation tasks at"):
        read_tasks(tmp_path / "absent.parquet")


def test_a_few_bad_tasks_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(pair(id=f"t{i}"), A, "s") for i in range(40)]
    rows[7]["task"], rows[9]["gold"] = "{", "A"
    found = read_tasks(write(tmp_path / "t.parquet", rows))
    assert [t.id for t in found] == [f"t{i}" for i in range(40) if i not in (7, 9)]
    assert "row 8 ('t7')" in caplog.text and "row 10 ('t9') has gold 'A'" in caplog.text
    rows[0]["gold"] = "A"
    with pytest.raises(ValueError, match="3 of 40 evaluation tasks can't be used"):
        read_tasks(write(tmp_path / "t.parquet", rows))


def stage_config(tmp_path: Path, url: str, **more: Any) -> EvalConfig:
    data = {
        "output_dir": tmp_path / "eval",
        "tasks": tmp_path / "tasks.parquet",
        "judge": {"model": str(tmp_path / "judge"), "backend": "endpoint", "url": url, "revision": "1"},
    }
    return build_config(EvalConfig, data | more, "test")


def test_the_stage_end_to_end(tmp_path: Path) -> None:
    make_judge(tmp_path / "judge")
    rows = [
        row(pair("4", "5", id="a", input="plain"), A, "pairs", "all"),
        row(pair("5", "4", id="b", input="plain", language="de"), B, "pairs", group="g"),
        row(pair("4", "5", id="c", input="BIASED"), B, "pairs", group="g"),
        row(pair("4", "5", id="d", input="BROKEN"), A, "pairs", "all"),
        row(single("binary", "4", id="e", input="plain", language="ja"), "true", "single", "all"),
        row(pair("4", "5", id="f", input="plain"), A, "left out"),
    ]
    write(tmp_path / "tasks.parquet", rows)
    with judge_server() as (url, prompts), ray_session():
        config = stage_config(tmp_path, url, sets=["pairs", "single", "all"])
        run(config)
        asked = len(prompts)
        run(config)
        again = config.model_copy(update={"output_dir": tmp_path / "again", "store": tmp_path / "eval" / "store"})
        run(again)
        assert len(prompts) == asked == 9, "a finished stage and a shared store ask for nothing"
    metrics = read_json(tmp_path / "eval" / "metrics.json")
    pairs = metrics["sets"]["pairs"]
    assert (pairs["accuracy"]["value"], pairs["accuracy"]["n"]) == (0.5, 4)
    assert (pairs["order_consistency"]["value"], pairs["order_consistency"]["n"]) == (2 / 3, 3)
    assert pairs["failed"]["outcomes"] == {"ok": 6, "parse_failed": 2}
    assert metrics["sets"]["single"]["accuracy"]["value"] == 1.0
    assert metrics["sets"]["all"]["tasks"] == 3
    assert (metrics["verdicts"], metrics["new_verdicts"]) == (9, 9)
    assert read_json(tmp_path / "again" / "metrics.json")["new_verdicts"] == 0
    assert read_json(tmp_path / "again" / "metrics.json")["sets"] == metrics["sets"]
    table = pq.read_table(tmp_path / "eval" / "verdicts.parquet").to_pylist()
    assert len({r["id"] for r in table}) == len(table) == 9
    by_key = {(r["task_id"], r["swapped"]): r for r in table}
    assert by_key["b", True]["score"] == B and by_key["b", True]["language"] == "de"
    assert by_key["c", False]["score"] == A and by_key["c", True]["score"] == B
    assert by_key["d", False]["outcome"] == "parse_failed" and by_key["d", False]["gold"] == A
    examples = {e["id"]: e for e in json.loads((tmp_path / "eval" / "examples.json").read_text())}
    assert examples.keys() == {"a", "b", "c", "d", "e"}
    assert examples["e"]["trace"] == "because" and examples["e"]["right"] and examples["e"]["rubric"]["criteria"]


def test_settings_that_can_not_work_are_refused_before_any_judging(tmp_path: Path) -> None:
    make_judge(tmp_path / "judge")
    card = read_json(tmp_path / "judge" / "judge.json") | {"modes": ["binary"]}
    write(tmp_path / "tasks.parquet", [row(pair(id="a"), A, "s")])
    url = "http://127.0.0.1:9/v1"
    with pytest.raises(ValueError, match="needs both orders"):
        run(stage_config(tmp_path, url, combine="mean", orders="one"))
    (tmp_path / "judge" / "judge.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"1 tasks have modes .*first: 'a', pairwise"):
        run(stage_config(tmp_path, url, output_dir=tmp_path / "other"))
    assert not (tmp_path / "other").exists(), "a refused config leaves no folder that stands in the way of a right one"
    config = tmp_path / "eval.yaml"
    config.write_text(f"output_dir: {tmp_path}/x\ntasks: {tmp_path}/tasks.parquet\njudge:\n  model: {tmp_path}/tasks\n")
    assert main(["--config", str(config)]) == 2
