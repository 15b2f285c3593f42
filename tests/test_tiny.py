"""Every config that trains a judge gives one that each stage can prompt; the overlay makes configs small, and no more.

Here engines are stand-ins that answer at once; `python -m benchmarks tiny-walk` and the slow test use vLLM.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks import standins
from benchmarks.tiny_walk import SFT_CONFIGS, environment, judge_of, walk_data
from mr3.artifacts import read_json
from mr3.cli.judge_one import main as judge_main
from mr3.cli.stages import config_model_of
from mr3.cli.study import variables_of_steps
from mr3.config import load_config
from mr3.factory.config import FactoryConfig
from mr3.inference.engine import Completion, EngineConfig, Request
from mr3.judge_card import JudgeCard
from mr3.judging.config import JudgeConfig
from mr3.judging.opening import open_judge
from mr3.judging.worker import JudgeWorker
from mr3.languages import TRAINING_CODES
from mr3.sft.config import SftConfig
from rewards.serving.config import ServeConfig
from rewards.tasks import TaskSettings
from rewards.worker import LabelWorker
from tests.prompts_support import write_templates

OVERLAY = Path("configs/tiny.yaml")
ALLOWED = {
    "model": {"model", "tokenizer", "qwen3"},
    "rows": {"limit", "sample", "rows", "max_rows", "max_tasks", "max_prompts", "held_out_tasks"},
    "steps": {"max_steps", "gradient_accumulation_steps", "eval_steps"},
    "groups": {"num_generations", "per_device_train_batch_size"},
    "lengths": {"max_tokens", "max_prompt_tokens", "max_output_tokens", "max_model_len", "max_completion_length"},
    "device": {"use_cpu", "use_vllm", "kv_cache_memory_bytes", "gpu_memory_utilization", "gradient_checkpointing"},
    "dtype": {"dtype", "bf16"},
    "attention": {"attention"},
    "processes": {"max_num_seqs", "processes", "accelerate"},
    "GPUs": {"num_gpus", "tensor_parallel_size"},
    "replicas": {"replicas", "replicas_min", "replicas_max"},
}
RUBRIC = {"levels": {"Assistant A": "A is better.", "Assistant B": "B is better."}}


def leaves(node: Any) -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield name.removesuffix("?")


def test_the_overlay_sets_nothing_that_is_not_about_size() -> None:
    found = {name for section in yaml.safe_load(OVERLAY.read_text()).values() for name in leaves(section)}
    models = {"published", "eng-eng", "tgt-eng", "tgt-tgt"}
    assert found - models <= set().union(*ALLOWED.values())


CONFIGS = [file for file in sorted(Path("configs").rglob("*.yaml")) if file != OVERLAY]


@pytest.mark.parametrize("file", CONFIGS, ids=str)
def test_every_config_is_whole_under_the_overlay(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = re.match(r"# (?:MR3_DATA=\S+ )?mr3 ([\w-]+) --config", file.read_text())
    assert command is not None
    for name, value in {**environment(tmp_path, tmp_path), "MR3_DATA": "data", "ROWS": "rows.parquet"}.items():
        monkeypatch.setenv(name, value)
    with variables_of_steps() if command.group(1) == "study" else nullcontext():
        config = load_config(config_model_of(command.group(1), file), file, ["--overlay", str(OVERLAY)])
    hub = re.findall(r"'((?:Qwen|openai|rubricreward)/[^']+)'", str(config.model_dump(exclude={"arms", "data"})))
    spared = file.name in ("eval-endpoint.yaml", "rubric-refine.yaml", "rubric-generate.yaml", "eval-paper.yaml")
    spared |= file.parent.name == "own"  # which is for a published judge
    assert not hub or spared, "a model that the overlay leaves on the hub"


class Recorder:
    """An engine that answers at once and keeps what it was asked."""

    takes_text = True
    prompts: ClassVar[list[str]] = []

    def __init__(self, config: EngineConfig) -> None:
        self.config = config

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        Recorder.prompts += [r.prompt or "" for r in requests]
        answer = 'Looked.</think>{"explanation": "Fits.", "score": "Assistant A"}'
        return [Completion(id=r.id, text=answer, finish="stop", output_tokens=9) for r in requests]

    def close(self) -> None:
        """Nothing is held."""


ENGINE = f"{__name__}:Recorder"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Templates in the published format, a tiny base, rows with the columns of every config."""
    root = tmp_path_factory.mktemp("tiny")
    write_templates(root / "templates", languages=(*standins.LANGUAGES, "id"))
    standins.write_sets(root)
    tokenizer = standins._tokenizer(["a judge looks at two responses and says which is better"] * 9)
    standins._model(tokenizer, "<|im_end|>", 0).save_pretrained(root / "models" / "qwen3")
    tokenizer.save_pretrained(root / "models" / "qwen3")
    names = [load(file, root).columns for file in SFT_CONFIGS]
    columns = {c.prompt: "<|im_start|>user\nwhich?<|im_end|>\n<|im_start|>assistant\n" for c in names}
    columns |= {c.completion: '<think>\nA.\n</think>\n\n{"score": "A"}' for c in names}
    pq.write_table(pa.Table.from_pylist([columns] * 3), root / "rows.parquet")
    return root


