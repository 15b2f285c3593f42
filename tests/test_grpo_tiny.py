"""The judge's GRPO configs for Qwen3-4B, end to end at tiny size, and up to the connection where they need a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks import standins
from benchmarks.tiny_walk import environment
from grpo_experiments.train import main
from mr3.artifacts import read_json
from mr3.judge_card import JudgeCard, load_card, write_card
from mr3.training import load_model
from tests.grpo_support import write_tasks
from tests.prompts_support import write_templates

CONFIGS = sorted(Path("configs/qwen3-4b").glob("judge-grpo*.yaml"))
RUBRICS = (
    {"levels": {"Assistant A": "A is right.", "Assistant B": "B is right."}},
    {"levels": {"Assistant A": "A is wrong.", "Assistant B": "B is wrong."}},
)


def task_rows(pairs: int) -> list[dict[str, Any]]:
    """Twins under two rubrics, of published texts."""
    import json

    return [
        {
            "task": json.dumps(
                {
                    "id": f"{i}-{k}", "mode": "pairwise", "input": f"{i} + 2?", "responses": [str(i + 2), "7"],
                    "language": "en", "rubric": rubric,
                }
            ),
            "gold": ("Assistant A", "Assistant B")[k], "content": f"c{i}", "twin": f"t{i}",
            "hidden": "Assistant A",
        }
        for i in range(pairs)
        for k, rubric in enumerate(RUBRICS)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny judge of published texts, templates, and tasks with twins."""
    root = tmp_path_factory.mktemp("grpo")
    write_templates(root / "templates", languages=("en",))
    tokenizer = standins._tokenizer(["a judge looks at two responses and says which is better"] * 9)
    judge = root / "models" / "judge-eng-eng"
    standins._model(tokenizer, "<|im_end|>", 0).save_pretrained(judge)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(judge)
    card = JudgeCard(profile="mr3-train", texts="published", modes=("pairwise", "binary", "choice"), **standins.LIMITS)
    write_card(judge, card)
    write_tasks(root / "tasks.parquet", task_rows(20))
    return root


def grpo(file: Path, home: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[int, Path]:
    for name, value in environment(home, home / "templates").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TASKS", str(home / "tasks.parquet"))
    monkeypatch.setenv("START", str(home / "models" / "judge-eng-eng"))
    out = home / "runs" / f"{file.stem}-{len(more)}"
    return main(["--config", str(file), "--overlay", "configs/tiny.yaml", "--output_dir", str(out), *more]), out


def test_there_are_two() -> None:
    assert [file.name for file in CONFIGS] == ["judge-grpo-server.yaml", "judge-grpo.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("file", CONFIGS, ids=str)
def test_a_config_trains_a_judge(file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out = grpo(file, home, monkeypatch)
    assert code == 0
    found = read_json(out / "metrics.json")
    assert found["steps"] == 2 and found["completions"] >= 32 and found["held_out_prompts"] >= 4
    assert set(found["terms"]) >= {"format", "expected_correctness", "counterfactual"}
    assert load_card(str(out / "model")) == load_card(str(home / "models" / "judge-eng-eng"))
    assert (out / "adapter").is_dir() == (file.stem == "judge-grpo-server")
    assert load_model(str(out / "model")).config.model_type == "qwen3"
    logged = pq.read_table(out / "rewards" / "train-000000.0.p0.parquet").column_names
    assert {"reward", "truth", "advantage", "term_counterfactual", "twin", "gold", "text"} <= set(logged)


def test_without_a_server_the_run_says_how_to_start_one(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All is built up to the connection: what follows it needs CUDA."""
    file = Path("configs/qwen3-4b/judge-grpo-server.yaml")
    more = [
        "--trl.use_vllm",
        "true",
        "--trl.vllm_server_base_url",
        "http://127.0.0.1:9",
        "--trl.vllm_server_timeout",
        "0.1",
    ]
    code, _ = grpo(file, home, monkeypatch, *more)
    assert code == 2
    told = capsys.readouterr().err
    assert "can't be reached at http://127.0.0.1:9" in told and "docs/grpo.md has the command" in told


@pytest.mark.parametrize("file", CONFIGS, ids=str)
def test_a_dry_run_says_what_a_run_needs(
    file: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At full size but for the tokenizer and the tasks."""
    for name, value in {**environment(home, home / "templates"), "TASKS": str(home / "many.parquet")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("START", str(home / "models" / "judge-eng-eng"))
    write_tasks(home / "many.parquet", task_rows(200))
    out = home / "dry"
    words = ["--config", str(file), "--output_dir", str(out), "--held_out_tasks", "16", "--dry-run"]
    words += ["--trl.max_completion_length", "96", "--estimate.completion_tokens", "1500"]
    if file.stem == "judge-grpo":
        words += ["--trl.use_vllm", "false"]
    assert main(words) == 0 and not out.exists()
    told = capsys.readouterr().out
    assert "4,022,468,096 parameters" in told and "64 prompts x 8 samples = 512 completions" in told
    assert "memory per GPU" in told and "400 steps" in told and "assumed, not measured" in told
    trained = int(told.split("parameters, ")[1].split(" trained")[0].replace(",", ""))
    assert (trained < 4_022_468_096) == (file.stem == "judge-grpo-server")


def test_tasks_that_are_not_there_are_refused_before_anything_is_loaded(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = grpo(CONFIGS[1], home, monkeypatch, "--tasks", "none.parquet")
    assert code == 2 and "no tasks at none.parquet: make them with `mr3 data`" in capsys.readouterr().err
    code, _ = grpo(CONFIGS[1], home, monkeypatch, "--trl.max_completion_length", "500", "--quiet")
    assert code == 2 and "is over the 96 output tokens of the judge's card" in capsys.readouterr().err
    code, _ = grpo(CONFIGS[1], home, monkeypatch, "--launch.processes", "3")
    assert code == 2 and "launch.processes is 3, and this run has 1" in capsys.readouterr().err


def test_the_estimate_follows_its_formulas() -> None:
    from dataclasses import replace

    from grpo_experiments.estimate import Plan, memory_of, seconds
    from mr3.sft.estimate import GIB, Shape, flops

    shape = Shape(4_022_468_096, 151_936 * 2_560, True, 36, 2_560, 4_096, 1_024, 9_728)
    plan = Plan([1_000] * 64, 8, 500.0, 8_192, 1.0, 1, 2, gpus=4, engine_gpus=4, in_place=0.4)
    found = seconds(shape, plan, 989, 0.4, 2_000)
    work = flops(shape, [1_500] * 512)
    assert found.training == pytest.approx(work / (4 * 989e12 * 0.4))
    assert found.measuring == pytest.approx(2 * found.training / 3), "two forward passes cost two thirds of a step"
    held = 64 * 8 * 1_250 * 36 * 1_024 * 4
    prefill = 2 * shape.multiplied * 64_000 / (4 * 989e12 * 0.4)
    assert found.generation == pytest.approx(prefill + 500 * (2 * shape.parameters + held / 4) / 2e12)
    assert seconds(shape, replace(plan, iterations=3), 989, 0.4, 2_000).training == pytest.approx(3 * found.training)
    states, beside, engine = memory_of(shape, shape.parameters, plan, 12_000, True, 1, 80)
    assert engine == round(0.4 * 80 * GIB) and beside == 2 * shape.parameters
    assert states.weights == 4 * shape.parameters // 4
    assert memory_of(shape, shape.parameters, replace(plan, sleeps=True), 12_000, True, 0, 80)[1:] == (0, 0)
