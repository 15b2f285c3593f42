"""`mr3 grpo`: train a judge from an SFT checkpoint with TRL's GRPOTrainer on rule-based rewards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from grpo_experiments.rewards import composite, zero_variance_share
from mr3.artifacts import stage_run
from mr3.config import StageConfig
from mr3.judge_card import load_card, write_card
from mr3.stage import stage_main


class GrpoConfig(StageConfig):
    """One GRPO arm."""

    model: str = Field(description="judge folder (with judge.json) to start from")
    tasks: Path = Field(description="Parquet of tasks with gold labels")
    max_tasks: int | None = None
    rewards: dict[str, float] = Field(description="reward term -> weight")
    trl: dict[str, Any] = Field(default_factory=dict, description="TRL's GRPOConfig by name")


class RewardLog:
    """Remembers every reward, to report the groups without variance."""

    def __init__(self, reward: Callable[..., list[float | None]]) -> None:
        self.reward = reward
        self.__name__ = reward.__name__
        self.seen: list[float | None] = []

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """As the wrapped reward."""
        values = self.reward(completions, **columns)
        self.seen += values
        return values


def _rows(config: GrpoConfig, tokenizer: Any) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    from mr3.judging.chat import ChatPrompt
    from mr3.records import Task

    if not config.tasks.is_file():
        raise ValueError(f"no tasks at {config.tasks}: make them with `mr3 data`")
    render, chat = load_card(config.model).renderer(), ChatPrompt(tokenizer)
    rows = []
    for raw in pq.read_table(config.tasks, columns=["task", "gold"]).to_pylist()[: config.max_tasks]:
        task = Task.model_validate(json.loads(raw["task"]))
        prompt = chat.text(render(task))
        rows.append({"prompt": prompt, "gold": raw["gold"], "labels": list(task.labels)})
    if not rows:
        raise ValueError(f"{config.tasks} holds no tasks")
    return rows


def run(config: GrpoConfig) -> None:
    """Train and save `output_dir/model` with its judge card."""
    with stage_run("grpo", config, [config.tasks, config.model]) as stage:
        if stage.finished:
            return
        _train(config, stage.folder, stage.metrics)


def _train(config: GrpoConfig, folder: Path, metrics: dict[str, Any]) -> None:
    from datasets import Dataset
    from transformers import set_seed
    from trl import GRPOConfig, GRPOTrainer

    from mr3.compact_head import use_compact_head
    from mr3.training import (
        PlainProgress,
        last_checkpoint,
        load_model,
        load_tokenizer,
        quiet_trainer,
        trl_config,
        use_threads,
    )

    use_threads()
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.model)
    reward = RewardLog(composite(config.rewards))
    arguments = trl_config(GRPOConfig, config.trl, folder / "trainer", config.seed)
    progress = PlainProgress("grpo", ("reward", "reward_std"))
    model = load_model(config.model)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(_rows(config, tokenizer)),
        processing_class=tokenizer,
        callbacks=[progress],
    )
    quiet_trainer(trainer)
    use_compact_head(model, arguments.temperature)
    result = trainer.train(resume_from_checkpoint=last_checkpoint(folder / "trainer"))
    trainer.save_model(str(folder / "model"))
    tokenizer.save_pretrained(str(folder / "model"))
    write_card(folder / "model", load_card(config.model))
    metrics.update(
        steps=result.global_step,
        completions=len(reward.seen),
        groups_without_variance=zero_variance_share(reward.seen, arguments.num_generations),
        tokens=trainer.state.num_input_tokens_seen,
        curve=progress.curve,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 grpo --config FILE`."""
    return stage_main("grpo", GrpoConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
