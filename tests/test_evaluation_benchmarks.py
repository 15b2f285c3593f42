"""Benchmarks become tasks: local files with the published columns, real sets, and what is refused or set aside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mr3.config import build_config
from mr3.evaluation.config import EvalConfig
from mr3.evaluation.loading import BenchmarkSource, load_all, load_benchmark
from mr3.evaluation.metrics import Judged, all_metrics
from mr3.evaluation.scores import Answer
from mr3.evaluation.tasks import EvalTask
from mr3.judge_card import JudgeCard, load_card
from mr3.judging.config import JudgeConfig
from mr3.records import Outcome, Verdict
from tests.judging_support import CARD, pair, single

A, B = "Assistant A", "Assistant B"
OWN = JudgeCard(profile="hf-card", strategy="tgt-eng", texts="own", max_prompt_tokens=9, max_output_tokens=9)
DATA = os.environ.get("MR3_DATA")
with_data = pytest.mark.skipif(DATA is None, reason="set MR3_DATA to the folder of the labelled real sets")


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def strict_pair(name: str, language: str = "en", **more: Any) -> dict[str, Any]:
    row = {"id": name, "language": language, "input": "What is 2 + 2?", "response_1": "4", "response_2": "5"}
    return {**row, "actual_score": A, **more}


def test_rows_of_a_published_set_become_tasks_with_their_subset(tmp_path: Path) -> None:
    rows = [
        strict_pair("1", source="math-prm"),
        strict_pair("1", source="donotanswer", language="de"),
        strict_pair("1", source="donotanswer", language="de", actual_score=B),
        strict_pair("2", source="hep-go", response_2=None),
    ]
    path = write(tmp_path / "m.jsonl", rows)
    source = BenchmarkSource(benchmark="m-rewardbench", path=path)
    with pytest.raises(
        ValueError, match=r"1 of 4 rows are set aside \(25\.0%\): 1 incomplete .*response_2.*allow_set_aside"
    ):
        load_benchmark(source, CARD)
    found = load_benchmark(source, CARD, allow_set_aside=True)
    assert [(t.id, t.part, t.gold, t.sets) for t in found.tasks] == [
        ("m-rewardbench/en/1", "math-prm", A, ("m-rewardbench",)),
        ("m-rewardbench/de/1", "donotanswer", A, ("m-rewardbench",)),
        ("m-rewardbench/de/1#2", "donotanswer", B, ("m-rewardbench",)),
    ]
    report = found.report()
    assert (report["judged"], report["rows"], report["published_rows"]) == (3, 3, 65_987)
    assert report["set_aside"] == {"incomplete": 1} and "response_2" in report["first_reasons"]["incomplete"]
    assert (report["counted_wrong"], report["not_counted"]) == (1, 0)
    assert found.wrong == {"m-rewardbench/en/2": Answer("", None, "en", "hep-go")}
    assert {t.task.family for t in found.tasks} == {"strict-pair-math", "strict-pair-safety"}


def test_the_strategy_decides_the_language_of_the_rubric(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", [strict_pair("1", source="math-prm", language="ja")])
    source = BenchmarkSource(benchmark="rewardbench", path=path)
    english, own = (load_benchmark(source, card).tasks[0].task for card in (CARD, OWN))
    assert (english.rubric.language, own.rubric.language) == ("en", "ja")
    assert english.id == own.id, "the same item for every judge"


def test_a_row_that_can_not_be_judged_is_wrong_in_the_figure_as_in_the_public_evaluation(tmp_path: Path) -> None:
    rows = [strict_pair(str(i), subset=part) for i, part in enumerate(["chat"] * 3 + ["safety"] * 2)]
    rows += [strict_pair("odd", subset="safety", actual_score="C"), {**strict_pair("5", subset=None), "input": None}]
    source = BenchmarkSource(benchmark="mm-eval", path=write(tmp_path / "m.jsonl", rows))
    found = load_benchmark(source, CARD, allow_set_aside=True)
    assert (found.report()["counted_wrong"], found.report()["not_counted"]) == (1, 1), "one shows no subset"
    metrics = all_metrics([judged(t, t.gold) for t in found.tasks], wrong={"mm-eval": list(found.wrong.values())})
    of_set = metrics["sets"]["mm-eval"]
    # chat 3 of 3, safety 2 of 3 with the row that was set aside.
    assert of_set["benchmark"]["value"] == pytest.approx((1 + 2 / 3) / 2) and of_set["accuracy"]["value"] == 1.0
    few = BenchmarkSource(benchmark="mm-eval", path=str(tmp_path / "m.jsonl"), sample=3)
    drawn = load_benchmark(few, CARD, allow_set_aside=True)
    assert len(drawn.tasks) + len(drawn.wrong) == 3, "a sample holds rows of both kinds"


def test_a_subset_that_the_figure_does_not_know_shows_before_anything_is_judged(tmp_path: Path) -> None:
    rows = [strict_pair("1", source="math-prm"), strict_pair("2", source="hep-cobol")]
    source = BenchmarkSource(benchmark="rewardbench", path=write(tmp_path / "m.jsonl", rows))
    with pytest.raises(ValueError, match=r"1 no_stratum .*no subset 'hep-cobol'"):
        load_benchmark(source, CARD)


def test_rows_that_do_not_count_are_left_out(tmp_path: Path) -> None:
    rtp = [
        {"id": f"7-{kind}", "language": "en", "input": "x", "actual_score": "true"} for kind in ("prompt", "completion")
    ]
    mm = [strict_pair(s, subset=s) for s in ("lang_res", "chat")]
    mgsm = [
        {"id": code, "language": code, "question": "q", "answer": "4", "actual_score": True} for code in ("en", "yo")
    ]
    sources = [
        BenchmarkSource(benchmark=name, path=write(tmp_path / f"{name}.jsonl", rows))
        for name, rows in (("rtp-lx", rtp), ("mm-eval", mm), ("mgsm", mgsm))
    ]
    tasks, reports = load_all(sources, CARD)
    assert [t.id for t in tasks] == ["rtp-lx/en/7-completion", "mm-eval/en/chat", "mgsm/en/en"]
    assert tasks[2].gold == "true" and set(reports) == {"rtp-lx", "mm-eval", "mgsm"}
    with pytest.raises(ValueError, match="mgsm is named twice"):
        load_all([sources[2], sources[2]], CARD)


def test_samples_are_the_same_in_every_run_and_in_every_order(tmp_path: Path) -> None:
    rows = [strict_pair(str(i), source="math-prm", language=("en", "de")[i % 2]) for i in range(40)]
    picked = []
    for name, given in (("a", rows), ("b", rows[::-1])):
        source = BenchmarkSource(benchmark="rewardbench", path=write(tmp_path / f"{name}.jsonl", given), sample=10)
        found = load_benchmark(source, CARD)
        picked.append([t.id for t in found.tasks])
        assert found.report()["judged"] == 10 and found.share.rows == 40
    assert picked[0] == picked[1] and len({i.split("/")[1] for i in picked[0]}) == 2
    only = BenchmarkSource(benchmark="rewardbench", path=str(tmp_path / "a.jsonl"), languages=["de"])
    assert {t.task.language for t in load_benchmark(only, CARD).tasks} == {"de"}
    nobody = BenchmarkSource(benchmark="rewardbench", path=str(tmp_path / "a.jsonl"), languages=["fr"])
    with pytest.raises(ValueError, match="no row of the benchmark rewardbench can be judged"):
        load_benchmark(nobody, CARD)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"benchmark": "xcopy", "path": "x"}, "did you mean 'xcopa'"),
        ({"benchmark": "mgsm"}, "revision to a commit of 40 hex digits"),
        ({"benchmark": "mgsm", "revision": "main"}, "revision to a commit of 40 hex digits"),
        ({"benchmark": "xcopa"}, "is read from a folder: set path"),
        ({"benchmark": "xcopa", "path": "x", "split": "test"}, "is local"),
    ],
)
def test_sources_that_can_not_be_read_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BenchmarkSource.model_validate(given)
    assert BenchmarkSource(benchmark="mgsm", revision="0" * 40).files() == []


def judged(task: EvalTask, said: str | None, expected: float | None = None) -> Judged:
    outcome = Outcome.OK if said else Outcome.PARSE_FAILED
    return Judged(task, Verdict(id="v", task_id=task.id, outcome=outcome, score=said, expected=expected))


def test_a_benchmark_set_reports_its_own_figure_and_the_rest() -> None:
    tasks = [EvalTask(pair(language="de"), A, ("mm-eval",), part=part) for part in ("chat", "chat", "chat", "safety")]
    found = all_metrics([judged(t, s) for t, s in zip(tasks, (A, A, None, B), strict=True)])["sets"]["mm-eval"]
    # chat 2 of 3 (a failure is wrong), safety 0 of 1: (2/3 + 0) / 2.
    assert found["benchmark"]["value"] == pytest.approx(1 / 3) and found["accuracy"]["value"] == 0.5
    assert found["benchmark"]["parts"]["chat"]["n"] == 3
    assert found["failed_by_language"]["de"]["value"] == 0.25
    assert found["by_mode"]["pairwise"]["kappa"]["value"] is None


def test_calibration_by_hand_and_its_absence_has_a_reason() -> None:
    # P(A better) 0.95 with gold A and B, 0.25 with gold B and B: |0.95 - 0.5| * 2/4 + |0.25 - 0| * 2/4 = 0.35.
    rows = [(A, 0.95), (B, 0.95), (B, 0.25), (B, 0.25)]
    found = all_metrics([judged(EvalTask(pair(), gold, ("s",)), A, p) for gold, p in rows])["sets"]["s"]
    assert found["calibration"]["pairwise"]["ece"]["value"] == pytest.approx(0.35)
    # Pointwise on 1-5: expected 4 is 0.75 of the way, gold 5 is 1.0.
    five = all_metrics([judged(EvalTask(single("pointwise"), "5", ("s",)), "4", 4.0)])["sets"]["s"]
    assert five["calibration"]["pointwise"]["ece"]["value"] == pytest.approx(0.25)
    none = all_metrics([judged(EvalTask(pair(), A, ("s",)), A)])["sets"]["s"]["calibration"]["pairwise"]["ece"]
    assert none["value"] is None and "logprobs" in none["reason"]


def test_a_judge_that_likes_length_shows_beside_a_gold_that_does_not() -> None:
    lengths = [("x" * a, "x" * b) for a, b in ((9, 1), (1, 9), (8, 2), (2, 8), (7, 3), (3, 7))]
    gold = [A, A, B, B, A, B]
    tasks = [EvalTask(pair(*texts), g, ("s",)) for texts, g in zip(lengths, gold, strict=True)]
    said = [A if len(a) > len(b) else B for a, b in lengths]
    found = all_metrics([judged(t, s) for t, s in zip(tasks, said, strict=True)])["sets"]["s"]["length_correlation"]
    assert found["pairwise"]["judge"]["value"] > 0.8 > 0.4 > found["pairwise"]["gold"]["value"]
    # Single responses: lengths are ranks within a language, so a script of long words is no bias.
    both = [
        EvalTask(single("binary", "x" * n, language=c), "true", ("s",)) for c, n in (("en", 1), ("en", 2), ("th", 50))
    ]
    assert (
        all_metrics([judged(t, "true") for t in both])["sets"]["s"]["length_correlation"]["binary"]["judge"]["value"]
        is None
    )


def config(tmp_path: Path, **more: Any) -> EvalConfig:
    judge = {"model": "some/model", "profile": "compact", "max_prompt_tokens": 9, "max_output_tokens": 9}
    data = {"output_dir": tmp_path / "eval", "tasks": "t.parquet", "judge": judge}
    return build_config(EvalConfig, {k: v for k, v in (data | more).items() if v is not None}, "test")


def test_judges_and_seeds_become_one_run_each(tmp_path: Path) -> None:
    hot = {
        "model": "m",
        "profile": "compact",
        "max_prompt_tokens": 9,
        "max_output_tokens": 9,
        "sampling": {"temperature": 1},
    }
    many = config(tmp_path, judge=None, judges={"a": hot, "b": hot}, seeds=[3, 4])
    runs = list(many.runs())
    assert [(r.name, r.seeds, r.output_dir) for r in runs] == [
        (name, [seed], tmp_path / "eval" / name / f"seed-{seed}") for name in "ab" for seed in (3, 4)
    ]
    assert {r.store for r in runs} == {tmp_path / "eval" / "store"}
    assert [r.sampled_judge().card.sampling.seed for r in runs] == [3, 4, 3, 4]
    assert not many.is_one_run and config(tmp_path, seeds=[7]).is_one_run
    assert config(tmp_path).sampled_judge().card.sampling.seed is None
    with pytest.raises(ValueError, match="samples at temperature 0"):
        list(config(tmp_path, seeds=[0, 1]).runs())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"judge": None}, "either `judge`, or `judges`"),
        ({"judges": {"a": {"model": "m"}}}, "either `judge`, or `judges`"),
        ({"tasks": None}, "nothing to judge"),
        ({"tasks": None, "sets": ["x"], "benchmarks": [{"benchmark": "xcopa", "path": "x"}]}, "`sets` chooses among"),
        ({"judge": None, "judges": {"a/b": {"model": "m"}}}, "names a folder"),
        ({"judge": None, "judges": {"a": {"model": "m"}}, "name": "x"}, "`name` is for one judge"),
        ({"seeds": [1, 1]}, "comes twice"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(tmp_path, **more)


def test_a_model_without_a_card_may_name_its_modes(tmp_path: Path) -> None:
    given = {"model": "m", "profile": "compact", "max_prompt_tokens": 9, "max_output_tokens": 9, "modes": ["choice"]}
    assert JudgeConfig.model_validate(given).card.modes == ("choice",)
    with pytest.raises(ValueError, match="not a judge"):
        load_card("m")


@with_data
@pytest.mark.parametrize(
    ("name", "folder", "tasks", "languages"),
    [
        ("xcopa", "xcopa", 1_100, 11),
        ("pandalm", "pandalm_testset", 999, 1),
        ("truthfulqa_multi", "truthfulqa_multi", 1_199, 3),
        ("mlqe_pe_post_edit", "mlqe_pe", 5_480, 3),
    ],
)
def test_labelled_real_sets_are_benchmarks(name: str, folder: str, tasks: int, languages: int) -> None:
    found = load_benchmark(BenchmarkSource(benchmark=name, path=f"{DATA}/{folder}"), CARD)
    assert (len(found.tasks), len({t.task.language for t in found.tasks})) == (tasks, languages)
    assert len({t.id for t in found.tasks}) == tasks
