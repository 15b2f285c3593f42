"""Speed of our SFT against TRL's SFTTrainer on the same rows, model, optimizer and schedule; the sides alternate.

Each of TRL's sides is compared with `mr3 sft` at the same rows a batch and the same kind of order, so that both take
the same steps and end at the same loss (ours scores labelled positions only; fp32, one thread, AdamW).
- defaults: SFTTrainer with the options that TRL sets itself (batch 8, random sampling, padding, gradient checkpointing,
  bf16 autocast), but for learning rate and schedule, which are ours. Beside it: ours, shuffled, 8 rows a batch.
- tuned: SFTTrainer as well as its options allow: fp32, one thread, no checkpointing, grouped by length, 16 rows a
  batch. Beside it: ours, grouped by length, 16 rows a batch, as the nano judge is trained.
Counted are tokens without padding per second of the training loop (`train_runtime`), not start and tokenising. Every
round has another seed; the loss on held-out rows is measured after each by one and the same code.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.runs import metrics
from benchmarks.sft_resume import BASE, split

ROUNDS, BATCH, TOKENS = 3, 16, 384
DEFAULT_BATCH = 8  # transformers' own per_device_train_batch_size
SCHEDULE = {"learning_rate": 2e-3, "lr_scheduler_type": "linear", "warmup_steps": 10, "num_train_epochs": 1}
OURS: dict[str, tuple[str, int]] = {"defaults": ("shuffled", DEFAULT_BATCH), "tuned": ("grouped", BATCH)}
"""Order and rows a batch of our side beside each of TRL's."""
SAME_LOSS = 0.01
"""By how much our held-out loss may be higher: about what one seed differs from another."""
PLAIN = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True}
TUNED = {
    "per_device_train_batch_size": BATCH,
    "bf16": False,
    "gradient_checkpointing": False,
    "train_sampling_strategy": "group_by_length",
}


def held_out_loss(model: Any, rows: list[Any], pad: int) -> float:
    """Mean loss per completion token, in fp32, by transformers' own head."""
    import torch

    from mr3.sft.data import IGNORED

    model = model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for begin in range(0, len(rows), BATCH):
            batch = rows[begin : begin + BATCH]
            shape = (len(batch), max(len(r) for r in batch))
            ids_BT, labels_BT, mask_BT = torch.full(shape, pad), torch.full(shape, IGNORED), torch.zeros(shape).long()
            for i, row in enumerate(batch):
                ids_BT[i, : len(row)] = torch.tensor(row.ids.tolist())
                labels_BT[i, : len(row)] = torch.tensor(row.labels.tolist())
                mask_BT[i, : len(row)] = 1
            n = int((labels_BT[:, 1:] != IGNORED).sum())
            loss = model(input_ids=ids_BT, attention_mask=mask_BT, labels=labels_BT).loss
            total, count = total + float(loss) * n, count + n
    return total / count


def ours(folder: Path, train: Path, seed: int, order: str, batch: int) -> tuple[Any, int, float]:
    """The trained model, its tokens, and the seconds of its loop: through `mr3 sft`'s own run."""
    from mr3.config import build_config
    from mr3.sft.stage import SftConfig, run
    from mr3.training import load_model

    trl = {**SCHEDULE, "per_device_train_batch_size": batch, "save_strategy": "no"}
    data = {"output_dir": folder, "seed": seed, "model": BASE, "data": str(train), "max_tokens": TOKENS}
    run(build_config(SftConfig, {**data, "order": order, "trl": trl}, "benchmark"))
    found = metrics(folder)
    return load_model(str(folder / "model")), found["tokens"], found["tokens"] / found["tokens_per_s"]


def trls(folder: Path, train: Path, seed: int, options: dict[str, Any]) -> tuple[Any, int, float]:
    """The same through SFTTrainer, which reads the conversational rows itself."""
    from datasets import Dataset
    from transformers import AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer

    from mr3.training import load_model

    set_seed(seed)
    rows = Dataset.from_parquet(str(train), cache_dir=str(folder / "cache")).select_columns(["prompt", "completion"])
    arguments = SFTConfig(str(folder / "trainer"), seed=seed, data_seed=seed, **PLAIN, **SCHEDULE, **options)
    trainer = SFTTrainer(
        load_model(BASE), arguments, train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(BASE)
    )
    assert "per_device_train_batch_size" in options or arguments.per_device_train_batch_size == DEFAULT_BATCH
    tokens = sum(len(ids) for ids in trainer.train_dataset["input_ids"])
    seconds = float(trainer.train().metrics["train_runtime"])
    # A fresh model: the trained one's forward stays wrapped in autocast where it was trained so.
    model = load_model(BASE)
    model.load_state_dict(trainer.model.state_dict())
    return model, tokens, seconds


def run() -> Result:
    """All rounds; a ratio is the median over rounds of the two speeds in one round."""
    import torch

    from mr3.sft.data import encode, parquet_rows
    from mr3.training import load_tokenizer, use_threads

    use_threads()
    tokenizer = load_tokenizer(BASE)
    with tempfile.TemporaryDirectory() as root:
        train, held_out = split(Path(root))
        rows = encode(tokenizer, parquet_rows(held_out, "prompt", "completion"), TOKENS).rows
        sides: dict[str, Callable[[Path, int], tuple[Any, int, float]]] = {
            "defaults": lambda folder, seed: trls(folder, train, seed, {}),
            "ours_by_defaults": lambda folder, seed: ours(folder, train, seed, *OURS["defaults"]),
            "tuned": lambda folder, seed: trls(folder, train, seed, TUNED),
            "ours_by_tuned": lambda folder, seed: ours(folder, train, seed, *OURS["tuned"]),
        }
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        losses: dict[str, list[float]] = {name: [] for name in sides}
        for seed in range(ROUNDS):
            # The order of the sides turns, so that none is always first.
            for name in [*sides][seed:] + [*sides][:seed]:
                model, tokens, seconds = sides[name](Path(root) / f"{name}-{seed}", seed)
                speeds[name].append(tokens / seconds)
                losses[name].append(held_out_loss(model, rows, int(tokenizer.pad_token_id)))
    return _result(speeds, losses, torch.get_num_threads())


def _result(speeds: dict[str, list[float]], losses: dict[str, list[float]], threads: int) -> Result:
    value: dict[str, float] = {}
    interval: dict[str, list[float]] = {}
    for name in OURS:
        mine, other = f"ours_by_{name}", name
        ratios = [a / b for a, b in zip(speeds[mine], speeds[other], strict=True)]
        value[f"times_{name}"] = statistics.median(ratios)
        interval[f"times_{name}"] = [min(ratios), max(ratios)]
        value[f"held_out_loss_less_{name}"] = statistics.mean(losses[mine]) - statistics.mean(losses[other])
    return Result(
        value,
        n=ROUNDS,
        interval=interval,
        baseline={"what": "SFTTrainer, tokens/s by round", "value": {name: speeds[name] for name in OURS}},
        bars={
            "times_defaults": Bar("at_least", 1.3),
            "times_tuned": Bar("at_least", 1.0),
            **{f"held_out_loss_less_{name}": Bar("at_most", SAME_LOSS) for name in OURS},
        },
        details={
            "tokens_per_s": speeds,
            "held_out_loss": losses,
            "loss_spread_over_seeds": {name: max(values) - min(values) for name, values in losses.items()},
            "interval": "smallest and largest ratio of a round",
            "threads": threads,
        },
    )


BENCHMARK = Benchmark("sft-vs-trl", "non-pad tokens/s of `mr3 sft` over those of TRL's SFTTrainer", run)
