"""Speed of our SFT against TRL's SFTTrainer on the same rows, model, optimizer and schedule; the sides alternate.

Sides
- ours: `mr3 sft` as the nano judge has it (grouped by length, scoring labelled positions only), with AdamW.
- defaults: SFTTrainer with the options that TRL sets itself (batch 8, random sampling, padding, gradient checkpointing,
  bf16 autocast), but for learning rate and schedule, which are ours, since the losses are compared.
- tuned: SFTTrainer as well as its options allow: fp32, one thread, no checkpointing, grouped by length, our batch.
Counted are tokens without padding per second of the training loop (`train_runtime`), not start and tokenising. Every
round has another seed; the loss on held-out rows is measured after each by one and the same code.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.runs import metrics
from benchmarks.sft_resume import BASE, split

ROUNDS, BATCH, TOKENS = 3, 16, 384
SCHEDULE = {"learning_rate": 2e-3, "lr_scheduler_type": "linear", "warmup_steps": 10, "num_train_epochs": 1}
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


def ours(folder: Path, train: Path, seed: int) -> tuple[Any, int, float]:
    """The trained model, its tokens, and the seconds of its loop: through `mr3 sft`'s own run."""
    from mr3.config import build_config
    from mr3.sft.stage import SftConfig, run
    from mr3.training import load_model

    trl = {**SCHEDULE, "per_device_train_batch_size": BATCH, "save_strategy": "no"}
    data = {"output_dir": folder, "seed": seed, "model": BASE, "data": str(train), "max_tokens": TOKENS}
    run(build_config(SftConfig, {**data, "order": "grouped", "trl": trl}, "benchmark"))
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
    speeds: dict[str, list[float]] = {"ours": [], "defaults": [], "tuned": []}
    losses: dict[str, list[float]] = {name: [] for name in speeds}
    tokenizer = load_tokenizer(BASE)
    with tempfile.TemporaryDirectory() as root:
        train, held_out = split(Path(root))
        rows = encode(tokenizer, parquet_rows(held_out, "prompt", "completion"), TOKENS).rows
        sides = {
            "ours": lambda folder, seed: ours(folder, train, seed),
            "defaults": lambda folder, seed: trls(folder, train, seed, {}),
            "tuned": lambda folder, seed: trls(folder, train, seed, TUNED),
        }
        for seed in range(ROUNDS):
            # The order of the sides turns, so that none is always first.
            for name in [*sides][seed:] + [*sides][:seed]:
                model, tokens, seconds = sides[name](Path(root) / f"{name}-{seed}", seed)
                speeds[name].append(tokens / seconds)
                losses[name].append(held_out_loss(model, rows, int(tokenizer.pad_token_id)))
    ratios = {
        f"times_{name}": statistics.median(a / b for a, b in zip(speeds["ours"], speeds[name], strict=True))
        for name in ("defaults", "tuned")
    }
    mean = {name: statistics.mean(values) for name, values in losses.items()}
    gaps = {f"held_out_loss_less_{name}": mean["ours"] - mean[name] for name in ("defaults", "tuned")}
    return Result(
        {**ratios, **gaps},
        n=ROUNDS,
        interval={f"times_{n}": _range(speeds["ours"], speeds[n]) for n in ("defaults", "tuned")},
        baseline={"what": "SFTTrainer, tokens/s by round", "value": {n: speeds[n] for n in ("defaults", "tuned")}},
        bars={"times_defaults": Bar("at_least", 1.3), "times_tuned": Bar("at_least", 1.0)},
        details={
            "tokens_per_s": speeds,
            "held_out_loss": losses,
            "loss_spread_over_seeds": {name: max(values) - min(values) for name, values in losses.items()},
            "interval": "smallest and largest ratio of a round",
            "threads": torch.get_num_threads(),
        },
    )


def _range(ours: list[float], other: list[float]) -> list[float]:
    found = [a / b for a, b in zip(ours, other, strict=True)]
    return [min(found), max(found)]


BENCHMARK = Benchmark("sft-vs-trl", "non-pad tokens/s of `mr3 sft` over those of TRL's SFTTrainer", run)
