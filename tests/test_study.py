"""Studies: the graph of arms and seeds, what is refused, and the paired table by hand-made verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mr3.artifacts import metrics_of
from mr3.cli.launch import command_of
from mr3.cli.schedule import Job, run_jobs
from mr3.cli.study import StudyConfig, _job, main, steps_of
from mr3.cli.study_table import StudyPlan, compare_arms, conclusion, markdown, one_model, scores_of, write_tables
from mr3.items import Item, read_items, write_items
from mr3.launch import Launch
from mr3.sft.config import SftConfig
from mr3.sft.dry_run import dry_run
from mr3.sft.stage import run as run_sft
from tests.sft_support import TRL, sft_config, write_rows

STAGES = Path("configs/nano")
OF_GRPO = {"stage": "grpo", "config": "../nano-grpo/grpo.yaml", "needs": ["data"]}
OF_EVAL = {"stage": "eval", "config": "judge-eval.yaml", "needs": ["grpo"]}


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
        ({"compared": "sft"}, "leaves items to compare: eval, measures, policy-eval"),
        ({"arms": {"few": {"eval": None}, "many": {}}}, "every arm has .not 'few'"),
        ({"arms": {"few": {"sft": None}, "many": {}}}, "arm 'few': stage 'eval' needs 'sft'"),
        ({"arms": {"few": {"grpo": {**OF_GRPO, "needs": ["pairs"]}}, "many": {}}}, "arm 'few': stage 'grpo' needs"),
        (
            {"arms": {"few": {"eval": {"stage": "policy-eval", "config": "policy-eval.yaml"}}, "many": {}}},
            "another stage in each arm",
        ),
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


def test_arms_may_be_of_different_stages(tmp_path: Path) -> None:
    arms = {
        "many": {},
        "grpo-arm": {"sft": None, "grpo": OF_GRPO, "eval": {**OF_EVAL, "args": ["--rubric_flip", "[]"]}},
    }
    config = study(tmp_path, arms=arms, configs=STAGES)
    steps = {step.name: step for step in steps_of(config)}
    assert {n for n in steps if n.startswith("seed-3/grpo-arm/")} == {"seed-3/grpo-arm/grpo", "seed-3/grpo-arm/eval"}
    assert {n for n in steps if n.startswith("seed-3/many/")} == {"seed-3/many/sft", "seed-3/many/eval"}
    assert steps["seed-3/grpo-arm/grpo"].needs == ("seed-3/data",)
    assert steps["seed-3/grpo-arm/eval"].needs == ("seed-3/grpo-arm/grpo",)
    assert steps["seed-4/grpo-arm/grpo"].config.output_dir == tmp_path / "seed-4/grpo-arm/grpo"
    # No stage need be in `each`.
    own = {
        "a": {"sft": {"stage": "sft", "config": "judge-sft.yaml"}, "eval": {**OF_EVAL, "needs": ["sft"]}},
        "b": {"grpo": OF_GRPO, "eval": OF_EVAL},
    }
    assert len(steps_of(study(tmp_path, each={}, arms=own, baseline="a"))) == 2 * (1 + 2 + 2)


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
    (folder / "manifest.json").write_text('{"stage": "eval"}')
    rows = [
        {
            "task_id": task,
            "content": task[:2],
            "language": "de" if task == "t0" else "en",
            "sets": [name],
            "gold": "Assistant A",
            "score": "Assistant A" if is_right is not swapped else None,
            "said": "Assistant A" if is_right else None,
            "swapped": swapped,
            "sample": 0,
        }
        for task, is_right in right.items()
        for swapped in (False, True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "verdicts.parquet")
    return folder


def test_an_item_is_right_where_the_label_that_counts_is(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "eval", {"t0": True, "t1": True})
    rows = pq.read_table(folder / "verdicts.parquet").to_pylist()
    for row in rows:  # with `combine: agree` the two orders of t1 disagree, and its label is a tie
        row["said"] = "Tie" if row["task_id"] == "t1" else row["said"]
    pq.write_table(pa.Table.from_pylist(rows), folder / "verdicts.parquet")
    assert {item.id: item.score for item in read_items("eval", folder)} == {"t0": 1.0, "t1": 0.0}


def plan_of(folders: dict[str, list[Path]], stage: str = "eval", **more: Any) -> StudyPlan:
    about: dict[str, Any] = {
        "question": "Better?",
        "seed_varies": "items",
        "arms": list(folders),
        "baseline": list(folders)[-1],
        "sets": [],
        "notes": [],
        "compared": stage,
        "stage": stage,
        "seeds": list(range(len(next(iter(folders.values()))))),
        "stages": {arm: ["sft", stage] for arm in folders},
        "folders": folders,
    }
    return StudyPlan.model_validate(about | more)


def test_arms_are_paired_by_item_within_each_seed(tmp_path: Path) -> None:
    # Seed 0: 4 of 4 against 2 of 4; seed 1: 3 of 4 against 1 of 4, never worse on any item. So +0.5 in both seeds.
    answers = {
        "good": [[True, True, True, True], [True, True, True, False]],
        "plain": [[True, True, False, False], [True, False, False, False]],
    }
    folders = {
        arm: [
            evaluation(tmp_path / arm / str(seed) / "eval", {f"t{i}": r for i, r in enumerate(row)}).parent
            for seed, row in enumerate(rows)
        ]
        for arm, rows in answers.items()
    }
    plan = plan_of(folders, notes=["small"])
    text = write_tables(plan, tmp_path)
    found = json.loads((tmp_path / "study.json").read_text())["sets"]["pairwise"]
    assert found["good"]["accuracy"]["value"] == pytest.approx(7 / 8)
    assert found["good"]["accuracy"]["std"] == pytest.approx(0.1767767)  # of 1.0 and 0.75
    assert found["good"]["difference"]["value"] == pytest.approx(0.5)
    assert found["good"]["difference"]["n"] == 2 and "difference" not in found["plain"]
    assert found["good"]["items"] == found["good"]["contents"] == 4 and "| 4 (4) |" in text
    assert "+0.500" in text and "small" in text and "fewer than 5 seeds: no claim" in text and "better" not in text
    assert (tmp_path / "study.svg").read_bytes().lstrip().startswith(b"<?xml")


def test_arms_are_compared_over_what_both_have(tmp_path: Path) -> None:
    """Checkers say nothing of some traces, and of none of an arm that writes no traces: a study is not lost for it."""

    def run(**sets: dict[str, float]) -> dict[str, dict[str, Item]]:
        return {name: {i: Item(i, i, name, "en", x) for i, x in told.items()} for name, told in sets.items()}

    base = run(accuracy={"a": 1.0, "b": 0.0}, findings={"a": 1.0, "b": 0.5})
    arms = {
        "part": [run(accuracy={"a": 1.0, "b": 1.0}, findings={"b": 1.0, "c": 0.0})] * 2,
        "labels": [run(accuracy={"a": 0.0, "b": 0.0})] * 2,
        "base": [base] * 2,
    }
    found = compare_arms(arms, "base")
    part = found["findings"]["part"]
    assert part["difference"]["value"] == 0.5 and (part["shared"], part["lacking"], part["more"]) == (2, 2, 2)
    none = found["findings"]["labels"]
    assert none["accuracy"] is None and "difference" not in none and none["lacking"] == 4
    assert found["accuracy"]["labels"]["difference"]["value"] == -0.5 and found["accuracy"]["labels"]["lacking"] == 0
    text = markdown(plan_of({arm: [tmp_path, tmp_path] for arm in arms}), found, {})
    assert "| findings | labels | 0 (0) | not measured |  | 0 items shared over all seeds, the arm lacks 4 |" in text
    assert "no claim; 2 items shared over all seeds, the arm lacks 2 and has 2 more |" in text
    assert list(compare_arms({"base": arms["labels"], "arm": [base] * 2}, "base")) == ["accuracy", "findings"]


@pytest.mark.parametrize("score", [1.0, 0.5])
def test_whether_there_is_a_set_of_all_goes_by_the_stage_and_not_by_scores(tmp_path: Path, score: float) -> None:
    (tmp_path / "manifest.json").write_text('{"stage": "measures"}')
    write_items(tmp_path, [Item("t", "c", "x/accuracy", "en", 1.0), Item("t", "c", "x/findings", "en", score)])
    assert set(scores_of("measures", tmp_path, [])) == {"x/accuracy", "x/findings"}


def test_other_items_are_no_pairs_and_a_missing_set_is_named(tmp_path: Path) -> None:
    one = scores_of("eval", evaluation(tmp_path / "a", {"t0": True}), [])
    other = scores_of("eval", evaluation(tmp_path / "b", {"t1": True}), [])
    row = compare_arms({"a": [one], "b": [other]}, "a")["pairwise"]["b"]
    assert "difference" not in row and (row["shared"], row["lacking"], row["more"]) == (0, 1, 1)
    moved = evaluation(tmp_path / "c" / "eval", {"t0": True}).parent
    with pytest.raises(ValueError, match="no arm was evaluated on the set 'binary'"):
        write_tables(plan_of({"arm": [moved]}, sets=["binary"]), tmp_path)
    assert scores_of("eval", tmp_path / "a", [], ["de"])["all"] == {"t0": Item("t0", "t0", "pairwise", "de", 1.0)}
    with pytest.raises(ValueError, match="no item in ja"):
        scores_of("eval", tmp_path / "a", [], ["ja"])
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="not a finished stage: run `mr3 eval`"):
        scores_of("eval", tmp_path / "a", [])


def test_contents_widen_the_interval_of_a_difference() -> None:
    def run(base: bool, about: list[str]) -> dict[str, dict[str, Item]]:
        right = [0.0 if base else float(i < 12) for i in range(24)]
        return {"s": {str(i): Item(str(i), c, "s", "en", x) for i, (c, x) in enumerate(zip(about, right, strict=True))}}

    def width(about: list[str]) -> float:
        arms = {"a": [run(False, about)] * 2, "b": [run(True, about)] * 2}
        low, high = compare_arms(arms, "b")["s"]["a"]["difference"]["interval"]
        return float(high - low)

    assert width([str(i // 4) for i in range(24)]) > 1.5 * width([str(i) for i in range(24)])


def test_policies_are_compared_by_their_wins(tmp_path: Path) -> None:
    folders: dict[str, list[Path]] = {}
    for arm, wins in {"dpo": (1.0, 0.5), "plain": (0.5, 0.0)}.items():
        folder = tmp_path / arm / "policy-eval"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text('{"stage": "policy-eval"}')
        items = [Item(f"p{i}", f"c{i}", "wins", "en", x) for i, x in enumerate(wins)]
        write_items(folder, [*items, Item("p0", "c0", "passes.polite", "en", 0.0)])
        folders[arm] = [folder.parent]
    write_tables(plan_of(folders, "policy-eval"), tmp_path)
    found = json.loads((tmp_path / "study.json").read_text())["sets"]
    assert found["wins"]["dpo"]["difference"]["value"] == pytest.approx(0.5)
    assert found["passes.polite"]["dpo"]["items"] == 1 and "all" not in found, "a prompt has a score of its own per set"


def test_seeds_that_are_one_model_make_no_claim(tmp_path: Path) -> None:
    weights = {"good": "abcdb", "plain": "vwxyz"}
    folders: dict[str, list[Path]] = {}
    for arm, letters in weights.items():
        folders[arm] = []
        for seed, letter in enumerate(letters):
            folder = tmp_path / arm / str(seed)
            evaluation(folder / "eval", {f"t{i}": arm == "good" for i in range(8)})
            (folder / "sft" / "model").mkdir(parents=True)
            (folder / "sft" / "model" / "model.safetensors").write_text(letter)
            folders[arm].append(folder)
    plan = plan_of(folders)
    assert one_model(plan) == {"good": [[1, 4]]}
    text = write_tables(plan, tmp_path)
    assert "seeds 1 and 4 of good are one model: no claim" in text and "better" not in text
    assert json.loads((tmp_path / "study.json").read_text())["one_model"] == {"good": [[1, 4]]}
    (folders["good"][4] / "sft" / "model" / "model.safetensors").write_text("another")
    assert one_model(plan) == {} and "| better |" in write_tables(plan, tmp_path)


def test_a_stage_is_launched_as_its_config_says(tmp_path: Path) -> None:
    file, accelerate = Path("a.yaml"), Path("docs/examples/accelerate/fsdp2.yaml")
    plain = command_of("sft", file, ["--seed", "1"], Launch())
    assert plain[1:] == ["-m", "mr3.cli.main", "sft", "--config", "a.yaml", "--seed", "1"]
    two = command_of("sft", file, [], Launch(processes=2))
    assert two[2:6] == ["mr3.cli.launch", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    four = command_of("sft", file, [], Launch(processes=4, accelerate=accelerate))
    assert four[3:8] == ["accelerate.commands.launch", "--num_processes", "4", "--config_file", str(accelerate)]
    assert four[8:] == ["-m", "mr3.cli.main", "sft", "--config", "a.yaml"]
    with pytest.raises(ValueError, match=r"no accelerate config at absent\.yaml"):
        command_of("sft", file, [], Launch(accelerate=Path("absent.yaml")))
    arms = {"few": {"sft": ["--launch.processes", "2"]}, "many": {}}
    cores = {s.name: _job(study(tmp_path, arms=arms), s, None).cores for s in steps_of(study(tmp_path, arms=arms))}  # type: ignore[arg-type]
    assert cores["seed-3/few/sft"] == 2 and cores["seed-3/many/sft"] == cores["seed-3/few/eval"] == 1


def test_a_stage_of_several_processes_takes_as_many_places(tmp_path: Path) -> None:
    running: list[int] = []

    class Watch:
        def skipped(self, job: Job) -> None: ...
        def ended(self, child: Any, code: int) -> None: ...
        def started(self, job: Job) -> None: ...
        def tick(self, children: Any) -> None:
            running.append(sum(c.job.cores for c in children) if len(children) > 1 else 0)

    jobs = [Job(f"j{i}", ["sleep", "0.3"], tmp_path / f"{i}.log", cores=n) for i, n in enumerate((1, 2, 1, 5, 1))]
    assert run_jobs(jobs, 3, Watch()) is None
    assert max(running) == 3


def test_another_number_of_processes_than_planned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"launch\.processes is 2, and this run has 1.*torchrun --nproc-per-node 2"):
        run_sft(sft_config(tmp_path, launch={"processes": 2}))
    with pytest.raises(ValueError, match=r"estimate\.gpus is 4, launch\.processes 2"):
        sft_config(tmp_path, launch={"processes": 2}, estimate={"gpus": 4})


def tiny(folder: Path, processes: int) -> StudyConfig:
    """A study of SFT on a few rows; its evaluation is not run here."""
    trl = {**TRL, "gradient_accumulation_steps": 2, "num_train_epochs": 1.5}
    sft = {"model": "mr3/nano/base", "data": str(write_rows(folder, 21)), "max_tokens": 384, "order": "kept"}
    (folder / "sft.yaml").write_text(
        yaml.safe_dump({**sft, "packing": True, "launch": {"processes": processes}, "trl": trl, "seed": "${SEED}"})
    )
    each = {
        "sft": {"stage": "sft", "config": str(folder / "sft.yaml")},
        "eval": {
            "stage": "eval",
            "config": "judge-eval.yaml",
            "needs": ["sft"],
            "args": ["--tasks", str(folder / "t")],
        },
    }
    arms = {"few": {"sft": ["--max_rows", "13"]}, "many": {}}
    return study(folder / "out", configs=STAGES.resolve(), seeds=[3], shared={}, each=each, arms=arms)


@pytest.mark.slow
def test_two_processes_train_as_the_dry_run_says(tmp_path: Path) -> None:
    class Silent:
        def skipped(self, job: Job) -> None: ...
        def started(self, job: Job) -> None: ...
        def ended(self, child: Any, code: int) -> None: ...
        def tick(self, children: Any) -> None: ...

    config = tiny(tmp_path, processes=2)
    steps = [step for step in steps_of(config) if step.node.stage == "sft"]
    failed = run_jobs([_job(config, step, None) for step in steps], 2, Silent())  # type: ignore[arg-type]
    assert failed is None, failed.log.read_text()[-3000:]
    for step in steps:
        assert isinstance(step.config, SftConfig)
        found, said = metrics_of(step.config.output_dir), dry_run(step.config)
        assert found["processes"] == 2 and found["packs"] % 8 == 0
        assert f"{found['steps']:,} in all (16 packs each: 4 x 2 accumulated x 2 processes)" in said
        assert f"packs {found['packs']} of" in said and f"{found['tokens_per_epoch']:,} per epoch" in said
    assert (tmp_path / "out/seed-3/few/sft/model/model.safetensors").is_file()


@pytest.mark.slow
def test_a_dry_run_speaks_of_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(tmp_path, processes=2).model_dump(mode="json", exclude={"seed"})
    config["arms"]["many"]["sft"] = {**config["each"]["sft"], "args": ["--data", str(tmp_path / "absent.parquet")]}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(config))
    words = ["--config", str(file), "--configs", str(STAGES.resolve()), "--dry-run"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "--- seed-3/few/sft\n" in said and "accumulated x 2 processes" in said
    assert "--- seed-3/many/sft: NOT PLANNED" in said and "absent.parquet" in said
    assert "seed-3/few/eval: mr3 eval has no dry run; reads" in said and "few/judge" not in said
    assert not (tmp_path / "out/seed-3").exists()


def test_the_interval_alone_decides() -> None:
    assert conclusion({"interval": [0.01, 0.2]}, 5) == "better"
    assert conclusion({"interval": [0.01, 0.2]}, 4) == "fewer than 5 seeds: no claim"
    assert conclusion({"interval": [-0.2, -0.01]}, 5) == "worse"
    assert conclusion({"interval": [-0.1, 0.3]}, 5) == "no difference shown"
