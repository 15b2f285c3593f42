"""A judge as a reward function of TRL's GRPOTrainer: a failed judgement is None, never a number.

The judge is a server (`JudgeClient`) or reward actors (`rewards.actor`). A completion is judged by itself, against a
reference answer, or against the other completions of its prompt (`rewards.grouping` has the formula).

TRL leaves a None out of its group only where it is the only reward (see `grpo_experiments.composite`): use this as the
one reward, or set `multi_objective_aggregation: normalize_then_sum`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from mr3.parsing.parsed import CLOSE, OPEN
from mr3.records import Message, PoolMode, stable_hash
from mr3.rubrics import Rubric
from mr3.rubrics.checks import check_mode
from rewards.grouping import Pair, group_pairs, group_scores, groups_of
from rewards.serving.client import JudgeRefused, JudgeUnavailable
from rewards.serving.schema import JudgeResult, JudgeStrategy, JudgeTask

log = logging.getLogger("mr3.serving")
_TOO_LARGE = 413
_THOUGHT = re.compile(rf"{OPEN}.*?(?:{CLOSE}|\Z)", re.DOTALL)
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
    if isinstance(completion, str):
        return _content(completion)
    last = _turns(completion, "completion")[-1]
    role = last.get("role", "assistant")
    if role != "assistant":
        raise _Unreadable(f"a completion ends with a turn of the role {role!r}: the policy has not answered yet")
    return _content(last.get("content"))


def _opens_a_thought(prompt: Any) -> bool:
    """Whether a text, as a chat template made it, leaves the policy in the middle of a thought."""
    return isinstance(prompt, str) and prompt.rstrip().endswith(OPEN)


def without_thinking(text: str, opened: bool = False) -> str:
    """What a user would see of a response: what follows the first `</think>`, without any later thought.

    Nothing where the thought was never closed: it begins with `<think>`, or the prompt has `opened` it.
    """
    _, closed, answer = text.partition(CLOSE)
    if closed:
        return _THOUGHT.sub("", answer).lstrip()
    return "" if opened or text.lstrip().startswith(OPEN) else text


def completion_texts(completions: Sequence[Any], thinking: bool = False, opened: Container[int] = ()) -> dict[int, str]:
    """Place -> what is judged of a completion; those without text are left out.

    Args:
        opened: places whose prompt ends with `<think>`.
    """
    found = {}
    for i, completion in enumerate(completions):
        try:
            text = _completion(completion)
        except _Unreadable as error:
            log.warning("completion %d without a reward: %s", i, error)
            continue
        found[i] = (text if thinking else without_thinking(text, i in opened)).strip()
    return found


class JudgeSilent(ValueError):
    """The judge has given nothing but failures for so many calls that training on would be training on nothing."""


class Judges(Protocol):
    """What is asked: `JudgeClient`, or `rewards.actor.ActorJudge`."""

    async def judge_batch(
        self, tasks: Sequence[JudgeTask], strategy: JudgeStrategy | None = None, *, batch_size: int = 16
    ) -> list[JudgeResult]: ...


@dataclass
class Measured:
    """The rewards of one call, and how they came about."""

    rewards: list[float | None]
    tasks: int = 0
    """Different questions that the judge was asked."""
    verdicts: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Questions without an answer by outcome; `unavailable` where the judge could not be reached."""
    unreadable: int = 0
    """Completions without text."""
    flips: int = 0
    """Comparisons on which the two orders disagreed."""
    compared: list[tuple[Pair, float | None]] = field(default_factory=list)
    """Of a group: places of two completions, and P(first better)."""
    seconds: float = 0.0

    @property
    def silent(self) -> bool:
        """Whether the judge was asked, and nothing came of it."""
        return self.tasks > 0 and self.failed.total() == self.tasks


