"""GRPOTrainer for policies: the judge works while the trainer does, and every step leaves a record.

TRL (1.16) asks its reward functions when all log-probabilities of a step are computed, and waits for them. Here the
judge is asked as soon as completions are there: it works while the trainer computes the old and the reference
log-probabilities, and with `parts` above 1 also while the rest of the step is being generated, with the same weights.
So the policy's gradient is that of TRL's trainer; nothing is trained on completions of older weights. (The next step
can't be generated before: it is to come from the weights that these rewards make. TRL's experimental AsyncGRPO does it
at the price of older weights.)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback

from grpo_experiments.guards import StepGuard, over_steps
from grpo_experiments.policy.log import Record, StepLog
from grpo_experiments.policy.recording import Judged, Recorder, silence_of
from grpo_experiments.policy.sources import Source
from grpo_experiments.shared_prompts import SharedPromptTrainer
from grpo_experiments.watching import StopsAtOnce
from rewards.serving.trl_reward import JudgeSilent

_NOT_COLUMNS = frozenset({"prompt", "completion", "completion_ids"})


class NamedReward:
    """What TRL is given as the reward function, for its name; the trainer asks the source itself."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        raise AssertionError("PolicyTrainer takes the rewards from its source")


class PolicyTrainer(StopsAtOnce, SharedPromptTrainer):
    """GRPOTrainer whose one reward comes from a `Source`.

    Args:
        source: the reward.
        recorder: makes the records.
        step_log: keeps them.
        parts: in how many parts a step is generated.
        silent_steps: after so many generations of nothing but failed judgements the training ends.
    """

    def __init__(
        self, *, source: Source, recorder: Recorder, step_log: StepLog, parts: int, silent_steps: int, **more: Any
    ) -> None:
        super().__init__(reward_funcs=NamedReward(recorder.name), **more)
        self._source, self._recorder, self.step_log = source, recorder, step_log
        self._parts, self._silent_steps = parts, silent_steps
        self._rows: list[dict[str, Any]] = []
        self._asked: list[tuple[int, Future[Any]]] = []
        self._generated_s, self._prompt_tokens = 0.0, 0
        self._made = source.made
        self.record: Record | None = None
        """Of the step that is going on: of all its generations so far."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rows, self._asked = inputs, []
        self._generated_s, self._prompt_tokens = 0.0, 0
        try:
            found: dict[str, Any] = super()._generate_and_score_completions(inputs)
            return found
        finally:
            for _, future in self._asked:
                future.cancel()

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        """All completions of a step; the judge hears of each part as soon as it is there."""
        groups = len(prompts) // self.num_generations
        parts = max(1, min(self._parts, groups)) if self.model.training else 1
        made, begin = [], 0
        for part in range(parts):
            end = groups * (part + 1) // parts * self.num_generations if parts > 1 else len(prompts)
            begun = time.monotonic()
            made.append(super()._generate(prompts[begin:end]))
            self._generated_s += time.monotonic() - begun
            self._prompt_tokens += sum(map(len, made[-1][0]))
            self._ask(begin, made[-1])
            begin = end
        return made[0] if parts == 1 else _joined(made)

    def _ask(self, begin: int, made: tuple[Any, ...]) -> None:
        completion_ids, completions = made[1], made[3]
        rows = self._rows[begin : begin + len(completions)]
        columns = {key: [row[key] for row in rows] for key in rows[0] if key not in _NOT_COLUMNS}
        asking = self._source.measure(
            [row["prompt"] for row in rows], completions, completion_ids=completion_ids, **columns
        )
        self._asked.append((begin, asyncio.run_coroutine_threadsafe(asking, self.async_loop)))

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[Any], completions: list[Any], completion_ids_list: list[Any]
    ) -> torch.Tensor:
        """Wait for the judge; (B*G of all processes, 1), NaN for None."""
        begun = time.monotonic()
        judged = Judged.joined([(begin, future.result()) for begin, future in self._asked], len(completions))
        waited = time.monotonic() - begun
        record = self._recorder.record(inputs, completions, completion_ids_list, judged, self.num_generations)
        made = self._source.made
        record.made, record.made_tokens = (now - then for now, then in zip(made, self._made, strict=True))
        self._made = made
        record.prompt_tokens = self._prompt_tokens
        record.seconds.update(generate=self._generated_s, wait=waited, judge=judged.seconds)
        if self.model.training:
            self._take(record)
        values = [torch.nan if reward is None else reward for reward in judged.rewards]
        device = self.accelerator.device
        rewards_N1 = torch.tensor(values, dtype=torch.float32, device=device).unsqueeze(1)
        gathered: torch.Tensor = self.accelerator.gather(rewards_N1)
        return gathered

    def _take(self, record: Record) -> None:
        """The record of all processes together; all of them stop together where the judge is silent."""
        total = Record()
        for own in gather_object([record]):
            total.add(own)
        self.step_log.take(total)
        self.record = total if self.record is None else self.record.then(total)
        if self.step_log.silent_steps >= self._silent_steps:
            raise JudgeSilent(silence_of(self.step_log.silent_steps, total))

    def kl(self) -> float | None:
        """The KL to the start in the last step, where it is computed (`beta` above 0)."""
        values = self._metrics["train"].get("kl", [])[-self.args.gradient_accumulation_steps :]
        return sum(values) / len(values) if values else None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        self.step_log.save(folder, self.state.global_step)
        super()._save_checkpoint(model, trial)


def _joined(parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Parts of one step as `_generate` returns a whole: lists end to end."""
    joined: list[Any] = []
    for values in zip(*parts, strict=True):
        if all(isinstance(value, list) for value in values):
            joined.append([entry for value in values for entry in value])
        elif all(isinstance(value, dict) for value in values):
            joined.append({key: [entry for value in values for entry in value[key]] for key in values[0]})
        else:
            assert all(value is None for value in values), "parts of a step are of one kind"
            joined.append(None)
    return tuple(joined)


class KeepLog(TrainerCallback):  # type: ignore[misc]
    """Writes a step's line when the step is done, and ends a run that has gone wrong.

    Args:
        relative: whether the reward is relative to the group.
        tell: takes the reason as a line of text.
    """

    def __init__(self, guards: StepGuard, relative: bool, tell: Callable[[str], None]) -> None:
        self._guards, self._relative, self._tell = guards, relative, tell
        self.trainer: PolicyTrainer | None = None
        self._begun = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A run that was stopped is not trained on."""
        assert self.trainer is not None, "set when the trainer is made"
        stopped = self.trainer.step_log.stopped
        if stopped is not None and self._guards.stop:
            self._tell(f"this run was stopped by a guard and is only finished: {stopped}")
            control.should_training_stop = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        self._begun = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer. A step that trains on completions of an earlier one has no record of its own."""
        trainer = self.trainer
        assert trainer is not None, "set when the trainer is made"
        if trainer.record is None:
            return
        trainer.record.seconds["step"] = time.monotonic() - self._begun
        trainer.step_log.write(state.global_step, trainer.record, trainer.kl())
        trainer.record = None
        found = over_steps(trainer.step_log.points, self._guards, self._relative)
        if found is not None and trainer.step_log.stopped is None:
            trainer.step_log.stopped = found
            self._tell(f"{found['reason']} at step {found['step']}: {found}")
            if self._guards.stop:
                control.should_training_stop = True
