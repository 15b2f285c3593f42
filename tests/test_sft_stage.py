"""`mr3 sft` as users run it: order at each step, resume, LoRA, bf16, the card, and errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback

from benchmarks.curriculum_order import wanted_order
from benchmarks.step_rows import merged, recorder
from mr3.artifacts import metrics_of
from mr3.judge_card import load_card
from mr3.sft.config import SftConfig
from mr3.sft.stage import main, run
from mr3.training import load_tokenizer
from tests.sft_support import BASE, TRL, sft_config, write_rows

JUDGE = {"profile": "compact", "max_prompt_tokens": 512, "max_output_tokens": 96}


class StopAt(TrainerCallback):
    """Ctrl-C after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model" / "model.safetensors")
    return found


def apart(one: Path, two: Path) -> float:
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def pad() -> int:
    return int(load_tokenizer(BASE).pad_token_id)


def test_with_packing_and_accumulation_the_rows_of_a_step_are_the_next_ones(tmp_path: Path) -> None:
    trl = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "num_train_epochs": 2}
    config = sft_config(tmp_path, packing=True, trl=trl)
    run(config, [recorder(tmp_path, pad())])
    steps, order = merged(tmp_path), wanted_order(write_rows(tmp_path), 24)
    assert [row for step in steps for row in step] == order * 2
    metrics = metrics_of(config.output_dir)
    assert len(steps) == metrics["steps"] and 1 < len(steps) < 24 and metrics["pack_fill"] > 0.7
    assert metrics["dropped"] == {} and not (config.output_dir / "packs.arrow").exists()


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    trl = {"save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "num_train_epochs": 2}
    whole = sft_config(tmp_path, "whole", trl)
    run(whole, [recorder(tmp_path / "seen-whole", pad())])
    stopped = sft_config(tmp_path, "stopped", trl)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, [StopAt(7)])
    run(stopped, [recorder(tmp_path / "seen-rest", pad())])
    assert merged(tmp_path / "seen-rest") == merged(tmp_path / "seen-whole")[6:], "it goes on with the next rows"
    one, two = metrics_of(whole.output_dir), metrics_of(stopped.output_dir)
    assert two["resumed_at"] == 6 and apart(whole.output_dir, stopped.output_dir) < 1e-6
    assert [row["step"] for row in two["curve"]] == [row["step"] for row in one["curve"]] == list(range(1, 13))
    assert two["train_loss"] == pytest.approx(one["train_loss"], abs=1e-4)
    assert two["curve"][-1]["loss"] == pytest.approx(one["curve"][-1]["loss"], abs=1e-4)


@pytest.mark.slow
def test_packing_trains_on_the_same_loss(tmp_path: Path) -> None:
    """All rows in one step: packed or not, the gradient and so the weights are the same."""
    trl = {"per_device_train_batch_size": 24, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0}
    for name, packing in (("packed", True), ("plain", False)):
        run(sft_config(tmp_path, name, trl, packing=packing, max_tokens=384))
        assert metrics_of(tmp_path / name)["steps"] == 1
    one, two = (metrics_of(tmp_path / name) for name in ("packed", "plain"))
    assert one["train_loss"] == pytest.approx(two["train_loss"], abs=1e-5)
    assert apart(tmp_path / "packed", tmp_path / "plain") < 1e-5


def test_lora_leaves_an_adapter_and_a_whole_judge(tmp_path: Path) -> None:
    peft = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    config = sft_config(tmp_path, peft=peft, judge=JUDGE, trl={"learning_rate": 1e-2})
    run(config)
    adapter = json.loads((config.output_dir / "adapter" / "adapter_config.json").read_text())
    assert adapter["r"] == 4
    base, made = load_file(f"{BASE}/model.safetensors"), weights(config.output_dir)
    changed = {name for name in base if not torch.allclose(base[name], made[name], atol=1e-6)}
    assert changed and all(any(m in name for m in peft["target_modules"]) for name in changed)  # type: ignore[union-attr]
    assert load_card(str(config.output_dir / "model")).profile == "compact"


@pytest.mark.slow
def test_bf16_trains_fp32_weights(tmp_path: Path) -> None:
    config = sft_config(tmp_path, trl={"bf16": True, "max_steps": 2})
    run(config)
    assert {v.dtype for v in weights(config.output_dir).values()} == {torch.float32}
    assert 0 < metrics_of(config.output_dir)["train_loss"] < 20


