"""A small SFT run for tests: rows of the nano world in one Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.config import build_config
from mr3.nano.dataset import judge_rows
from mr3.sft.config import SftConfig

BASE = "mr3/nano/base"
TRL = {"per_device_train_batch_size": 4, "num_train_epochs": 1, "learning_rate": 1e-3, "save_strategy": "no"}


def write_rows(folder: Path, rows: int = 24, seed: int = 3) -> Path:
    """Judge rows of all modes."""
    path = folder / "rows.parquet"
    if not path.is_file():
        pq.write_table(pa.Table.from_pylist(judge_rows(rows, seed)), path)
    return path


def sft_config(folder: Path, name: str = "run", trl: dict[str, Any] | None = None, **more: Any) -> SftConfig:
    """Kept order, unpacked, unless said otherwise."""
    data = {
        "output_dir": folder / name,
        "model": BASE,
        "data": str(write_rows(folder)),
        "max_tokens": 384,
        "order": "kept",
        "trl": TRL | (trl or {}),
    }
    return build_config(SftConfig, data | more, "test")
