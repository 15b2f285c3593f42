"""A served judge as a reward function of TRL's GRPOTrainer: a failed judgement is None, never a number.

TRL leaves a None out of its group only where it is the only reward (see `grpo_experiments.rewards`): use this as the
one reward, or set `multi_objective_aggregation: normalize_then_sum`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from mr3.records import Message, PoolMode
from mr3.rubrics import Rubric
from rewards.serving.client import JudgeClient, JudgeRefused, JudgeUnavailable
from rewards.serving.schema import JudgeStrategy, JudgeTask

log = logging.getLogger("mr3.serving")
_TOO_LARGE = 413


def _prompt(prompt: str | Sequence[dict[str, Any]]) -> str | list[Message]:
    if isinstance(prompt, str):
        return prompt
    return [Message(role=turn["role"], content=turn["content"]) for turn in prompt]


def _text(completion: str | Sequence[dict[str, Any]]) -> str:
    if isinstance(completion, str):
        return completion
    text: str = completion[-1]["content"]
    return text


class TrlReward:
    """`GRPOTrainer(reward_funcs=TrlReward(client, rubric="house"), ...)`; TRL awaits it.

    The reward is the result's score: expected score where the judge keeps logprobs, else the label's value (integer
    scores make groups without a gradient).

    Args:
        rubric: a rubric, or an id of the server's library; a `rubric` column of the data set goes before it.
        mode: `pointwise` or `binary`: a completion is judged by itself.
        language: of prompts without a `language` column.
        reference_column: name of a column with reference answers.
    """

    def __init__(
        self,
        client: JudgeClient,
        rubric: Rubric | str,
        *,
        mode: PoolMode = "binary",
        language: str = "en",
        reference_column: str | None = None,
        strategy: JudgeStrategy | None = None,
        batch_size: int = 16,
        name: str = "judge",
    ) -> None:
        if mode == "pairwise":
            raise ValueError("a completion is judged by itself: set mode to pointwise or binary")
        self.__name__ = name  # TRL logs rewards under it
        self._client, self._rubric, self._mode, self._language = client, rubric, mode, language
        self._reference, self._strategy, self._batch_size = reference_column, strategy, batch_size

    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One reward per completion; None where the judgement failed or the server could not be reached.

        Raises:
            JudgeRefused: when the server says that the requests are wrong (but a body that is too large is a None).
        """
        tasks = [self._task(i, p, c, columns) for i, (p, c) in enumerate(zip(prompts, completions, strict=True))]
        size = self._batch_size
        parts = [self._part(tasks[i : i + size]) for i in range(0, len(tasks), size)]
        return [reward for part in await asyncio.gather(*parts) for reward in part]

    async def _part(self, tasks: Sequence[JudgeTask]) -> list[float | None]:
        """The rewards of one request."""
        try:
            results = await self._client.judge_batch(tasks, self._strategy, batch_size=len(tasks))
        except JudgeUnavailable as error:
            log.warning("%d completions without a reward: %s", len(tasks), error)
            return [None] * len(tasks)
        except JudgeRefused as error:
            if error.status != _TOO_LARGE:
                raise
            log.warning("%d completions without a reward: %s", len(tasks), error)
            return [None] * len(tasks)
        return [result.score for result in results]

    def _task(self, index: int, prompt: Any, completion: Any, columns: dict[str, Any]) -> JudgeTask:
        rubric = columns["rubric"][index] if "rubric" in columns else self._rubric
        return JudgeTask(
            mode=self._mode,
            input=_prompt(prompt),
            responses=[_text(completion)],
            rubric=rubric,
            language=columns["language"][index] if "language" in columns else self._language,
            reference=columns[self._reference][index] if self._reference else None,
        )
