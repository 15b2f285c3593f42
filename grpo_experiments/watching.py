"""What looks at a run while it goes on: progress, checkpoints of the history, probes, and the guards that stop it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback

from grpo_experiments import guards
from grpo_experiments.contract import Example
from grpo_experiments.guards import GuardSettings
from grpo_experiments.probes import Probe, summary
from grpo_experiments.reward_log import History
from grpo_experiments.scoring import Completion

log = logging.getLogger("mr3.grpo")


class StopsAtOnce:
    """A trainer that trains no step where a callback's `on_train_begin` has said to stop.

    Transformers' Trainer (5) looks at `should_training_stop` behind a step, so a run that a guard has stopped would be
    trained on by whoever starts it again. Without batches there is no step.
    """

    control: Any

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """As the Trainer's; none where training is over."""
        if self.control.should_training_stop:
            return [], None
        found: tuple[list[Any], Any] = super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        return found


class Watch(TrainerCallback):
    """Stops the run with a named reason, which the history keeps; a run that was stopped is not trained on.

    Args:
        probe: run at every evaluation; adds what it finds to the evaluation's line in the history.
    """

    def __init__(self, history: History, settings: GuardSettings, probe: Callable[[], Any] | None = None) -> None:
        self._history, self._settings, self._probe = history, settings, probe

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """A resumed run has the history of its checkpoint."""
        stopped = self._history.stopped
        if stopped is not None and stopped["stopped"] and self._settings.stop:
            log.warning("this run was stopped by a guard and is only finished: %s", stopped)
            control.should_training_stop = True
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Raises ValueError where nothing is rewarded any more."""
        if guards.silent(self._history.steps, self._settings):
            raise ValueError(
                f"not one completion had a reward in {self._settings.silent_steps} generations in a row: see the "
                "terms' shares of None in metrics and rewards/; if a judge is asked, see that it answers. The same "
                "command goes on from the last checkpoint"
            )
        return self._stop(control, guards.over_steps(self._history.steps, self._settings))

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Probes, then the guards that look at evaluations."""
        if self._probe is not None:
            self._history.evaluations[-1]["probes"] = self._probe()
        found = guards.over_evaluations(self._history.evaluations, self._settings)
        return self._stop(control, found or guards.over_kl(self._history.evaluations, self._settings))

    def _stop(self, control: Any, reason: dict[str, Any] | None) -> Any:
        if reason is None or self._history.stopped is not None:
            return control
        self._history.stopped = {**reason, "stopped": self._settings.stop}
        log.error("guard: %s", reason)
        if self._settings.stop:
            control.should_training_stop = True
        return control


def try_probes(
    probes: Mapping[str, Probe],
    examples: Sequence[Example],
    bundles: Sequence[Sequence[int]],
    trainer: Any,
) -> dict[str, Any]:
    """Every probe on every held-out bundle, under the run's own scorer; all processes call it.

    Returns:
        Probe -> its mean reward, the judge's own on the same tasks, and their ratio.
    """
    process, processes = trainer.accelerator.process_index, trainer.accelerator.num_processes
    tokenizer = trainer.processing_class
    honest = trainer.history.evaluations[-1]["tasks"]
    rows = [row for bundle in bundles for row in bundle]
    found: dict[str, dict[int, float | None]] = {}
    for name, probe in probes.items():
        texts = {row: probe(examples[row]) for row in rows}
        whole = [b for b in bundles if all(texts[row] is not None for row in b)]
        mine = whole[process::processes]
        asked = [
            Completion(row, text, tokenizer(text, add_special_tokens=False)["input_ids"], "stop")
            for bundle in mine for row in bundle if (text := texts[row]) is not None
        ]  # fmt: skip
        measured = iter(trainer.scorer.measure(asked))
        groups = [[(row, [next(measured)]) for row in bundle] for bundle in mine]
        marks = trainer.wait(trainer.scorer.score(groups))
        told = [
            (row, marked[0].reward)
            for bundle, answer in zip(mine, marks, strict=True)
            for row, marked in zip(bundle, answer, strict=True)
        ]
        found[name] = dict(gather_object(told))
    paid = {name: [told.get(row) for row in rows] for name, told in found.items()}
    return summary(paid, [honest[str(row)][0] if str(row) in honest else None for row in rows])