def test_the_card_says_what_the_model_was_made_of(tmp_path: Path) -> None:
    config = sft_config(
        tmp_path, judge=JUDGE, held_out=write_rows(tmp_path), licence="apache-2.0", trl={"max_steps": 1}
    )
    run(config)
    text = (config.output_dir / "model" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == BASE and front["license"] == "apache-2.0" and "judge" in front["tags"]
    started = json.loads((config.output_dir / "started.json").read_text())
    for said in ("eng-eng", "as in the data at every optimizer step", "learning_rate | 0.001", "## Limits"):
        assert said in text
    assert all(digest in text for digest in started["inputs"].values())
    held_out = metrics_of(config.output_dir)["held_out_loss"]
    assert 0 < held_out < 20 and f"held_out_loss | {held_out}" in text
    AutoModelForCausalLM.from_pretrained(config.output_dir / "model")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"trl": {"packing": True}}, "trl.packing has no effect here: this stage's own option is packing"),
        ({"trl": {"max_length": 64}}, "own option is max_tokens"),
        ({"trl": {"train_sampling_strategy": "random"}}, "give one of them"),
        ({"packing": True, "order": "grouped"}, "packing needs an order"),
        ({"packing": True, "order": None}, "packing needs an order"),
        ({"peft": {"r": 4}, "muon_lr": 0.01}, "muon_lr is for full matrices"),
        ({"judge": {"profile": "compact"}}, "max_prompt_tokens"),
    ],
)
def test_contradictions_are_errors(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="is not a valid SftConfig") as caught:
        sft_config(tmp_path, **more)
    assert said in str(caught.value)


def test_a_run_goes_on_with_as_many_processes_as_it_began_with(tmp_path: Path) -> None:
    config = sft_config(tmp_path, trl={"save_strategy": "steps", "save_steps": 1})
    with pytest.raises(KeyboardInterrupt):
        run(config, [StopAt(2)])
    file = config.output_dir / "packs.json"
    file.write_text(file.read_text().replace('"processes": 1', '"processes": 2'))
    with pytest.raises(ValueError, match="begun with 2 processes, not 1"):
        run(config)


def test_fsdp_on_a_cpu_is_refused_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("FSDP works here")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP needs GPUs"):
        run(sft_config(tmp_path))


def test_rows_that_are_all_too_long_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"every row .* was dropped \(prompt_too_long 24\)"):
        run(sft_config(tmp_path, max_tokens=20))


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output_dir", str(tmp_path), "--model", BASE, "--data", "runs/none/rows.parquet"]
    assert main(words) == 2 and "no data file at runs/none/rows.parquet" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("packing", [False, True])
def test_two_processes_share_each_step_and_keep_the_order(tmp_path: Path, packing: bool) -> None:
    """gloo, with accumulation; the same weights as one process with twice the batch."""
    trl = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
    two = sft_config(tmp_path, "two", trl, packing=packing, max_rows=21)
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(json.loads(two.model_dump_json(exclude_none=True))), encoding="utf-8")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "benchmarks.step_rows"]
    subprocess.run([sys.executable, *words, str(file), str(tmp_path / "seen-two")], check=True)
    one = sft_config(tmp_path, "one", trl | {"per_device_train_batch_size": 4}, packing=packing, max_rows=21)
    run(one, [recorder(tmp_path / "seen-one", pad())])
    steps = merged(tmp_path / "seen-two")
    assert [r for s in steps for r in s] == wanted_order(write_rows(tmp_path), 21) * 2
    assert steps == merged(tmp_path / "seen-one") and metrics_of(two.output_dir)["processes"] == 2
    assert apart(one.output_dir, two.output_dir) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("compact", ["0", "1"])
def test_a_model_in_pieces_makes_the_same_steps(compact: str) -> None:
    """FSDP2 itself works over gloo (accelerate does not use it there): with TRL's head and with ours."""
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests.fsdp_worker"]
    subprocess.run([sys.executable, *words], check=True, env=os.environ | {"COMPACT": compact})


def test_the_config_of_the_demo_is_what_it_was() -> None:
    """order: grouped is TRL's own sampler, so the demo trains on the same batches as ever."""
    from mr3.config import load_config
    from mr3.sft.train import trainer_options

    config = load_config(SftConfig, "configs/nano/judge-sft.yaml")
    assert config.order == "grouped" and not config.packing
    assert trainer_options(config, load_tokenizer(BASE))["train_sampling_strategy"] == "group_by_length"
    assert "train_sampling_strategy" not in TRL
