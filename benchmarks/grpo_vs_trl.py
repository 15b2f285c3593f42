"""Time of a judge's GRPO step by that of TRL's own trainer on the same samples: what shared prompts and the head save.

Twins of the nano world, 64 completions a step in groups of 8. Each round samples once, and both trainers compute loss
and gradient on these samples in turn: TRL's GRPOTrainer with its own head, and the project's. Losses and gradients are
compared as well. MR3_GRPO_ROUNDS: rounds (12). Sampling is TRL's own in both, so a whole step gains less.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.registry import Bar, Benchmark, Result

BASE = "mr3/nano/base"
_LEFT_OUT = 2


def _prompts(count: int) -> list[str]:
    """Prompts of a judge with the compact profile, as `mr3 grpo` renders them."""
    from mr3.judge_card import JudgeCard
    from mr3.judging.chat import ChatPrompt
    from mr3.nano.twins import World, twin_tasks
    from mr3.training import load_tokenizer

    card = JudgeCard(profile="compact", max_prompt_tokens=2048, max_output_tokens=128)
    render, chat = card.renderer(), ChatPrompt(load_tokenizer(BASE))
    return [chat.text(render(one.made.task)) for one in twin_tasks("rl", count, 0, World())]


def _trainer(kind: Any, prompts: list[str], folder: Path, **more: Any) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig

    from mr3.training import load_model, load_tokenizer, trl_config

    options = {
        "num_generations": 8, "per_device_train_batch_size": 64, "max_completion_length": 64, "temperature": 1.0,
        "beta": 0.0,
    }  # fmt: skip
    return kind(
        model=load_model(BASE),
        reward_funcs=[_length],
        args=trl_config(GRPOConfig, options, folder, 0),
        train_dataset=Dataset.from_list([{"prompt": p} for p in prompts]),
        processing_class=load_tokenizer(BASE),
        **more,
    )


def _length(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text) % 17) for text in completions]


def _gradient(trainer: Any, output: dict[str, Any]) -> tuple[float, float, Any]:
    """Seconds of loss and gradient, the loss, and the gradient."""
    import torch

    trainer.model.zero_grad(set_to_none=True)
    trainer.current_gradient_accumulation_steps = 1
    begun = time.perf_counter()
    loss = trainer._compute_loss(trainer.model, dict(output))
    loss.backward()
    seconds = time.perf_counter() - begun
    return seconds, loss.item(), torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


def run() -> Result:
    """Both trainers in one process, in turn."""
    from trl import GRPOTrainer

    from grpo_experiments.shared_prompts import SharedPromptTrainer
    from mr3.compact_head import use_compact_head
    from mr3.training import use_threads

    use_threads()
    rounds = int(os.environ.get("MR3_GRPO_ROUNDS", "12"))
    prompts = _prompts(8 * (rounds + _LEFT_OUT))
    sampling, ours, theirs, tokens = list[float](), list[float](), list[float](), list[float]()
    loss_gap, gradient_gap = 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        own = _trainer(SharedPromptTrainer, prompts, Path(folder))
        use_compact_head(own.model, 1.0)
        plain = _trainer(GRPOTrainer, prompts, Path(folder))
        own.model.train()
        plain.model.train()
        for k in range(rounds + _LEFT_OUT):
            inputs = [{"prompt": p} for p in prompts[8 * k : 8 * k + 8] for _ in range(8)]
            begun = time.perf_counter()
            output = own._generate_and_score_completions(inputs)
            sampling.append(time.perf_counter() - begun)
            # Each goes first in every other round.
            order = [(own, ours), (plain, theirs)][:: 1 if k % 2 else -1]
            found = {}
            for trainer, seconds in order:
                taken, loss, gradient = _gradient(trainer, output)
                seconds.append(taken)
                found[id(trainer)] = (loss, gradient)
            (loss_a, gradient_a), (loss_b, gradient_b) = found[id(own)], found[id(plain)]
            loss_gap = max(loss_gap, abs(loss_a - loss_b))
            gradient_gap = max(gradient_gap, float((gradient_a - gradient_b).norm() / gradient_b.norm()))
            tokens.append(float(output["prompt_mask"].sum(1).float().mean()))
    parts = [part[_LEFT_OUT:] for part in (sampling, ours, theirs)]
    whole = [(s + b) / (s + a) for s, a, b in zip(*parts, strict=True)]
    return Result(
        {
            "training": statistics.median(b / a for a, b in zip(parts[1], parts[2], strict=True)),
            "step": statistics.median(whole),
            "loss_difference": loss_gap,
            "gradient_difference": gradient_gap,
        },
        n=rounds,
        bars={
            "training": Bar("at_least", 1.5),
            "loss_difference": Bar("at_most", 1e-5),
            "gradient_difference": Bar("at_most", 1e-3),
        },
        baseline={"TRL's GRPOTrainer, same samples": 1.0},
        details={
            "sampling_s": statistics.median(parts[0]),
            "ours_s": statistics.median(parts[1]),
            "trl_s": statistics.median(parts[2]),
            "prompt_tokens": statistics.mean(tokens),
            "completions": 64,
        },
    )


BENCHMARK = Benchmark(
    "grpo-vs-trl", "times as fast as TRL's trainer: loss and gradient of a GRPO step, and all of it", run
)