class TrlReward:
    """`GRPOTrainer(reward_funcs=TrlReward(client, rubric="house"), ...)`; TRL awaits it.

    The reward is the result's score: expected score where the judge keeps logprobs, else the label's value (integer
    scores make groups without a gradient). A completion without text (a tool call, an image) has no reward.

    Args:
        client: `JudgeClient`, or `ActorJudge`.
        rubric: a rubric, or an id of the server's library; a `rubric` column of the data set goes before it.
        mode: `pointwise` or `binary`: a completion is judged by itself. `pairwise`: see `compare`.
        compare: `group`: with the other completions of the prompt, which must lie in one process; `reference`: with
            the text of `opponent_column`, to which an equal completion is a tie (0.5) without being judged.
        plan: which pairs of a group: `all_pairs`, n(n-1)/2 comparisons, or `circular`, n of them. Each in both orders
            (unless `strategy` says one).
        group_size: TRL's num_generations; unset: neighbours with the same prompt are a group.
        language: of prompts without a `language` column.
        reference_column: name of a column with reference answers that the judge is shown.
        opponent_column: name of a column with responses to be compared with.
        seed: with the column `prompt_id`, decides who is shown first; as of the label run whose verdicts are shared.
        thinking: judge a completion with its `<think>...</think>` text. Else only what follows it is judged, as that is
            what a user sees; a thought that was never closed leaves an empty response. The same holds for opponents.
        thought_opened: the chat template ends every prompt with `<think>`, so that a completion without `</think>` is
            a thought that was cut off. Of prompts that are texts it is seen without being said.
        silent_calls: after so many calls in a row in which every question failed, `JudgeSilent` ends the training;
            None: never.
    """

    def __init__(
        self,
        client: Judges,
        rubric: Rubric | str,
        *,
        mode: PoolMode = "binary",
        compare: Literal["group", "reference"] = "group",
        plan: Literal["all_pairs", "circular"] = "all_pairs",
        group_size: int | None = None,
        language: str = "en",
        reference_column: str | None = None,
        opponent_column: str = "opponent",
        strategy: JudgeStrategy | None = None,
        batch_size: int = 16,
        seed: int = 0,
        thinking: bool = False,
        thought_opened: bool = False,
        silent_calls: int | None = 5,
        name: str = "judge",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: give 1 or more")
        if isinstance(rubric, Rubric):
            check_mode(rubric, mode)
        self.__name__ = name  # TRL logs rewards under it
        self._client, self._rubric, self._mode, self._language = client, rubric, mode, language
        self._compare, self._plan, self._group_size = compare, plan, group_size
        self._reference, self._opponent = reference_column, opponent_column
        self._strategy = strategy or JudgeStrategy(combine="mean")
        self._batch_size, self._seed = batch_size, seed
        self._thinking, self._thought_opened = thinking, thought_opened
        self._silent_calls, self._silent = silent_calls, 0

    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One reward per completion; None where the judgement failed or the judge could not be reached.

        Raises:
            JudgeRefused: when the server says that the requests are wrong (but a body that is too large is a None).
            JudgeSilent: when nothing but failures came for `silent_calls` calls.
            ValueError: for a column that holds no rubric, language or reference, or a group in several processes.
        """
        found = await self.measure(prompts, completions, **columns)
        if found.tasks:  # a call that had nothing to ask says nothing
            self._silent = self._silent + 1 if found.silent else 0
        if self._silent_calls is not None and self._silent >= self._silent_calls:
            raise JudgeSilent(silence(self._silent, found))
        if log_metric := columns.get("log_metric"):
            log_metric(f"{self.__name__}/none", found.rewards.count(None) / max(1, len(found.rewards)))
            log_metric(f"{self.__name__}/verdicts", float(found.verdicts))
        return found.rewards

    async def measure(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Measured:
        """The rewards with what is known of them; raises as `__call__`, but never for silence."""
        begun = time.monotonic()
        found = Measured([None] * len(completions))
        opened = {i for i, prompt in enumerate(prompts) if self._thought_opened or _opens_a_thought(prompt)}
        texts = completion_texts(completions, self._thinking, opened)
        read: dict[int, str | list[Message]] = {}
        for i in list(texts):
            try:
                read[i] = _prompt(prompts[i])
            except _Unreadable as error:
                log.warning("completion %d without a reward: %s", i, error)
                del texts[i]
        found.unreadable = len(completions) - len(texts)
        if self._mode != "pairwise":
            await self._by_itself(read, texts, columns, found)
        elif self._compare == "group":
            await self._in_group(prompts, read, texts, columns, found)
        else:
            await self._with_opponent(read, texts, columns, found)
        found.seconds = time.monotonic() - begun
        return found

    async def _by_itself(
        self, read: dict[int, str | list[Message]], texts: dict[int, str], columns: dict[str, Any], found: Measured
    ) -> None:
        scores = await self._scores([self._task(i, read[i], [texts[i]], columns) for i in read], found)
        for i, score in zip(read, scores, strict=True):
            found.rewards[i] = score

    async def _in_group(
        self,
        prompts: Sequence[Any],
        read: dict[int, str | list[Message]],
        texts: dict[int, str],
        columns: dict[str, Any],
        found: Measured,
    ) -> None:
        groups = [{i: texts[i] for i in places if i in texts} for places in groups_of(prompts, self._group_size)]
        pairs = [self._pairs(group, read, columns) for group in groups]
        tasks = [self._task(a, read[a], [texts[a], texts[b]], columns) for own in pairs for a, b in own]
        scores = iter(await self._scores(tasks, found))
        for group, own in zip(groups, pairs, strict=True):
            compared = [(pair, next(scores)) for pair in own]
            found.compared += compared
            for place, score in group_scores(group, compared).items():
                found.rewards[place] = score

    async def _with_opponent(
        self, read: dict[int, str | list[Message]], texts: dict[int, str], columns: dict[str, Any], found: Measured
    ) -> None:
        if self._opponent not in columns:
            raise ValueError(f"there is no column {self._opponent!r} with responses to compare with: name another one")
        said = {i: _content(columns[self._opponent][i]) for i in read}
        opponents = {i: (text if self._thinking else without_thinking(text)).strip() for i, text in said.items()}
        equal = -1  # the opponent's place in its pair
        pairs = {i: self._pairs({i: texts[i], equal: opponents[i]}, {**read, equal: read[i]}, columns, i) for i in read}
        asked = {i: own[0] for i, own in pairs.items() if own}
        both = {i: {i: texts[i], equal: opponents[i]} for i in asked}
        tasks = [self._task(i, read[i], [both[i][a], both[i][b]], columns) for i, (a, b) in asked.items()]
        for i in read.keys() - asked.keys():
            found.rewards[i] = 0.5
        for (i, (a, _)), p in zip(asked.items(), await self._scores(tasks, found), strict=True):
            found.rewards[i] = p if p is None or a == i else 1 - p

    def _pairs(
        self,
        group: Mapping[int, str],
        read: Mapping[int, str | list[Message]],
        columns: Mapping[str, Any],
        place: int | None = None,
    ) -> list[Pair]:
        if not group:
            return []
        first = min(group) if place is None else place
        known = columns.get("prompt_id")
        name = str(known[first]) if known is not None else stable_hash(_plain(read[first]))
        return group_pairs(group, self._plan, self._seed, name)

    async def _scores(self, tasks: Sequence[JudgeTask], found: Measured) -> list[float | None]:
        """The results' scores; of equal tasks one is asked."""
        keys = [task.model_dump_json() for task in tasks]
        once = dict(zip(keys, tasks, strict=True))
        parts = [list(once)[i : i + self._batch_size] for i in range(0, len(once), self._batch_size)]
        answers = await asyncio.gather(*(self._part([once[key] for key in part], found) for part in parts))
        scores = dict(zip(once, (score for answer in answers for score in answer), strict=True))
        found.tasks += len(once)
        return [scores[key] for key in keys]

    async def _part(self, tasks: Sequence[JudgeTask], found: Measured) -> list[float | None]:
        """The scores of one request; one that is too large is sent again in halves."""
        try:
            results = await self._client.judge_batch(tasks, self._strategy, batch_size=len(tasks))
        except JudgeUnavailable as error:
            log.warning("%d judgements failed: %s", len(tasks), error)
            found.failed["unavailable"] += len(tasks)
            return [None] * len(tasks)
        except JudgeRefused as error:
            if error.status != _TOO_LARGE:
                raise
            half = len(tasks) // 2
            if half:
                return await self._part(tasks[:half], found) + await self._part(tasks[half:], found)
            log.warning("a judgement failed: %s", error)
            found.failed["too_long"] += 1
            return [None]
        for result in results:
            found.verdicts += len(result.verdicts)
            found.flips += result.comparison is not None and result.comparison.flip
            if result.score is None:
                found.failed[str(result.outcome)] += 1
        return [result.score for result in results]

    def _task(
        self, index: int, prompt: str | list[Message], responses: list[str], columns: Mapping[str, Any]
    ) -> JudgeTask:
        rubric = columns["rubric"][index] if "rubric" in columns else self._rubric
        return JudgeTask(
            mode=self._mode,
            input=prompt,
            responses=responses,
            rubric=rubric,
            language=columns["language"][index] if "language" in columns else self._language,
            reference=columns[self._reference][index] if self._reference else None,
        )


def _plain(prompt: str | list[Message]) -> Any:
    return prompt if isinstance(prompt, str) else [turn.model_dump() for turn in prompt]


def silence(calls: int, found: Measured) -> str:
    """What is said of a judge that gives nothing but failures."""
    how = ", ".join(f"{count} {what}" for what, count in found.failed.most_common())
    return (
        f"judge_silent: {calls} steps in a row without a single judgement (the last one: {how}): see that the judge is "
        "up and can do these tasks; the same command goes on from the last checkpoint"
    )
