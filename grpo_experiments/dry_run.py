"""`mr3 grpo --dry-run`: tasks rendered and bundled, the model on the meta device, and what a run would need."""

from __future__ import annotations

from typing import Any

from grpo_experiments.config import GrpoConfig
from grpo_experiments.data import Tasks
from grpo_experiments.estimate import Plan, memory_of, seconds
from grpo_experiments.judge import arguments_of, card_of, numbered, tasks_of
from grpo_experiments.sampler import BundleSampler
from mr3.sft.dry_run import duration, meta_model, shape_of, tokenizer_of, trained_parameters
from mr3.sft.estimate import GIB
from mr3.training import use_threads


def dry_run(config: GrpoConfig) -> str:
    """The report, for people. Writes nothing.

    Raises:
        ValueError: for tasks or a model that are not there, or batches that can't be filled.
    """
    use_threads()
    card = card_of(config, config.model)
    tokenizer, which = tokenizer_of(config)
    tasks, prompts = tasks_of(config, card, tokenizer)
    largest = max(map(len, tasks.held_out), default=1)
    arguments = arguments_of(config, card, largest, config.output_dir / "trainer")
    model, where = meta_model(config)
    shape = shape_of(model)
    trained = trained_parameters(config, model, shape)
    processes = config.processes()
    batch = arguments.per_device_train_batch_size * processes * arguments.steps_per_generation
    sampler = BundleSampler(numbered(tasks.train, 0), batch // arguments.num_generations, arguments.num_generations)
    first = list(dict.fromkeys(list(sampler)[:batch]))
    lengths = [len(ids) for ids in tokenizer([prompts[row] for row in first], add_special_tokens=False)["input_ids"]]
    colocated = arguments.use_vllm and arguments.vllm_mode == "colocate"
    plan = Plan(
        prompts=lengths,
        samples=arguments.num_generations,
        completion=config.estimate_completion(card.max_output_tokens),
        longest=arguments.max_completion_length,
        steps=arguments.steps_per_generation / arguments.gradient_accumulation_steps * arguments.num_iterations,
        iterations=arguments.num_iterations,
        passes=_passes(config, arguments),
        gpus=processes,
        engine_gpus=processes,
        in_place=arguments.vllm_gpu_memory_utilization if colocated else None,
        sleeps=arguments.vllm_enable_sleep_mode,
    )
    generations = len(sampler) // batch
    return "\n".join(
        [
            f"dry run of {config.output_dir} (nothing is trained or written)",
            *_task_lines(config, tasks, which),
            *_step_lines(arguments, plan, batch, processes),
            *_need_lines(config, arguments, plan, shape, trained, generations, where),
        ]
    )


def _passes(config: GrpoConfig, arguments: Any) -> int:
    """Forward passes without gradient over each sample."""
    needs = config.composite().needs
    again = arguments.use_vllm or arguments.steps_per_generation > arguments.gradient_accumulation_steps
    found = int(again or arguments.num_iterations > 1) + int(arguments.beta != 0)
    return found + len(needs & {"label_probs", "blank_probs", "reader_probs"}) + 2 * ("rubric_gain" in needs)


def _task_lines(config: GrpoConfig, tasks: Tasks, which: str) -> list[str]:
    def sizes(bundles: list[Any]) -> str:
        return f"{sum(map(len, bundles)):,} prompts in {len(bundles):,} bundles"

    terms = config.composite().terms
    return [
        f"  tasks           {config.tasks}: {sizes(tasks.train)} to train on, {sizes(tasks.held_out)} held out",
        f"  dropped         {dict(tasks.dropped) or 'none'}",
        f"  tokenizer       {which}",
        "  reward          "
        + ", ".join(f"{n} {t.weight:g}{' (gate)' if t.gate else ''}" for n, t in terms.items())
        + f"; combined as {config.combine}, baseline of the {config.baseline}",
    ]


def _step_lines(arguments: Any, plan: Plan, batch: int, processes: int) -> list[str]:
    mode = f"vLLM, {arguments.vllm_mode}" if arguments.use_vllm else "transformers"
    return [
        f"  a generation    {len(plan.prompts):,} prompts x {plan.samples} samples = {batch:,} completions by {mode}; "
        f"{sum(plan.prompts):,} prompt tokens (each once), {round(batch * plan.completion):,} sampled at "
        f"{plan.completion:g} each (assumed, at most {plan.longest:,})",
        f"  a step          {batch / plan.steps:g} completions: {arguments.per_device_train_batch_size} x "
        f"{arguments.gradient_accumulation_steps} accumulated x {processes} processes; a generation serves "
        f"{plan.steps:g}",
    ]


def _need_lines(
    config: GrpoConfig, arguments: Any, plan: Plan, shape: Any, trained: int, generations: int, where: str
) -> list[str]:
    machine = config.estimate
    took = seconds(shape, plan, machine.peak_tflops, machine.mfu, machine.bandwidth_gbs)
    steps = arguments.max_steps if arguments.max_steps > 0 else generations * plan.steps * arguments.num_train_epochs
    total = steps / plan.steps * took.total
    per_pass = round((max(plan.prompts) + plan.completion) * arguments.per_device_train_batch_size)
    frozen = int(arguments.beta != 0 and config.peft is None) + int("reader_probs" in config.composite().needs)
    states, beside, engine = memory_of(
        shape, trained, plan, per_pass, arguments.gradient_checkpointing, frozen, machine.memory_gib
    )
    need = states.total + beside + engine
    fits = "fits" if need <= 0.9 * machine.memory_gib * GIB else "DOES NOT FIT (with a tenth left for the allocator)"
    return [
        f"  model           {shape.parameters:,} parameters, {trained:,} trained; numbers from {where}",
        f"  memory per GPU  {need / GIB:.1f} GiB of {machine.memory_gib:g}: {fits}; training {states.total / GIB:.1f}, "
        f"frozen models {beside / GIB:.1f}, engine {engine / GIB:.1f}",
        f"  time            {duration(took.total / 3600)} a generation (sampling {took.generation:.3g} s, measuring "
        f"{took.measuring:.3g} s, training {took.training:.3g} s); {steps:g} steps, {duration(total / 3600)} in all",
        "                  without judges that are asked; sampling ends with the longest sample, so it is too low",
        f"                  on {plan.gpus} GPUs at {machine.mfu:.0%} of {machine.peak_tflops:g} TFLOP/s and "
        f"{machine.bandwidth_gbs:g} GB/s (assumed, not measured)",
        "  formulas        see grpo_experiments/estimate.py",
    ]
