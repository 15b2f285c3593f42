"""`/v1/judge` without HTTP: a request becomes tasks, the reward model judges them, results come back in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from pydantic import ValidationError

from mr3.inference.engine import Engine
from mr3.judging.judge import Judge
from mr3.judging.scale import mirrored
from mr3.records import Outcome, Task, Verdict
from mr3.rubrics import Rubric
from rewards.model import RewardModel, scored
from rewards.serving.admission import Admission
from rewards.serving.config import Limits
from rewards.serving.errors import ApiError
from rewards.serving.metrics import ServerMetrics
from rewards.serving.schema import Compared, JudgeRequest, JudgeResponse, JudgeResult, JudgeStrategy, JudgeTask

T = TypeVar("T")


class ServedJudge(Judge):
    """A judge that renders and tokenises in another thread, as texts of megabytes would stop the event loop."""

    def __init__(self, judge: Judge, engine: Engine, beside: Executor) -> None:
        super().__init__(judge.card, judge.tokenizer, engine, judge.judge_id)
        self._beside = beside

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._beside, work)
        except ValueError as error:  # texts that lack the task's language or kind of rubric
            raise ApiError(400, str(error)) from error


class JudgeService:
    """A judge with a rubric library and limits; raises `ApiError` for what a client did wrong."""

    def __init__(
        self,
        judge: Judge,
        library: Mapping[str, Rubric],
        limits: Limits,
        admission: Admission,
        metrics: ServerMetrics,
    ) -> None:
        self._judge, self._library, self._limits = judge, library, limits
        self._admission, self._metrics = admission, metrics

    @property
    def rubrics(self) -> Mapping[str, Rubric]:
        """The rubrics that a request can name."""
        return self._library

    async def answer(self, request: JudgeRequest) -> JudgeResponse:
        """Judge all tasks of a request at once.

        Raises:
            ApiError: 400 for what this judge or server can't do, 429 when the replica is full.
        """
        self._check(request)
        tasks = [self._task(i, task, request.strategy) for i, task in enumerate(request.tasks)]
        model = RewardModel(
            self._judge,
            combine=request.strategy.combine,
            orders=request.strategy.orders,
            samples=request.strategy.samples,
            tie_margin=request.strategy.tie_margin,
        )
        with self._admission.work(len(tasks)):
            asked = [asyncio.ensure_future(self._judged(model, task)) for task in tasks]
            try:
                results = await asyncio.gather(*asked)
            finally:  # of a refused request nothing goes on
                for each in asked:
                    each.cancel()
        named = [r.model_copy(update={"id": t.id}) for r, t in zip(results, request.tasks, strict=True)]
        if not request.include_trace:
            named = [_without_traces(result) for result in named]
        return JudgeResponse(judge=self._judge.judge_id, results=named)

    def _check(self, request: JudgeRequest) -> None:
        limit = self._limits.tasks_per_request
        if len(request.tasks) > limit:
            raise ApiError(400, f"{len(request.tasks)} tasks in one request: send at most {limit}", code="batch_limit")
        samples = request.strategy.samples
        if samples > self._limits.samples:
            raise ApiError(400, f"strategy.samples is {samples}: this server allows {self._limits.samples}")
        if samples > 1 and self._judge.card.sampling.temperature == 0:
            raise ApiError(400, f"strategy.samples is {samples}, but this judge decodes greedily: leave it at 1")

    def _task(self, index: int, given: JudgeTask, strategy: JudgeStrategy) -> Task:
        where = f"tasks.{index}"
        rubric = given.rubric if isinstance(given.rubric, Rubric) else self._library.get(given.rubric)
        if rubric is None:
            known = ", ".join(self._library) or "none"
            raise ApiError(400, f"{where}.rubric: no rubric {given.rubric!r} here (known: {known})", code="no_rubric")
        modes = self._judge.card.modes
        if given.mode not in modes:
            raise ApiError(400, f"{where}.mode: this judge was trained for {', '.join(modes)}, not {given.mode}")
        try:
            task = task_of(given, rubric, where, strategy)
        except ValidationError as error:
            raise ApiError(400, f"{where}: {error.errors()[0]['msg']}") from error
        except ValueError as error:
            raise ApiError(400, f"{where}: {error}") from error
        return task

    async def _judged(self, model: RewardModel, task: Task) -> JudgeResult:
        result = await judge_task(model, task)
        self._metrics.verdicts(task.mode, result.verdicts)
        return result


def task_of(given: JudgeTask, rubric: Rubric, name: str, strategy: JudgeStrategy) -> Task:
    """The judge's task of what came over the wire; `name` is its id where it has none.

    Raises:
        ValueError: for what no judge can do: the wrong number of responses, labels that can't be exchanged.
    """
    task = Task(
        id=given.id or name,
        mode=given.mode,
        input=given.input,
        responses=given.responses,
        rubric=rubric,
        language=given.language,
        reference=given.reference,
        instruction=given.instruction,
    )
    if task.mode == "pairwise" and strategy.orders == "both":
        mirrored(task.labels)
    return task


async def judge_tasks(model: RewardModel, tasks: Sequence[Task]) -> list[JudgeResult]:
    """The results of some tasks, which are asked about together."""
    found = []
    for task, verdicts in zip(tasks, await model.judged(tasks), strict=True):
        if task.mode != "pairwise":
            found.append(_result(scored(verdicts, task.labels, task.mode), verdicts))
            continue
        pair = model.compared(task, verdicts)
        compared = Compared(result=pair.result, p_a=pair.p_a, margin=pair.margin, flip=pair.flip)
        found.append(_result(pair.p_a, verdicts, compared))
    return found


async def judge_task(model: RewardModel, task: Task) -> JudgeResult:
    """The result of one task."""
    (result,) = await judge_tasks(model, [task])
    return result


def _result(score: float | None, verdicts: Sequence[Verdict], comparison: Compared | None = None) -> JudgeResult:
    failed = next((v for v in verdicts if v.outcome is not Outcome.OK), None)
    assert (score is None) == (failed is not None), "a failed judgement is never a number"
    return JudgeResult(
        outcome=failed.outcome if failed else Outcome.OK,
        score=score,
        reason=failed.reason if failed else None,
        comparison=comparison,
        verdicts=list(verdicts),
    )


def _without_traces(result: JudgeResult) -> JudgeResult:
    verdicts = [v.model_copy(update={"trace": None}) for v in result.verdicts]
    return result.model_copy(update={"verdicts": verdicts})
