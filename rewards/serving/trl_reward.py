"""A served judge as a reward function of TRL's GRPOTrainer: a failed judgement is None, never a number.

TRL leaves a None out of its group only where it is the only reward (see `grpo_experiments.composite`): use this as the
one reward, or set `multi_objective_aggregation: normalize_then_sum`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from mr3.parsing.parsed import CLOSE, OPEN
from mr3.records import Message, PoolMode
from mr3.rubrics import Rubric
from rewards.serving.client import JudgeClient, JudgeRefused, JudgeUnavailable
from rewards.serving.schema import JudgeStrategy, JudgeTask

log = logging.getLogger("mr3.serving")
_TOO_LARGE = 413
_ROLES = get_args(Message.model_fields["role"].annotation)


class _Unreadable(ValueError):
    """A prompt or a completion that has no text to judge."""


def _content(content: Any) -> str:
    """A turn's text: a string, or blocks of text."""
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        content = "".join(_block(block) for block in content)
    if not isinstance(content, str):
        raise _Unreadable(f"a turn's content is a {type(content).__name__}, not text")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise _Unreadable("a text holds half a character (a lone surrogate)") from error
    return content


def _block(block: Any) -> str:
    if isinstance(block, str):
        return block
    if not isinstance(block, Mapping) or block.get("type", "text") != "text" or not isinstance(block.get("text"), str):
        raise _Unreadable("a turn holds a block that is no text")
    text: str = block["text"]
    return text


def _turns(value: Any, what: str) -> Sequence[Mapping[str, Any]]:
    turns = value if isinstance(value, Sequence) and not isinstance(value, bytes) else ()
    if not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise _Unreadable(f"a {what} is neither text nor a list of turns")
    return turns


def _prompt(prompt: Any) -> str | list[Message]:
    if isinstance(prompt, str):
        return _content(prompt)
    turns = _turns(prompt, "prompt")
    odd = [turn.get("role") for turn in turns if turn.get("role") not in _ROLES]
    if odd:
        raise _Unreadable(f"a prompt has a turn of the role {odd[0]!r}; judges read {', '.join(_ROLES)}")
    return [Message(role=turn["role"], content=_content(turn.get("content"))) for turn in turns]


def _completion(completion: Any) -> str:
    return _content(completion if isinstance(completion, str) else _turns(completion, "completion")[-1].get("content"))


def without_thinking(text: str) -> str:
    """What a user would see of a response: what follows the first `</think>`; nothing where it was never closed."""
    _, closed, answer = text.partition(CLOSE)
    if closed:
        return answer.lstrip()
    return "" if text.lstrip().startswith(OPEN) else text


class TrlReward:
    """`GRPOTrainer(reward_funcs=TrlReward(client, rubric="house"), ...)`; TRL awaits it.

    The reward is the result's score: expected score where the judge keeps logprobs, else the label's value (integer
    scores make groups without a gradient). A completion without text (a tool call, an image) has no reward.

    Args:
        rubric: a rubric, or an id of the server's library; a `rubric` column of the data set goes before it.
        mode: `pointwise` or `binary`: a completion is judged by itself.
        language: of prompts without a `language` column.
        reference_column: name of a column with reference answers.
        thinking: judge a completion with its `<think>...</think>` text. Else only what follows it is judged, as that is
            what a user sees; a thought that was never closed leaves an empty response.
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
        thinking: bool = False,
        name: str = "judge",
    ) -> None:
        if mode == "pairwise":
            raise ValueError("a completion is judged by itself: set mode to pointwise or binary")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: give 1 or more")
        self.__name__ = name  # TRL logs rewards under it
        self._client, self._rubric, self._mode, self._language = client, rubric, mode, language
        self._reference, self._strategy, self._batch_size = reference_column, strategy, batch_size
        self._thinking = thinking

    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One reward per completion; None where the judgement failed or the server could not be reached.

        Raises:
            JudgeRefused: when the server says that the requests are wrong (but a body that is too large is a None).
            ValueError: for a column that holds no rubric, language or reference.
        """
        rewards: list[float | None] = [None] * len(completions)
        tasks: dict[int, JudgeTask] = {}
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            try:
                tasks[i] = self._task(i, _prompt(prompt), _completion(completion), columns)
            except _Unreadable as error:
                log.warning("completion %d without a reward: %s", i, error)
        places, size = list(tasks), self._batch_size
        parts = [places[i : i + size] for i in range(0, len(places), size)]
        answers = await asyncio.gather(*(self._part([tasks[i] for i in part]) for part in parts))
        for i, reward in zip(places, (reward for answer in answers for reward in answer), strict=True):
            rewards[i] = reward
        return rewards

    async def _part(self, tasks: Sequence[JudgeTask]) -> list[float | None]:
        """The rewards of one request; one that is too large is sent again in halves."""
        try:
            results = await self._client.judge_batch(tasks, self._strategy, batch_size=len(tasks))
        except JudgeUnavailable as error:
            log.warning("%d completions without a reward: %s", len(tasks), error)
            return [None] * len(tasks)
        except JudgeRefused as error:
            if error.status != _TOO_LARGE:
                raise
            half = len(tasks) // 2
            if half:
                return await self._part(tasks[:half]) + await self._part(tasks[half:])
            log.warning("a completion without a reward: %s", error)
            return [None]
        return [result.score for result in results]

    def _task(self, index: int, prompt: str | list[Message], text: str, columns: dict[str, Any]) -> JudgeTask:
        rubric = columns["rubric"][index] if "rubric" in columns else self._rubric
        return JudgeTask(
            mode=self._mode,
            input=prompt,
            responses=[text if self._thinking else without_thinking(text)],
            rubric=rubric,
            language=columns["language"][index] if "language" in columns else self._language,
            reference=columns[self._reference][index] if self._reference else None,
        )
