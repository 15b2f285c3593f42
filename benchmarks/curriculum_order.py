"""Do the rows that reach optimizer step t follow the curriculum? Seen at the model's input, against the file's order.

Measured through the real `mr3 sft` with `order: kept`: packed and unpacked, with accumulation, with two processes
(gloo). The baseline is TRL's own packing of the same rows: `bfd` with its default sampler, and with a sequential one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.step_rows import in_order, main, merged, recorder, row_key

BASE, DATA = "mr3/nano/base", Path("runs/demo/data/judge_sft.parquet")
ROWS, TOKENS, BATCH, EPOCHS = 331, 512, 4, 2
CASES: dict[str, dict[str, Any]] = {
    "unpacked": {},
    "packed": {"packing": True},
    "unpacked_accumulated": {"accumulation": 4},
    "packed_accumulated": {"packing": True, "accumulation": 4},
    "unpacked_two_processes": {"processes": 2},
    "packed_two_processes_accumulated": {"packing": True, "processes": 2, "accumulation": 3},
}


def plain(accumulation: int = 1) -> dict[str, Any]:
    """Options of the trainer that all cases share."""
    return {
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": EPOCHS,
        "learning_rate": 1e-4,
        "save_strategy": "no",
    }


def write_case(folder: Path, data: Path, rows: int, packing: bool = False, accumulation: int = 1, **more: Any) -> Path:
    """The config of one case."""
    config = {
        "output_dir": str(folder / "run"),
        "model": BASE,
        "data": str(data),
        "max_rows": rows,
        "max_tokens": TOKENS,
        "order": "kept",
        "packing": packing,
        "trl": plain(accumulation),
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "sft.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def launch(file: Path, out: Path, processes: int = 1) -> None:
    """Run a case here, or in several processes under torchrun."""
    if processes == 1:
        main([str(file), str(out)])
        return
    words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    subprocess.run([sys.executable, *words, "benchmarks.step_rows", str(file), str(out)], check=True)


def wanted_order(data: Path, rows: int) -> list[str]:
    """The curriculum: the file's rows, as tokens, in the file's order."""
    from mr3.sft.data import encode, parquet_rows
    from mr3.training import load_tokenizer

    encoded = encode(load_tokenizer(BASE), parquet_rows(data, "prompt", "completion", rows), TOKENS)
    assert not encoded.dropped
    return [row_key(row.ids) for row in encoded.rows]


def share(steps: list[list[str]], order: list[str], per_step: int | None) -> tuple[int, int]:
    """Rows in their place, of all. `per_step`: rows of a step where that is fixed (no packing): counted as well."""
    seen = [row for step in steps for row in step]
    right = in_order(seen, order * EPOCHS)
    if per_step is not None:
        per_epoch = [min(per_step, len(order) - begin) for begin in range(0, len(order), per_step)]
        if [len(step) for step in steps] != per_epoch * EPOCHS:
            right = 0
    return right, max(len(seen), len(order) * EPOCHS)


def baseline(folder: Path, sampling: str) -> float:
    """TRL's trainer with its own packing of the same tokens."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from mr3.sft.data import encode, parquet_rows
    from mr3.training import load_model, load_tokenizer, trl_config

    tokenizer = load_tokenizer(BASE)
    rows = encode(tokenizer, parquet_rows(DATA, "prompt", "completion", ROWS), TOKENS).rows
    options = {**plain(), "packing": True, "max_length": TOKENS, "train_sampling_strategy": sampling}
    SFTTrainer(
        model=load_model(BASE),
        args=trl_config(SFTConfig, options, folder / "trainer", 0),
        train_dataset=Dataset.from_list([{"input_ids": r.ids.tolist(), "labels": r.labels.tolist()} for r in rows]),
        processing_class=tokenizer,
        callbacks=[recorder(folder, int(tokenizer.pad_token_id))],
    ).train()
    seen = [row for step in merged(folder) for row in step]
    order = [row_key(row.ids) for row in rows]
    assert sorted(seen) == sorted(order * EPOCHS), "every row must be seen, in whatever order"
    return in_order(seen, order * EPOCHS) / len(seen)


def run() -> Result:
    """All cases, then the baselines."""
    if not DATA.is_file():
        raise ValueError(f"no rows at {DATA}: run `mr3 data --config configs/nano/data.yaml` first")
    values: dict[str, float | int | None] = {}
    order = wanted_order(DATA, ROWS)
    steps_of = {}
    with tempfile.TemporaryDirectory() as root:
        for name, case in CASES.items():
            folder = Path(root) / name
            options = {k: v for k, v in case.items() if k != "processes"}
            processes = case.get("processes", 1)
            launch(write_case(folder, DATA, ROWS, **options), folder, processes)
            steps = merged(folder)
            packed = case.get("packing", False)
            right, total = share(steps, order, None if packed else BATCH * processes * case.get("accumulation", 1))
            values[name], steps_of[name] = right / total, len(steps)
        compared = {s: baseline(Path(root) / f"trl-{s}", s) for s in ("random", "sequential")}
    return Result(
        values,
        n=ROWS * EPOCHS,
        baseline={"what": "rows in place with TRL's packing (bfd), by sampler", "value": compared},
        bars={name: Bar("at_least", 1.0) for name in CASES},
        details={"optimizer_steps": steps_of, "epochs": EPOCHS, "batch": BATCH, "max_tokens": TOKENS},
    )


BENCHMARK = Benchmark("curriculum-order", "share of rows that reach the optimizer step that the curriculum says", run)
