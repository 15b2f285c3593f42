"""Trainers take the files of `mr3 pairs` as they are: `mr3 dpo`, and TRL's KTOTrainer."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpo.train import DpoConfig
from dpo.train import run as run_dpo
from mr3.artifacts import metrics_of
from mr3.config import build_config
from rewards.selection.stage import run
from tests.rewards_support import make_judge
from tests.selection_support import by_length, pairs_config, pool_row, write_label

PLAIN = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "max_steps": 1, "save_strategy": "no"}


def test_trainers_take_the_pairs(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    rows = [pool_row(f"p{i}", {"x": "4 4", "y": "5"}, prompt=f"question {i}") for i in range(4)]
    labels = [write_label(tmp_path / name, rows, by_length) for name in ("one", "two")]
    for name, used in (("single", labels[:1]), ("several", labels)):
        run(pairs_config(tmp_path / name, used, formats=["trl", "kto"]))
    model = str(make_judge(tmp_path / "policy"))

    def dpo(name: str, folder: str) -> DpoConfig:
        data = {"output_dir": tmp_path / name, "model": model, "preferences": tmp_path / folder / "preferences.parquet"}
        trl = {"per_device_train_batch_size": 2, "max_steps": 1, "save_strategy": "no", "loss_type": ["robust"]}
        return build_config(DpoConfig, {**data, "label_smoothing": "flips", "trl": trl}, "test")

    run_dpo(dpo("dpo", "single"))
    metrics = metrics_of(tmp_path / "dpo")
    assert (metrics["pairs"], metrics["steps"]) == (4, 1) and 0 < metrics["label_smoothing"] < 0.01
    with pytest.raises(ValueError, match="several label runs were combined"):
        run_dpo(dpo("dpo-several", "several"))

    data = Dataset.from_parquet(str(tmp_path / "several" / "kto.parquet"), cache_dir=str(tmp_path / "cache"))
    arguments = KTOConfig(output_dir=str(tmp_path / "kto"), per_device_train_batch_size=4, report_to="none", **PLAIN)
    from transformers import AutoTokenizer

    trainer = KTOTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=AutoTokenizer.from_pretrained(model)
    )
    assert trainer.train().global_step == 1
