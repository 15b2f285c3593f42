"""SFT killed (SIGKILL) half way and started again, against the same run left alone.

Two configs: a kept order in packs with AdamW, and the nano judge's (grouped by length, Muon, replay). Compared: the
loss of the last steps, the loss on held-out rows, every weight, and which rows the steps after the resume saw. The
seed of the two runs is the same, as the command is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.runs import DEMO, metrics
from benchmarks.step_rows import merged, recorder

BASE, ROWS, HELD_OUT = "mr3/nano/base", 480, 200
_PLAIN = {
    "per_device_train_batch_size": 16,
    "num_train_epochs": 2,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 10,
    "logging_steps": 1,
    "save_steps": 10,
}
CASES: dict[str, dict[str, Any]] = {
    "kept_packed": {
        "order": "kept",
        "packing": True,
        "trl": {**_PLAIN, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    },
    "nano_judge": {
        "order": "grouped",
        "muon_lr": 0.01,
        "replay": str(DEMO / "data" / "replay.parquet"),
        "replay_share": 0.1,
        "trl": {**_PLAIN, "num_train_epochs": 1, "weight_decay": 0.0, "adam_beta2": 0.95},
    },
}


def split(folder: Path) -> tuple[Path, Path]:
    """Training rows and held-out rows of the nano judge's data."""
    import pyarrow.parquet as pq

    table = pq.read_table(DEMO / "data" / "judge_sft.parquet")
    files = folder / "train.parquet", folder / "held_out.parquet"
    for file, part in zip(files, (table.slice(0, ROWS), table.slice(table.num_rows - HELD_OUT)), strict=True):
        pq.write_table(part, file)
    return files


def write_config(folder: Path, train: Path, held_out: Path, case: dict[str, Any]) -> Path:
    """The config of one run."""
    config = {"output_dir": str(folder / "run"), "model": BASE, "data": str(train), "held_out": str(held_out)}
    folder.mkdir(parents=True)
    file = folder / "sft.yaml"
    file.write_text(yaml.safe_dump({**config, "max_tokens": 384, **case}), encoding="utf-8")
    return file


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.sft_resume CONFIG OUT STEP`: one run, killed behind STEP (0: never)."""
    from transformers import TrainerCallback

    from mr3.config import load_config
    from mr3.sft.stage import SftConfig, run
    from mr3.training import load_tokenizer

    class KillAt(TrainerCallback):  # type: ignore[misc]
        """No handler, no clean-up: the process is gone."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)

    words = list(sys.argv[1:] if argv is None else argv)
    file, out, step = Path(words[0]), Path(words[1]), int(words[2])
    pad = int(load_tokenizer(BASE).pad_token_id)
    run(load_config(SftConfig, file), [recorder(out, pad), KillAt()])
    return 0


def _go(file: Path, out: Path, step: int = 0) -> int:
    return subprocess.run([sys.executable, "-m", "benchmarks.sft_resume", str(file), str(out), str(step)]).returncode


def _largest_difference(one: Path, two: Path) -> float:
    from safetensors.torch import load_file

    a, b = (load_file(folder / "run" / "model" / "model.safetensors") for folder in (one, two))
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def compare(root: Path, case: dict[str, Any]) -> dict[str, Any]:
    """One case: a whole run, then one that is killed and started again."""
    root.mkdir()
    train, held_out = split(root)
    whole, killed = root / "whole", root / "killed"
    whole_file, killed_file = (write_config(folder, train, held_out, case) for folder in (whole, killed))
    assert _go(whole_file, whole) == 0
    one = metrics(whole / "run")
    # Between two checkpoints, so that steps are done again.
    at = one["steps"] // 2 // 10 * 10 + 5
    assert _go(killed_file, killed, at) == -signal.SIGKILL and not (killed / "run" / "manifest.json").exists()
    assert _go(killed_file, killed) == 0
    two = metrics(killed / "run")
    assert 0 < two["resumed_at"] < at, "it must have gone on from a checkpoint"
    return {
        "steps": one["steps"],
        "killed_at": at,
        "resumed_at": two["resumed_at"],
        "same_rows": merged(killed) == merged(whole)[two["resumed_at"] :],
        "last_loss": abs(one["curve"][-1]["loss"] - two["curve"][-1]["loss"]),
        "mean_loss": abs(one["train_loss"] - two["train_loss"]),
        "held_out_loss": abs(one["held_out_loss"] - two["held_out_loss"]),
        "held_out": [one["held_out_loss"], two["held_out_loss"]],
        "weights": _largest_difference(whole, killed),
    }


def run() -> Result:
    """Both cases; the largest difference of the three losses counts."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: compare(Path(folder) / name, case) for name, case in CASES.items()}
    values = {f"{n}.loss": max(c[k] for k in ("last_loss", "mean_loss", "held_out_loss")) for n, c in found.items()}
    same = {f"{name}.same_rows": float(case["same_rows"]) for name, case in found.items()}
    return Result(
        {**values, **same},
        n=len(found),
        bars={**{k: Bar("at_most", 1e-4) for k in values}, **{k: Bar("at_least", 1.0) for k in same}},
        details=found,
    )


BENCHMARK = Benchmark("sft-resume", "loss of SFT killed half way and resumed, less that of the run left alone", run)

if __name__ == "__main__":
    raise SystemExit(main())
