"""A frozen judge reads the trace under a rubric of its own: its expected score, moved to 0..1.

The judge is any judge of the project (`judge:`; with `host:` its engine lives in a named Ray actor). It
is asked for all groups of a batch at once, through the exactly-once store, so that the same trace is judged once. A
failed judgement is None. A judge of which nothing comes back `patience` times in a row stops the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from grpo_experiments.contract import Example, Group, Need, Sample, ServedTerm, Values
from mr3.judging.config import JudgeConfig
from mr3.judging.scale import label_values
from mr3.records import Task, Verdict
from mr3.rubrics import Rubric
from rewards.model import value_of


def trace_task(example: Example, sample: Sample, rubric: Rubric, mode: str) -> Task:
    """What the frozen judge is asked: the trace as a response to the question that the trained judge was given."""
    task = example.task
    asked = task.input if isinstance(task.input, str) else "\n".join(f"{m.role}: {m.content}" for m in task.input)
    criteria = "\n".join(f"{i}. {c.description}" for i, c in enumerate(task.rubric.criteria, 1))
    levels = "\n".join(f"{label}: {text}" for label, text in task.rubric.levels.items())
    responses = "\n".join(f"Response {name}: {text}" for name, text in zip("ABCDE", task.responses, strict=False))
    shown = "\n".join(part for part in (asked, responses, criteria, levels) if part)
    return Task.model_validate(
        {
            "id": f"trace-of-{task.id}",
            "mode": mode,
            "input": shown,
            "responses": [f"{sample.parsed.trace}\n{sample.parsed.score}: {sample.parsed.explanation or ''}"],
            "rubric": rubric,
            "language": task.language,
        }
    )


class FrozenJudge(ServedTerm):
    """Scores traces by a rubric, by another judge."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    judge: JudgeConfig
    rubric: Rubric = Field(description="for the trace, not the task's own")
    store: Path = Field(description="folder of the exactly-once store")
    mode: str = Field("pointwise", pattern="^(pointwise|binary)$")
    patience: int = Field(3, gt=0, description="batches in a row without one verdict, after which the run stops")

    _desk: Any = PrivateAttr(None)
    _silent: int = PrivateAttr(0)

    def _open(self) -> Any:
        if self._desk is None:
            from mr3.judging.worker import open_desk

            judge = self.judge.absolute()
            self._desk = open_desk(judge.model_dump(mode="json"), str(self.store), judge.identity())
        return self._desk

    async def score_all(self, groups: Sequence[Group]) -> list[Values]:
        """One request for all legal verdicts of the batch; failed ones earn 0 unasked."""
        from mr3.judging.judge import JudgeItem

        desk = self._open()
        values: list[Values] = [[0.0] * len(g.samples) for g in groups]
        places = [(i, k) for i, g in enumerate(groups) for k, s in enumerate(g.samples) if s.ok]
        tasks = [trace_task(groups[i].example, groups[i].samples[k], self.rubric, self.mode) for i, k in places]
        prepared = [desk.judge.prepare(JudgeItem(task=task)) for task in tasks]
        answers = await desk.ask(prepared)
        for (i, k), task, asked in zip(places, tasks, prepared, strict=True):
            values[i][k] = self._value(Verdict.model_validate_json(answers.results[asked.id]), task)
        heard = any(values[i][k] is not None for i, k in places)
        self._silent = 0 if heard or not places else self._silent + 1
        if self._silent >= self.patience:
            raise ValueError(
                f"the frozen judge {self.judge.model} gave no verdict in {self._silent} batches in a row: see that its "
                "engine runs and that it can read such prompts; the same command goes on from the last checkpoint"
            )
        return values

    def _value(self, verdict: Verdict, task: Task) -> float | None:
        if verdict.score is None:
            return None
        scale = label_values(task.labels, task.mode).values()
        return (value_of(verdict, task.labels, task.mode) - min(scale)) / (max(scale) - min(scale))

    def close(self) -> None:
        """Give back the engine."""
        if self._desk is not None:
            self._desk.judge.engine.close()


TERM = FrozenJudge
