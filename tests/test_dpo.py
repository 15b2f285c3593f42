"""`mr3 dpo`: what it trains is an ordinary model folder that later stages take, and held-out pairs are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from dpo.sample import SampleConfig
from dpo.sample import run as run_sample
from dpo.train import DpoConfig, run
from mr3.artifacts import metrics_of
from mr3.config import build_config

BASE = "mr3/nano/base"
TRL = {"per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 1e-2, "save_strategy": "no"}
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def write_pairs(file: Path, count: int) -> Path:
    def says(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    rows = [
        {
            "prompt": says("user", f"cats: {i}, dogs: 2."),
            "chosen": says("assistant", f"{i + 2}, thank you."),
            "rejected": says("assistant", f"{i}"),
        }
        for i in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def dpo(folder: Path, **more: Any) -> Path:
    data = {
        "output_dir": folder / "dpo",
        "model": BASE,
        "preferences": write_pairs(folder / "preferences.parquet", 8),
        "trl": TRL,
    }
    run(build_config(DpoConfig, data | more, "test"))
    return folder / "dpo"


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(str(folder), dtype="float32").state_dict())


def test_an_adapter_is_merged_and_kept_beside_the_model(tmp_path: Path) -> None:
    held_out = write_pairs(tmp_path / "preferences_heldout.parquet", 3)
    made = dpo(tmp_path, peft=LORA, held_out=held_out)
    assert (made / "adapter" / "adapter_config.json").is_file() and not (
        made / "model" / "adapter_config.json"
    ).exists()
    before, after = weights(BASE), weights(made / "model")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("q_proj" in name or "v_proj" in name for name in changed)
    found = metrics_of(made)["held_out"]
    assert found["loss"] > 0 and 0 <= found["rewards/accuracies"] <= 1 and "rewards/margins" in found


def test_missing_or_empty_held_out_pairs_are_an_error_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mr3 pairs --heldout_share"):
        dpo(tmp_path, held_out=tmp_path / "absent.parquet")


@pytest.mark.slow
def test_a_policy_with_a_merged_adapter_is_sampled_from(tmp_path: Path) -> None:
    model = dpo(tmp_path, peft=LORA) / "model"
    prompts = [{"prompt_id": "p", "prompt": "cats: 1, dogs: 2.", "language": "en", "meta": "{}"}]
    pq.write_table(pa.Table.from_pylist(prompts), tmp_path / "prompts.parquet")
    generation = {"sampling": {"temperature": 1.0, "max_tokens": 8}, "engine": {"kv_cache_memory_bytes": 1 << 26}}
    sample = {"output_dir": tmp_path / "s", "model": str(model), "prompts": tmp_path / "prompts.parquet"}
    run_sample(build_config(SampleConfig, {**sample, "generation": generation}, "test"))
    assert pq.read_table(tmp_path / "s" / "responses.parquet").num_rows == 1
