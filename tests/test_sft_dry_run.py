"""`mr3 sft --dry-run`: right numbers of parameters, memory and FLOPs by hand, and nothing written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr3.config import load_config
from mr3.sft import dry_run as module
from mr3.sft.config import SftConfig
from mr3.sft.dry_run import dry_run
from mr3.sft.estimate import GIB, Shape, flops, hours, memory
from mr3.sft.stage import main
from tests.sft_support import BASE, sft_config, write_rows

# Parameters as their model cards give them (4.0, 8.2, 14.8 billion), to the last one.
SIZES = {"4b": 4_022_468_096, "8b": 8_190_735_360, "14b": 14_768_307_200}
STRATEGIES = ("eng-eng", "tgt-eng", "tgt-tgt")
# Two layers of 10 parameters, an embedding of 100 that is the head too.
SMALL = Shape(parameters=120, embedding=100, tied=True, layers=2, hidden=4, query=8, key_value=2, mlp=16)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "hub_reachable", lambda: False)


def published(size: str, strategy: str, tmp_path: Path) -> SftConfig:
    words = ["--output_dir", str(tmp_path / "out"), "--data", str(write_rows(tmp_path))]
    words += ["--columns.prompt", "prompt", "--columns.completion", "completion"]
    return load_config(SftConfig, f"configs/qwen3-{size}/judge-sft-{strategy}.yaml", words)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("no_hub")
def test_qwen3_configs_run_dry_without_a_hub_and_say_what_is_missing(size: str, tmp_path: Path) -> None:
    text = dry_run(published(size, "eng-eng", tmp_path))
    assert f"{SIZES[size]:,} parameters, {SIZES[size]:,} trained" in text
    assert "THE NANO TOKENIZER" in text and "not those of the run" in text
    assert "kept; packs" in text and "over 4 GPUs, with gradient checkpointing" in text and ": fits;" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_qwen3_configs_have_the_papers_hyperparameters(size: str, strategy: str) -> None:
    config = load_config(SftConfig, f"configs/qwen3-{size}/judge-sft-{strategy}.yaml")
    name = {"eng-eng": "en_prompt_en", "tgt-eng": "tgt_prompt_en", "tgt-tgt": "tgt_prompt_tgt"}[strategy] + "_thinking"
    assert config.columns.prompt == f"qwen3-prompt_{name}"
    assert config.columns.completion == f"gpt-oss-120b-{name}-qwen3-response"
    assert config.judge is not None and (config.judge.strategy, config.judge.profile) == (strategy, "mr3-train")
    assert config.judge.sampling.temperature == 0.6 and config.max_tokens == 16_384
    wanted = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 16,
        "num_train_epochs": 3,
        "learning_rate": 2e-5 if size == "4b" else 1e-5,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "bf16": True,
    }
    assert {k: config.trl[k] for k in wanted} == wanted
    assert (config.order, config.packing, config.model) == ("kept", True, f"Qwen/Qwen3-{size.upper()}")


def test_the_flag_prints_and_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output_dir", str(tmp_path / "out"), "--model", BASE, "--data", str(write_rows(tmp_path)), "--dry-run"]
    assert main([*words, "--order", "kept", "--packing", "true"]) == 0
    said = capsys.readouterr().out
    tokens = re.search(r"tokens +([\d,]+) per epoch", said)
    assert tokens and 24 * 100 < int(tokens.group(1).replace(",", "")) < 24 * 300
    assert "1,181,056 parameters" in said and not (tmp_path / "out").exists()


def test_what_it_predicts_is_what_training_does(tmp_path: Path) -> None:
    from mr3.artifacts import metrics_of
    from mr3.sft.stage import run

    config = sft_config(tmp_path, packing=True, trl={"num_train_epochs": 2, "gradient_accumulation_steps": 2})
    said = dry_run(config)
    run(config)
    metrics = metrics_of(config.output_dir)
    assert f"{metrics['steps']:,} in all" in said and f"{metrics['tokens_per_epoch']:,} per epoch" in said
    assert f"packs {metrics['packs']}" in said


@pytest.mark.parametrize(
    ("trl", "epochs"),
    [({"gradient_accumulation_steps": 3, "num_train_epochs": 1.5}, 1.5), ({"max_steps": 2}, None)],
)
def test_parts_of_an_epoch_replay_and_a_number_of_steps_are_counted(
    trl: dict[str, Any], epochs: float | None, tmp_path: Path
) -> None:
    from mr3.artifacts import metrics_of
    from mr3.sft.stage import run

    replay = tmp_path / "replay.parquet"
    pq.write_table(pa.table({"text": ["cats: 1, dogs: 2. " * 3] * 40}), replay)
    config = sft_config(tmp_path, replay=replay, replay_share=0.2, trl=trl)
    said = dry_run(config)
    run(config)
    metrics = metrics_of(config.output_dir)
    assert metrics["rows"] == 24 and metrics["replay_rows"] == 6
    # 30 rows, 4 a pass: 8 passes, 3 steps of up to 3 passes, and half as many again.
    assert metrics["steps"] == (2 if epochs is None else 5)
    assert f"{metrics['steps']:,} in all" in said and f"{metrics['tokens_per_epoch']:,} per epoch" in said
    assert "rows 30, not packed" in said


def test_the_processes_are_those_that_are_launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = sft_config(tmp_path, launch={"processes": 3})
    assert "(12 rows each: 4 x 1 accumulated x 3 processes)" in dry_run(config)
    # 24 rows and 4 x 5 a pass: filled up with rows without loss.
    five = sft_config(tmp_path, launch={"processes": 5})
    assert "x 5 processes)" in dry_run(five) and "rows 40, not packed" in dry_run(five)
    assert sft_config(tmp_path, estimate={"gpus": 4}).processes() == 4 and sft_config(tmp_path).processes() == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert config.processes() == sft_config(tmp_path, estimate={"gpus": 4}).processes() == 2


@pytest.mark.usefixtures("no_hub")
def test_lora_trains_little_and_an_unknown_model_is_an_error(tmp_path: Path) -> None:
    config = published("4b", "tgt-tgt", tmp_path).model_copy(update={"peft": {"r": 16, "target_modules": ["q_proj"]}})
    # Per layer r x (hidden + query width).
    assert f"{36 * 16 * (2_560 + 4_096):,} trained" in dry_run(config)
    with pytest.raises(ValueError, match="put its numbers under architecture"):
        dry_run(config.model_copy(update={"architecture": None}))


def test_memory_by_hand() -> None:
    found = memory(SMALL, trained=120, gpus=1, tokens=3, checkpointing=False)
    assert (found.weights, found.gradients, found.optimizer, found.gathered) == (480, 480, 960, 0)
    # A layer: 2 bytes x (6 x 4 + 4 x 8 + 6 x 2 + 4 x 16) = 264; three tokens, two layers.
    assert found.activations == 3 * 2 * 264
    cut = memory(SMALL, trained=120, gpus=4, tokens=3, checkpointing=True)
    assert (cut.weights, cut.gradients, cut.optimizer) == (120, 120, 240)
    assert cut.gathered == 2 * (2 * 10 + 100) and cut.activations == 3 * (2 * 2 * 4 + 264)
    assert memory(SMALL, trained=20, gpus=1, tokens=3, checkpointing=True).weights == 4 * 20 + 2 * 100


def test_flops_and_time_by_hand() -> None:
    assert flops(SMALL, [3, 5]) == 6 * 120 * 8 + 6 * 2 * 8 * (9 + 25)
    untied = Shape(**{**vars(SMALL), "parameters": 220, "tied": False})
    assert untied.layer == 10 and flops(untied, [1]) == 6 * 120 + 6 * 2 * 8
    assert hours(3_600e12, gpus=2, peak_tflops=1, mfu=0.5) == pytest.approx(1.0)


@given(st.integers(1, 8), st.integers(1, 4_096), st.booleans())
def test_more_gpus_or_checkpointing_never_need_more_states_or_activations(gpus: int, tokens: int, on: bool) -> None:
    one, more = (memory(SMALL, 120, g, tokens, on) for g in (gpus, gpus + 1))
    assert more.weights + more.gradients + more.optimizer <= one.weights + one.gradients + one.optimizer
    saved: list[Any] = [memory(SMALL, 120, gpus, tokens, c).activations for c in (True, False)]
    assert saved[0] <= saved[1] and GIB == 1024**3