def load(file: Path, root: Path, *more: str) -> SftConfig:
    rows = [
        "--data",
        str(root / "rows.parquet"),
        "--output_dir",
        str(root / "runs" / "-".join(file.with_suffix("").parts)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(root, root / "templates").items():
            patch.setenv(name, value)
        return load_config(SftConfig, file, ["--overlay", str(OVERLAY), *rows, *more])


def trained(file: Path, root: Path) -> tuple[SftConfig, Path]:
    from mr3.sft.stage import run

    config = load(
        file, root, "--replay_share", "0", "--replay", "null", "--held_out", "null", "--same_tokens_as", "null"
    )
    run(config)
    return config, config.output_dir / "model"


def test_the_nine_are_found_and_all_that_train_a_judge_are() -> None:
    found = [str(file.relative_to("configs")) for file in SFT_CONFIGS]
    assert len([name for name in found if name.startswith("qwen3-")]) == 9
    assert {"nano/judge-sft.yaml", "nano/factory-teacher.yaml", "nano-grpo/start.yaml"} <= set(found)


def opened_by_every_stage(model: Path, root: Path, card: JudgeCard) -> list[str]:
    """One task through each stage's own way of opening a judge; the prompts that the engine got."""
    given: dict[str, Any] = {"model": str(model), "backend": ENGINE}
    if card.texts == "published":
        given["templates_dir"] = str(root / "templates")
    config = JudgeConfig.model_validate(given)
    dumped, identity = config.absolute().model_dump(mode="json"), config.identity()
    task = {
        "id": "t", "mode": "pairwise", "input": "2 + 2?", "responses": ["4", "5"], "language": "de",
        "rubric": {**RUBRIC, "criteria": [] if card.texts == "published" else [{"name": "right", "description": "R."}]},
    }  # fmt: skip
    if card.texts is None:
        del task["rubric"]["levels"]  # type: ignore[attr-defined]
    Recorder.prompts.clear()
    batch = lambda payload: {"group": np.array(["g"]), "payload": np.array([json.dumps(payload)], dtype=object)}  # noqa: E731
    judged = asyncio.run(JudgeWorker(dumped, str(model / "s1"), identity)(batch({"items": [{"task": task}]})))
    settings = TaskSettings.model_validate({"mode": "pairwise", "rubric": task["rubric"], "orders": "one"})
    pool = {
        "prompt_id": "p", "prompt": "2 + 2?", "language": "de",
        "responses": [{"id": "a", "text": "4", "policy": "x"}, {"id": "b", "text": "5", "policy": "y"}],
    }  # fmt: skip
    label = LabelWorker(dumped, str(model / "s2"), identity, settings.model_dump(mode="json"))
    labelled = asyncio.run(label(batch(pool)))
    for answer in (judged, labelled):
        (verdict,) = json.loads(answer["payload"][0])["verdicts"]
        assert (verdict["outcome"], verdict["score"]) == ("ok", "Assistant A")
    served = ServeConfig.model_validate({"output_dir": str(root / "serve"), "judge": given, "open_to_all": True})
    judge = open_judge(served.judge, served.judge.identity())  # as a replica of `mr3 serve` does
    from mr3.judging.judge import JudgeItem
    from mr3.records import Task

    (verdict,) = asyncio.run(judge.judge([JudgeItem(task=Task.model_validate(task))]))
    assert verdict.score == "Assistant A"
    return list(Recorder.prompts)


QUICK = [Path(f"configs/qwen3-4b/judge-sft-{s}.yaml") for s in ("eng-eng", "tgt-eng", "tgt-tgt")]


@pytest.mark.parametrize(
    "file",
    [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow, id=str(f)) for f in SFT_CONFIGS],
)
def test_a_config_gives_a_judge_that_every_stage_can_prompt(file: Path, home: Path) -> None:
    config, model = trained(file, home)
    assert config.judge is not None
    card = JudgeCard.model_validate(read_json(model / "judge.json"))
    assert card == config.judge, "the card is what it was trained with"
    asked = opened_by_every_stage(model, home, card)
    # The recorder gives no log-probabilities, so each verdict's distribution is asked for behind its own text.
    prompts = [p for p in asked if not p.endswith('"score": "')]
    assert card.sampling.logprobs and len(asked) == 2 * len(prompts)
    assert len(prompts) == 3 and len({p.split("Assistant A")[0] for p in prompts}) == 1
    if card.texts == "published":
        prompt, thinking = (("en" if part == "eng" else "de") for part in card.strategy.split("-"))
        begin = f"<|im_start|>system\n[{thinking} identity]\n\n# [{prompt} Instruction]\n"
        end = "<|im_start|>assistant\n<think>" + (f"[{thinking} forcing]" if card.strategy == "tgt-tgt" else "")
        assert all(p.startswith(begin) and p.endswith(end) for p in prompts)


def test_configs_of_a_strategy_differ_in_size_alone(home: Path) -> None:
    """So what holds for the 4B judges, which are trained in every run of the tests, holds for the others."""
    for strategy in ("eng-eng", "tgt-eng", "tgt-tgt"):
        cards = {
            load(file, home).judge.model_dump_json()  # type: ignore[union-attr]
            for file in SFT_CONFIGS
            if file.name == f"judge-sft-{strategy}.yaml" and file.parent.name.startswith("qwen3-")
        }
        assert len(cards) == 1 and json.loads(cards.pop())["strategy"] == strategy


def test_mr3_judge_prompts_a_judge_of_published_texts(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model = trained(QUICK[0], home)
    rubric = home / "rubric.yaml"
    rubric.write_text(yaml.safe_dump({"name": "r", **RUBRIC}))
    words = ["--model", str(model), "--rubric", str(rubric), "--input", "2+2?", "--response", "4", "--response", "5"]
    assert judge_main(words) == 2 and "templates_dir" in capsys.readouterr().err
    monkeypatch.setattr("mr3.inference.hosts.open_engine", Recorder)
    assert judge_main([*words, "--templates", str(home / "templates")]) == 0
    assert "score: Assistant A" in capsys.readouterr().out


def test_sft_refuses_a_card_without_texts_before_it_trains(home: Path) -> None:
    with pytest.raises(ValueError, match=r"judge: .* the profile mr3-train needs texts"):
        load(QUICK[0], home, "--judge.texts", "null")


def test_the_data_config_says_what_the_paper_says() -> None:
    config = load_config(FactoryConfig, "configs/qwen3/data-100k.yaml")
    assert config.languages == list(TRAINING_CODES)
    evaluated = yaml.safe_load(Path("configs/qwen3/eval-paper.yaml").read_text())["benchmarks"]
    kept_out = yaml.safe_load(Path("configs/qwen3/data-100k.yaml").read_text())["decontaminate"]["benchmarks"]
    assert {b["path"] for b in evaluated} == {b["path"] for b in kept_out}, "kept out is what is evaluated"
    models = (config.teacher, config.translator, config.difficulty.student if config.difficulty else None)
    for model in models:
        assert model is not None and model.stream is not None and model.cost is not None
        assert model.stream.num_gpus >= model.engine.get("tensor_parallel_size", 1)
    assert config.teacher.dialect == "gpt-oss" and config.presample is not None


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_from_the_first_line_of_the_data_to_a_judge_that_judges(tmp_path: Path) -> None:
    """Sources, teacher, student, translator, SFT, evaluation: all with vLLM and the same YAMLs."""
    data = os.environ.get("MR3_DATA")
    templates = (
        Path(data) / "mr3_rubrics" if data else write_templates(tmp_path / "t", languages=(*standins.LANGUAGES, "id"))
    )
    walked = walk_data(tmp_path, templates)
    assert walked["rows"] > 0 and set(walked["models"]) == {"teacher", "student", "translator"}
    judge = judge_of(QUICK[2], tmp_path, templates, "configs/qwen3/eval-own.yaml", ["--seeds", "[0]"])
    assert judge["judges"], judge
    told = subprocess.run(
        [sys.executable, "-m", "mr3.cli.main", "judge", "--model", judge["model"], "--templates", str(templates),
         "--criterion", "Right.", "--input", "2+2?", "--response", "4", "--response", "5"],
        capture_output=True, text=True, check=False, env={**os.environ, **environment(tmp_path, templates)},
    )  # fmt: skip
    assert told.returncode in (0, 1, 2) and "Traceback" not in told.stderr
