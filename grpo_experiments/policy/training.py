"""Train a policy with GRPO: the model, the rows, the reward and TRL's trainer, put together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from requests.exceptions import RequestException
from transformers import set_seed
from trl import GRPOConfig

from grpo_experiments.policy.config import PolicyGrpoConfig
from grpo_experiments.policy.data import read_rows
from grpo_experiments.policy.log import StepLog
from grpo_experiments.policy.recording import Recorder
from grpo_experiments.policy.sources import Source, open_source
from grpo_experiments.policy.trainer import KeepLog, PolicyTrainer
from mr3.compact_head import use_compact_head
from mr3.ground_truth import load_checker
from mr3.launch import is_main_process
from mr3.training import (
    PlainProgress,
    last_checkpoint,
    load_model,
    load_tokenizer,
    lora_config,
    quiet_trainer,
    save_trained,
    trl_config,
    use_threads,
)

log = logging.getLogger("mr3.grpo")


def grpo_arguments(config: PolicyGrpoConfig, folder: Path) -> GRPOConfig:
    """TRL's arguments, with this stage's own defaults below those of the config.

    Raises:
        ValueError: for an unknown option, or groups that are spread over processes although they are compared.
    """
    own: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": config.thinking}}
    arguments = trl_config(GRPOConfig, own | config.trl, folder / "trainer", config.seed)
    local = arguments.per_device_train_batch_size * arguments.steps_per_generation
    if config.in_groups and local % arguments.num_generations:
        raise ValueError(
            f"a process generates {local} completions at a time, which are no whole groups of "
            f"{arguments.num_generations}: set trl.per_device_train_batch_size x steps_per_generation to a multiple of "
            "trl.num_generations, so that a group can be compared where it is"
        )
    return arguments


def build_trainer(
    config: PolicyGrpoConfig, folder: Path, arguments: GRPOConfig, source: Source, callbacks: Sequence[Any] = ()
) -> tuple[PolicyTrainer, KeepLog, PlainProgress]:
    """The trainer with everything but its start; with vLLM as a server it connects here.

    Raises:
        ValueError: when that server does not answer.
    """
    rows = read_rows(config)
    tokenizer = load_tokenizer(config.model)
    model = load_model(config.model, config.dtype, config.attention)
    peft_config = lora_config(config.peft)
    rubric = config.reward.rubric
    recorder = Recorder(
        config.reward.kind,
        load_checker(config.checker) if config.checker else None,
        [c.name for c in rubric.criteria] if rubric else [],
        config.log.samples,
    )
    per_step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * config.processes()
    epoch = max(1, len(rows) * arguments.num_generations // per_step)
    steps = arguments.max_steps if arguments.max_steps > 0 else int(epoch * arguments.num_train_epochs)
    progress = PlainProgress("grpo", ("reward", "reward_std"))
    keep = KeepLog(config.guards, config.in_groups, log.warning)
    try:
        trainer = PolicyTrainer(
            source=source,
            recorder=recorder,
            step_log=StepLog(folder, config.log, steps, is_main_process()),
            parts=config.generation_parts,
            silent_steps=config.reward.silent_steps,
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=peft_config,
            callbacks=[progress, keep, *callbacks],
        )
    except (ConnectionError, RequestException) as error:  # TRL waits for its vLLM server here
        raise ValueError(
            f"no vLLM server answers: {error}. Start it with the policy's weights (docs/policy-grpo.md), or set "
            "trl.use_vllm to false"
        ) from error
    keep.trainer = trainer
    quiet_trainer(trainer)
    if peft_config is None and config.processes() == 1:
        use_compact_head(model, arguments.temperature)
    return trainer, keep, progress


def _meet() -> None:
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def _warn_of_whole_labels(config: PolicyGrpoConfig) -> None:
    judge = config.reward.judge
    if judge is not None and not judge.card.sampling.logprobs and config.reward.samples == 1:
        log.warning(
            "the judge keeps no logprobs, so rewards are its labels' values and many groups will have no variance: set "
            "reward.judge.sampling.logprobs to 20"
        )


def train(config: PolicyGrpoConfig, folder: Path, metrics: dict[str, Any], callbacks: Sequence[Any] = ()) -> None:
    """Train and save `folder/model` (with `peft:` the merged model, and the adapter beside it)."""
    use_threads()
    set_seed(config.seed)
    _warn_of_whole_labels(config)
    arguments = grpo_arguments(config, folder)
    with open_source(config, arguments.max_completion_length, _meet) as source:
        trainer, _, progress = build_trainer(config, folder, arguments, source, callbacks)
        checkpoint = last_checkpoint(folder / "trainer")
        trainer.step_log.begin(checkpoint)
        result = trainer.train(resume_from_checkpoint=checkpoint)
    save_trained(trainer, folder, base=config.model, lora=config.peft is not None, dtype=config.dtype)
    metrics.update(
        steps=result.global_step,
        resumed_at=int(checkpoint.rsplit("-", 1)[1]) if checkpoint else None,
        stopped=trainer.step_log.stopped,
        reward=config.reward.kind,
        tokens=trainer.state.num_input_tokens_seen,
        total=vars(trainer.step_log.totals),
        seconds={name: round(value, 2) for name, value in sorted(trainer.step_log.seconds.items())},
        windows=windows(trainer.step_log, config.guards.window),
        curve=progress.curve,
    )


def windows(step_log: StepLog, size: int) -> dict[str, Any]:
    """Mean reward and truth of the first and the last `size` steps."""
    found: dict[str, Any] = {}
    for name, part in (("first", step_log.points[:size]), ("last", step_log.points[-size:])):
        found[name] = {"steps": len(part)}
        for what in ("reward", "truth"):
            values = [value for point in part if (value := point[what]) is not None]
            found[name][what] = sum(values) / len(values) if values else None
    return found
