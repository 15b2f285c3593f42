"""From a step's completions and rewards to its record, with the ground truth beside the reward."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from grpo_experiments.policy.log import Record
from grpo_experiments.policy.truth import agreement, checked, standing
from mr3.ground_truth import Checker
from rewards.grouping import groups_of
from rewards.serving.trl_reward import Measured, completion_texts, silence


class Judged(Measured):
    """The rewards of all parts of a step in one process."""

    @classmethod
    def joined(cls, parts: Sequence[tuple[int, Measured]], count: int) -> Judged:
        """Parts with the place at which each begins, as one; parts are judged side by side, so the longest counts."""
        whole = cls([None] * count)
        for begin, part in parts:
            whole.rewards[begin : begin + len(part.rewards)] = part.rewards
            whole.compared += [((a + begin, b + begin), p) for (a, b), p in part.compared]
            whole.failed.update(part.failed)
            for name in ("tasks", "verdicts", "unreadable", "flips"):
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
            whole.seconds = max(whole.seconds, part.seconds)
        return whole


class Recorder:
    """Makes the record of a step.

    Args:
        name: of the reward.
        checker: the ground truth, or None.
        criteria: of the rubric, by which the truth is read.
        samples: how many completions are kept.
    """

    def __init__(self, name: str, checker: Checker | None, criteria: Sequence[str], samples: int) -> None:
        self.name = name
        self._checker, self._criteria, self._samples = checker, criteria, samples

    def record(
        self,
        rows: Sequence[dict[str, Any]],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        judged: Measured,
        group_size: int,
    ) -> Record:
        """One process's part of a step's record."""
        known = [reward for reward in judged.rewards if reward is not None]
        record = Record(
            completions=len(completions),
            rewarded=len(known),
            reward=sum(known),
            reward_squares=sum(r * r for r in known),
            unreadable=judged.unreadable,
            sampled_tokens=sum(len(ids) for ids in completion_ids),
            tasks=judged.tasks,
            verdicts=judged.verdicts,
            flips=judged.flips,
            failed=judged.failed,
        )
        begun, truths = time.monotonic(), dict[int, float]()
        texts = completion_texts(completions)
        if self._checker is not None:
            checks = checked(self._checker, [row["meta"] for row in rows], texts)
            truths = {i: standing(self._criteria, own) for i, own in checks.items()}
            record.checked, record.truth = len(checks), sum(truths.values())
            for own in checks.values():
                record.met.update(name for name, is_met in own.items() if is_met)
            whole = len(rows) % group_size == 0
            groups = groups_of([row["prompt"] for row in rows], group_size if whole else None)
            record.agreed, record.decided = agreement(self._criteria, checks, judged.rewards, groups, judged.compared)
        record.seconds["truth"] = time.monotonic() - begun
        record.samples = [
            {"prompt_id": rows[i]["prompt_id"], "text": text, "reward": judged.rewards[i], "truth": truths.get(i)}
            for i, text in list(texts.items())[: self._samples]
        ]
        return record


def silence_of(steps: int, record: Record) -> str:
    """What is said when the judge has given nothing for so many steps."""
    return silence(steps, Measured([], tasks=record.tasks, failed=record.failed))
