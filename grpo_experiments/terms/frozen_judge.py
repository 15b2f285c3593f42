"""A frozen judge reads the trace under a rubric of its own: its expected score, moved to 0..1.

The judge is asked in one of two ways, for all groups of a batch at once: as reward actors (`judge:` and `store:`; named
Ray actors with an engine each, and the exactly-once store, so the same trace is judged once), or over HTTP (`url:`, a
server of `mr3 serve`). A failed judgement is None. A judge of which nothing comes back `patience` times in a row stops
the run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from grpo_experiments.contract import Example, Group, Need, Sample, ServedTerm, Values
from mr3.judging.config import JudgeConfig
from mr3.judging.scale import label_values
from mr3.records import DEFAULT_LABELS
from mr3.rubrics import Rubric
from mr3.rubrics.checks import check_mode
from rewards.serving.client import JudgeClient, JudgeRefused, JudgeUnavailable
from rewards.serving.schema import JudgeTask

log = logging.getLogger("mr3.grpo")


def trace_task(example: Example, sample: Sample, rubric: Rubric, mode: Literal["pointwise", "binary"]) -> JudgeTask:
    """What the frozen judge is asked: the trace as a response to the question that the trained judge was given."""
    task = example.task
    asked = task.input if isinstance(task.input, str) else "\n".join(f"{m.role}: {m.content}" for m in task.input)
    responses = [f"Response {name}: {text}" for name, text in zip("ABCDE", task.responses, strict=False)]
    criteria = [f"{i}. {c.description}" for i, c in enumerate(task.rubric.criteria, 1)]
    levels = [f"{label}: {text}" for label, text in task.rubric.levels.items()]
    return JudgeTask(
        mode=mode,
        input="\n".join([asked, *responses, *criteria, *levels]),
        responses=[f"{sample.trace}\n{sample.parsed.score}: {sample.parsed.explanation or ''}"],
        rubric=rubric,
        language=task.language,
    )


class FrozenJudge(ServedTerm):
    """Scores traces by a rubric, by another judge."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    rubric: Rubric = Field(description="for the trace, not the task's own")
    judge: JudgeConfig | None = None
    store: Path | None = Field(None, description="folder of the exactly-once store, with judge")
    replicas: int = Field(1, gt=0, description="reward actors that every training process starts")
    num_gpus: float = Field(0.0, ge=0, description="of one reward actor")
    url: str | None = Field(None, description="of a server of `mr3 serve`, in place of judge")
    key: str | None = Field(None, description="the server's key: ${NAME} of an environment variable")
    mode: Literal["pointwise", "binary"] = "pointwise"
    patience: int = Field(3, gt=0, description="batches in a row without one verdict, after which the run stops")

    _client: Any = PrivateAttr(None)
    _open: ExitStack = PrivateAttr(default_factory=ExitStack)
    _silent: int = PrivateAttr(0)

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> Self:
        if (self.judge is None) == (self.url is None):
            raise ValueError("say either judge (with store) or url")
        if self.judge is not None and self.store is None:
            raise ValueError("store is missing: the folder in which the judge's verdicts are kept")
        check_mode(self.rubric, self.mode)
        return self

    def client(self) -> Any:
        """Whoever is asked; opened once, on the loop that asks.

        Raises:
            ValueError: when the judge can't be run.
        """
        if self._client is None and self.url is not None:
            self._client = JudgeClient(self.url, self.key)
        elif self._client is None:
            from mr3.inference.session import ray_session
            from rewards.actor import start_actors

            assert self.judge is not None and self.store is not None, "checked when the config was read"
            self._open.enter_context(ray_session())
            name = f"frozen-{os.environ.get('RANK', '0')}"
            self._client = start_actors(self.judge, self.store, name, replicas=self.replicas, num_gpus=self.num_gpus)
            self._open.callback(self._client.close)
        return self._client

    async def score_all(self, groups: Sequence[Group]) -> list[Values]:
        """One request for all legal verdicts with a trace; the others earn 0 unasked."""
        values: list[Values] = [[0.0] * len(g.samples) for g in groups]
        places = [(i, k) for i, g in enumerate(groups) for k, s in enumerate(g.samples) if s.ok and s.trace]
        tasks = [trace_task(groups[i].example, groups[i].samples[k], self.rubric, self.mode) for i, k in places]
        told = await self._ask(tasks)
        labels = tuple(self.rubric.levels) or DEFAULT_LABELS[self.mode]
        scale = label_values(labels, self.mode).values()
        for (i, k), score in zip(places, told, strict=True):
            values[i][k] = None if score is None else (score - min(scale)) / (max(scale) - min(scale))
        if places:  # a batch that had nothing to ask says nothing of the judge
            self._silent = self._silent + 1 if all(score is None for score in told) else 0
        if self._silent >= self.patience:
            raise ValueError(
                f"the frozen judge gave no verdict in {self._silent} batches in a row: see that its engine runs and "
                "that it can read such prompts; the same command goes on from the last checkpoint"
            )
        return values

    async def _ask(self, tasks: Sequence[JudgeTask]) -> list[float | None]:
        if not tasks:
            return []
        try:
            return [result.score for result in await self.client().judge_batch(tasks)]
        except JudgeUnavailable as error:
            log.warning("%d traces without a score: %s", len(tasks), error)
            return [None] * len(tasks)
        except JudgeRefused as error:
            raise ValueError(f"the frozen judge refuses its tasks: {error}") from error

    def close(self) -> None:
        """End the reward actors that this process has started."""
        self._open.close()
        self._client = None


TERM = FrozenJudge
