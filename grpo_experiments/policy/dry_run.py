"""`mr3 grpo --dry-run` for a policy: memory, tokens, judge calls and time of a run that is not started.

    completions  C = per_device_train_batch_size x accumulation x processes, in C / num_generations groups
    judgements   all_pairs: n(n-1)/2 comparisons a group, circular: n; each in one or both orders, `samples` times
    time a step  = generation + judging + log-probabilities and training, one after the other: what overlaps is a gain

Generation and judging come from the assumed rates (`estimate`), training from FLOPs (mr3/sft/estimate.py): a forward
pass for the old log-probabilities, one for the reference's where `beta` is above 0, and three for forward and backward.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grpo_experiments.policy.config import PolicyGrpoConfig
from grpo_experiments.policy.data import read_rows
from grpo_experiments.policy.training import grpo_arguments
from mr3.sft.dry_run import meta_model, shape_of, tokenizer_of, trained_parameters
from mr3.sft.estimate import GIB, flops, memory
from mr3.training import use_threads

_PROMPT_ROWS = 256
_NO_ROWS_TOKENS = 256
"""Of a prompt, where the prompts are not there yet."""


def judgements(config: PolicyGrpoConfig, completions: int, group: int) -> int:
    """Verdicts that a step asks for, where all texts of a group differ."""
    reward = config.reward
    if not reward.asks:
        return 0
    if reward.mode != "pairwise":
        return completions * reward.samples
    orders = 2 if reward.orders == "both" else 1
    if reward.compare == "reference":
        return completions * orders * reward.samples
    pairs = group * (group - 1) // 2 if reward.plan == "all_pairs" else (group if group > 2 else 1)
    return completions // group * pairs * orders * reward.samples


def dry_run(config: PolicyGrpoConfig) -> str:
    """What would be done, as text."""
    use_threads()
    arguments = grpo_arguments(config, config.output_dir)
    tokenizer, which = tokenizer_of(config)
    rows, prompt = 0, float(_NO_ROWS_TOKENS)
    if config.prompts.is_file():
        found = read_rows(config)
        rows = len(found)
        prompt = _mean_prompt(tokenizer, found[:_PROMPT_ROWS])
    model, where = meta_model(config)
    shape = shape_of(model)
    trained = trained_parameters(config, model, shape)
    machine, processes, group = config.estimate, config.processes(), arguments.num_generations
    completion = machine.completion_tokens or arguments.max_completion_length
    per_device = arguments.per_device_train_batch_size
    per_step = per_device * arguments.gradient_accumulation_steps * processes
    steps = arguments.max_steps
    if steps <= 0:
        steps = int(max(1, rows * group // per_step) * arguments.num_train_epochs)
    length = int(prompt) + completion
    need = memory(shape, trained, processes, per_device * length, arguments.gradient_checkpointing)
    reference = 2 * shape.parameters if arguments.beta and config.peft is None else 0
    engine = arguments.vllm_gpu_memory_utilization * machine.memory_gib if _colocated(arguments) else 0.0
    total = (need.total + reference) / GIB + engine
    verdicts = judgements(config, per_step, group)
    times = _times(config, per_step, length, completion, verdicts, flops(shape, [length]), bool(arguments.beta))
    fits = "fits" if total <= 0.9 * machine.memory_gib else "DOES NOT FIT (with a tenth left for the allocator)"
    return "\n".join(
        [
            f"dry run of {config.output_dir} (nothing is trained, asked or written)",
            f"  policy          {shape.parameters:,} parameters, {trained:,} trained; numbers from {where}",
            f"  prompts         {config.prompts}: {rows or 'not made yet'}; mean {prompt:,.0f} tokens, "
            f"tokenizer {which}",
            f"  step            {per_step:,} completions in {per_step // group:,} groups of {group}, "
            f"{processes} processes, {_engine(arguments)}",
            f"  steps           {steps:,}",
            f"  reward          {config.reward.kind}: {_asked(config)}",
            f"  calls           {verdicts:,} verdicts a step at most, {verdicts * steps:,} in all",
            f"  tokens          {per_step * completion:,} sampled and {per_step * int(prompt):,} of prompts a step, "
            f"{per_step * length * steps:,} in all; {verdicts * machine.judge_tokens:,} of the judge a step",
            f"  memory per GPU  {total:.1f} GiB of {machine.memory_gib:g}: {fits}; training {need.total / GIB:.1f}, "
            f"reference {reference / GIB:.1f}, vLLM {engine:.1f} (GiB); reward actors have GPUs of their own",
            f"  time a step     {sum(times.values()):.1f} s: "
            + ", ".join(f"{name} {seconds:.1f}" for name, seconds in times.items())
            + " (assumed rates, see estimate; none of it overlapped)",
            f"  time in all     {sum(times.values()) * steps / 3600:.1f} h",
        ]
    )


def _mean_prompt(tokenizer: Any, rows: list[dict[str, Any]]) -> float:
    lengths = []
    for row in rows:
        text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        lengths.append(len(tokenizer(text)["input_ids"]))
    return sum(lengths) / len(lengths)


def _colocated(arguments: Any) -> bool:
    return bool(arguments.use_vllm) and arguments.vllm_mode == "colocate"


def _engine(arguments: Any) -> str:
    if not arguments.use_vllm:
        return "generated by transformers"
    if arguments.vllm_mode == "colocate":
        return f"vLLM on the trainer's GPUs ({arguments.vllm_gpu_memory_utilization:.0%} of each)"
    where = arguments.vllm_server_base_url or f"{arguments.vllm_server_host}:{arguments.vllm_server_port}"
    return f"a vLLM server at {where}"


def _asked(config: PolicyGrpoConfig) -> str:
    reward = config.reward
    if not reward.asks:
        return "no judge"
    how = f"{reward.mode}, {reward.compare} ({reward.plan})" if reward.mode == "pairwise" else reward.mode
    if reward.server is not None:
        return f"{how}, over HTTP at {reward.server.url}"
    assert reward.judge is not None, "the config has one of the two"
    actors = reward.actors
    return (
        f"{how}, {Path(reward.judge.model)} in {actors.replicas} reward actor(s) of {actors.num_gpus:g} GPU(s), "
        f"store {config.store}"
    )


def _times(
    config: PolicyGrpoConfig, completions: int, length: int, written: int, verdicts: int, one_row: float, kl: bool
) -> dict[str, float]:
    """Seconds of a step's parts. `one_row`: FLOPs of a row's forward and backward pass, three forward passes' worth."""
    machine, processes = config.estimate, config.processes()
    replicas = config.reward.actors.replicas
    passes = (3 + 1 + kl) / 3
    return {
        "generation": completions * written / (machine.tokens_per_s * processes),
        "judging": verdicts * machine.judge_tokens / (machine.judge_tokens_per_s * replicas),
        "training": completions * one_row * passes / (processes * machine.peak_tflops * 1e12 * machine.mfu),
    }
