"""Studies: the graph of arms and seeds, what is refused, and the paired table by hand-made verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mr3.cli.study import StudyConfig, main, steps_of
from mr3.cli.study_table import StudyPlan, compare_arms, conclusion, right_answers, write_tables

STAGES = Path("configs/nano")


def study(folder: Path, **changes: Any) -> StudyConfig:
    """Two arms of SFT and evaluation over shared data."""
    given: dict[str, Any] = {
        "output_dir": folder,
        "question": "Does it matter?",
        "seed_varies": "everything",
        "configs": STAGES,
        "seeds": [3, 4],
        "shared": {"data": {"stage": "data", "config": "data.yaml"}},
        "each": {
            "sft": {"stage": "sft", "config": "judge-sft.yaml", "needs": ["data"]},
            "eval": {
                "stage": "eval",
                "config": "judge-eval.yaml",
                "needs": ["sft"],
                "args": ["--judge.model", "${ARM_RUN}/sft/model"],
            },
        },
        "arms": {"few": {"sft": ["--max_rows", "10"]}, "many": {}},
        "baseline": "many",
        "compared": "eval",
    }
    return StudyConfig.model_validate({**given, **changes})


def test_every_arm_of_every_seed_has_its_own_folder_and_shares_the_rest(tmp_path: Path) -> None:
    steps = {step.name: step for step in steps_of(study(tmp_path))}
    assert len(steps) == 2 * (1 + 2 * 2)
    few, many = steps["seed-3/few/sft"], steps["seed-3/many/sft"]
    assert few.needs == many.needs == ("seed-3/data",)
    assert few.config.output_dir == tmp_path / "seed-3/few/sft"
    assert (few.config.max_rows, many.config.max_rows) == (10, None)  # type: ignore[attr-defined]
    assert few.config.seed == 3 and steps["seed-4/few/sft"].config.seed == 4
    assert str(few.config.data) == f"{tmp_path}/seed-3/data/judge_sft.parquet"  # type: ignore[attr-defined]
    evaluation = steps["seed-4/few/eval"]
    assert evaluation.needs == ("seed-4/few/sft",)
    assert evaluation.config.judge.model == f"{tmp_path}/seed-4/few/sft/model"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "none"}, "baseline 'none' is no arm: few, many"),
        ({"compared": "sft"}, "name a stage of `each` that is an evaluation"),
        ({"arms": {"few": {"stf": []}, "many": {}}}, "changes 'stf', which is no stage"),
        ({"arms": {"many": {}}}, "at least 2 items"),
        ({"arms": {"data": {}, "many": {}}}, "'data' comes twice"),
        (
            {"once": {"first": {"stage": "data", "config": "data.yaml", "needs": ["sft"]}}},
            "'first' needs one that runs more often",
        ),
    ],
)
def test_a_study_that_can_not_be_run_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        study(tmp_path, **changes)


def test_what_runs_once_serves_all_seeds(tmp_path: Path) -> None:
    once = {"world": {"stage": "data", "config": "data.yaml"}}
    each = {
        "sft": {"stage": "sft", "config": "judge-sft.yaml", "needs": ["world"], "args": ["--data", "${ONCE}/world/x"]},
        "eval": {"stage": "eval", "config": "judge-eval.yaml", "needs": ["sft"]},
    }
    steps = {step.name: step for step in steps_of(study(tmp_path, once=once, shared={}, each=each))}
    assert len(steps) == 1 + 2 * 2 * 2
    assert steps["once/world"].config.output_dir == tmp_path / "once/world" and steps["once/world"].config.seed == 0
    for seed in (3, 4):
        step = steps[f"seed-{seed}/few/sft"]
        assert step.needs == ("once/world",)
        assert str(step.config.data) == f"{tmp_path}/once/world/x"  # type: ignore[attr-defined]


def test_a_mistake_in_the_last_stage_shows_before_the_first_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = study(tmp_path).model_dump(mode="json", exclude={"seed"})
    config["arms"]["many"]["eval"] = ["--tassks", "x"]
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(config))
    assert main(["--config", str(file), "--configs", str(STAGES)]) == 2
    assert "tassks: unknown key" in capsys.readouterr().err
    assert not (tmp_path / "seed-3").exists()


def evaluation(folder: Path, right: dict[str, bool], name: str = "pairwise") -> Path:
    """A finished evaluation's verdicts; every task has a swapped verdict too, which says the opposite."""
    folder.mkdir(parents=True)
    rows = [
        {
            "task_id": task,
            "language": "de" if task == "t0" else "en",
            "sets": [name],
            "gold": "Assistant A",
            "score": "Assistant A" if is_right is not swapped else None,
            "swapped": swapped,
            "sample": 0,
        }
        for task, is_right in right.items()
        for swapped in (False, True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "verdicts.parquet")
    return folder


def test_arms_are_paired_by_item_within_each_seed(tmp_path: Path) -> None:
    # Seed 0: 4 of 4 against 2 of 4; seed 1: 3 of 4 against 1 of 4, never worse on any item. So +0.5 in both seeds.
    answers = {
        "good": [[True, True, True, True], [True, True, True, False]],
        "plain": [[True, True, False, False], [True, False, False, False]],
    }
    folders = {
        arm: [
            evaluation(tmp_path / arm / str(seed), {f"t{i}": r for i, r in enumerate(row)})
            for seed, row in enumerate(rows)
        ]
        for arm, rows in answers.items()
    }
    plan = StudyPlan(
        question="Better?",
        seed_varies="items",
        arms=["good", "plain"],
        baseline="plain",
        sets=[],
        notes=["small"],
        folders=folders,
    )
    text = write_tables(plan, tmp_path)
    found = json.loads((tmp_path / "study.json").read_text())["sets"]["pairwise"]
    assert found["good"]["accuracy"]["value"] == pytest.approx(7 / 8)
    assert found["good"]["accuracy"]["std"] == pytest.approx(0.1767767)  # of 1.0 and 0.75
    assert found["good"]["difference"]["value"] == pytest.approx(0.5)
    assert found["good"]["difference"]["n"] == 2 and "difference" not in found["plain"]
    assert "+0.500" in text and "small" in text and "fewer than 5 seeds: no claim" in text and "better" not in text
    assert (tmp_path / "study.svg").read_bytes().lstrip().startswith(b"<?xml")


def test_other_items_are_no_pairs_and_a_missing_set_is_named(tmp_path: Path) -> None:
    one = right_answers(evaluation(tmp_path / "a", {"t0": True}), [])
    other = right_answers(evaluation(tmp_path / "b", {"t1": True}), [])
    with pytest.raises(ValueError, match="different tasks"):
        compare_arms({"a": [one], "b": [other]}, "a")
    with pytest.raises(ValueError, match=r"no set \['binary'\]; it has pairwise"):
        right_answers(tmp_path / "a", ["binary"])
    assert right_answers(tmp_path / "a", [], ["de"])["all"] == {"t0": True}
    with pytest.raises(ValueError, match="in ja; it has none"):
        right_answers(tmp_path / "a", [], ["ja"])


def test_the_interval_alone_decides() -> None:
    assert conclusion({"interval": [0.01, 0.2]}, 5) == "better"
    assert conclusion({"interval": [0.01, 0.2]}, 4) == "fewer than 5 seeds: no claim"
    assert conclusion({"interval": [-0.2, -0.01]}, 5) == "worse"
    assert conclusion({"interval": [-0.1, 0.3]}, 5) == "no difference shown"
