"""Where a policy's reward comes from: a judge, the checkers (gold), or the length. One of them is a run's only reward.

Each measures completions and returns `Measured`; a judge's failure is None, never a number.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from grpo_experiments.policy.config import PolicyGrpoConfig
from grpo_experiments.policy.truth import Checks, standing
from mr3.ground_truth import Checker, compare, load_checker
from mr3.records import stable_hash
from rewards.grouping import group_pairs, group_scores, groups_of
from rewards.serving.schema import JudgeStrategy
from rewards.serving.trl_reward import Measured, TrlReward, completion_texts


class Source(Protocol):
    """A reward."""

    @property
    def made(self) -> tuple[int, int]:
        """Verdicts that were made (not found in a store) since the start, and the tokens that they took."""
        ...

    async def measure(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Measured: ...


class JudgeSource:
    """A judge through reward actors or HTTP."""

    def __init__(self, client: Any, reward: TrlReward) -> None:
        self._client, self._reward = client, reward

    @property
    def made(self) -> tuple[int, int]:
        """What the actors say; a server does not tell what it found in a store: it has none."""
        return getattr(self._client, "new", 0), getattr(self._client, "new_tokens", 0)

    async def measure(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Measured:
        """As `TrlReward`."""
        return await self._reward.measure(prompts, completions, **columns)


class GoldSource:
    """The checkers' reward: of a group the share of won comparisons, else the standing by the rubric's order."""

    made = (0, 0)

    def __init__(self, checker: Checker, config: PolicyGrpoConfig) -> None:
        assert config.reward.rubric is not None, "the config asks for it"
        self._checker = checker
        self._criteria = [c.name for c in config.reward.rubric.criteria]
        self._reward, self._seed = config.reward, config.seed
        self._group_size = config.trl.get("num_generations", 8) if config.in_groups else None
        self._by_opponent = config.reward.mode == "pairwise" and not config.in_groups

    async def measure(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Measured:
        """No judge is asked."""
        begun = time.monotonic()
        found = Measured([None] * len(completions))
        texts = completion_texts(completions)
        found.unreadable = len(completions) - len(texts)
        metas = [json.loads(meta) for meta in columns["meta"]]
        checks = {i: self._checker(metas[i], text) for i, text in texts.items()}
        if self._group_size is not None:
            for places in groups_of(prompts, self._group_size):
                self._group({i: texts[i] for i in places if i in texts}, checks, columns["prompt_id"], found)
        else:
            for i, own in checks.items():
                other = self._checker(metas[i], columns["opponent"][i]) if self._by_opponent else None
                found.rewards[i] = standing(self._criteria, own) if other is None else self._points(own, other)
        found.seconds = time.monotonic() - begun
        return found

    def _points(self, a: Checks, b: Checks) -> float:
        return (compare(self._criteria, a, b) + 1) / 2

    def _group(self, texts: dict[int, str], checks: dict[int, Checks], names: Sequence[str], found: Measured) -> None:
        if not texts:
            return
        pairs = group_pairs(texts, self._reward.plan, self._seed, names[min(texts)])
        compared: list[tuple[tuple[int, int], float | None]] = [
            ((a, b), self._points(checks[a], checks[b])) for a, b in pairs
        ]
        found.compared += compared
        for place, score in group_scores(texts, compared).items():
            found.rewards[place] = score


class LengthSource:
    """The share of `max_completion_length` that a completion fills: a reward that nobody wants."""

    made = (0, 0)

    def __init__(self, most: int) -> None:
        self._most = most

    async def measure(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Measured:
        """In tokens."""
        return Measured([len(ids) / self._most for ids in columns["completion_ids"]])


def judge_source(config: PolicyGrpoConfig, client: Any, batch_size: int) -> JudgeSource:
    """The judge's reward over whatever is asked."""
    reward = config.reward
    in_groups = config.in_groups
    return JudgeSource(
        client,
        TrlReward(
            client,
            reward.shown_rubric,
            mode=reward.mode,
            compare=reward.compare,
            plan=reward.plan,
            group_size=config.trl.get("num_generations", 8) if in_groups else None,
            strategy=JudgeStrategy(orders=reward.orders, samples=reward.samples, combine="mean"),
            batch_size=batch_size,
            seed=config.seed,
            silent_calls=None,  # the trainer counts steps, of all processes together
        ),
    )


@contextmanager
def open_source(config: PolicyGrpoConfig, most_tokens: int, wait: Callable[[], None] | None = None) -> Iterator[Source]:
    """The reward of a run, with its actors, which end with the block (a server's connections end with the process).

    Args:
        most_tokens: of a completion.
        wait: lets all processes of the run meet, where there are several.

    Raises:
        ValueError: when the judge can't be run as configured.
    """
    reward = config.reward
    if reward.kind == "gold":
        assert config.checker is not None, "the config asks for it"
        yield GoldSource(load_checker(config.checker), config)
    elif reward.kind == "length":
        yield LengthSource(most_tokens)
    elif reward.server is not None:
        from rewards.serving.client import JudgeClient

        key = None if reward.server.api_key_env is None else os.environ.get(reward.server.api_key_env)
        if reward.server.api_key_env is not None and not key:
            raise ValueError(f"the environment variable {reward.server.api_key_env} is not set: it holds the key")
        client = JudgeClient(reward.server.url, key, deadline_s=reward.server.deadline_s)
        yield judge_source(config, client, reward.server.batch_size)
    else:
        with _actors(config, wait) as asked:
            yield judge_source(config, asked, reward.actors.batch_size)


@contextmanager
def _actors(config: PolicyGrpoConfig, wait: Callable[[], None] | None) -> Iterator[Any]:
    """The first process starts the actors; the others find them by name."""
    from mr3.inference.session import ray_session
    from rewards.actor import find_actors, start_actors

    judge, actors = config.reward.judge, config.reward.actors
    assert judge is not None, "the config asks for it"
    several, first = config.processes() > 1, int(os.environ.get("RANK", "0")) == 0
    if several and not os.environ.get("RAY_ADDRESS"):
        raise ValueError(
            "reward actors of a run in several processes need a Ray session that all of them join: start one with "
            "`ray start --head` (with the GPUs of the actors only), and set RAY_ADDRESS"
        )
    name = stable_hash("actors", str(config.output_dir.resolve()), length=16)
    with ray_session():
        if first:
            opened = start_actors(
                judge,
                config.store,
                name,
                replicas=actors.replicas,
                num_cpus=actors.num_cpus,
                num_gpus=actors.num_gpus,
                deadline_s=actors.deadline_s,
            )
        if several and wait is not None:
            wait()
        if not first:
            opened = find_actors(judge, name, replicas=actors.replicas, deadline_s=actors.deadline_s)
        try:
            yield opened
        finally:
            opened.close()
