"""Turn a prompt's verdicts into rows of the four tables and into the stage's numbers.

Every planned judgement becomes exactly one row of verdicts.parquet, failed ones included; a missing or
a surplus verdict is a bug of the stream and stops the run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mr3.records import Outcome, PoolRow, Verdict
from rewards.model import Combine, combine, compare_scores, scored
from rewards.pairs import select_pairs
from rewards.plans import distinct, plan_pairs
from rewards.records import Comparison
from rewards.rows import comparison_row, preference_row, prompt_row, response_rows, verdict_row
from rewards.tables import COMPARISONS, PREFERENCES, PROMPTS, RESPONSES, VERDICTS, TableWriter
from rewards.tasks import TaskSettings, Unit, judgements, units

Truth = Callable[[PoolRow, str, str], int | None]


class PairSettings(BaseModel):
    """How verdicts become preferences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    combine: Combine = Field("agree", description="agree: both orders must say the same; mean: mean P(A better)")
    rule: Literal["all", "best_worst", "none"] = Field("all", description="which decided comparisons become pairs")
    max_per_prompt: int | None = Field(None, ge=1, description="at most so many pairs per prompt")
    min_margin: float = Field(0.0, ge=0.0, description="leave out decisions closer than this")
    tie_margin: float = Field(0.0, ge=0.0, description="with mean or scores: differences up to this are ties")


class Counts:
    """What is counted, in all and per language."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.languages: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, language: str, **amounts: int) -> None:
        """Add to the numbers of a language."""
        self.languages[language].update(amounts)

    def total(self, name: str) -> int:
        """Sum over languages."""
        return sum(counter[name] for counter in self.languages.values())


class Collector:
    """Writes the tables of one run, prompt by prompt, in the order of the calls."""

    def __init__(self, folder: Path, tasks: TaskSettings, pairs: PairSettings, truth: Truth | None) -> None:
        self.counts = Counts()
        self._tasks = tasks
        self._pairs = pairs
        self._truth = truth
        self._stack = ExitStack()
        self._prompts = TableWriter(folder / "prompts.parquet", PROMPTS)
        self._responses = TableWriter(folder / "responses.parquet", RESPONSES)
        self._verdicts = TableWriter(folder / "verdicts.parquet", VERDICTS)
        self._comparisons = TableWriter(folder / "comparisons.parquet", COMPARISONS)
        self._preferences = TableWriter(folder / "preferences.parquet", PREFERENCES)

    def __enter__(self) -> Collector:
        for table in (self._prompts, self._responses, self._verdicts, self._comparisons, self._preferences):
            self._stack.enter_context(table)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def prompt(self, row: PoolRow, verdicts: Sequence[Verdict]) -> None:
        """Take one prompt with all its verdicts."""
        planned = units(row, self._tasks)
        by_task = self._matched(planned, verdicts)
        self._prompts.write([prompt_row(row)])
        self._responses.write(response_rows(row, self._tasks))
        for unit in planned:
            self._verdicts.write([verdict_row(row, unit, v) for v in by_task[unit.task.id]])
        comparisons = self._compared(row, planned, by_task)
        truths = [self._truth(row, c.a, c.b) if self._truth else None for c in comparisons]
        policies = {r.id: r.policy for r in row.responses}
        self._comparisons.write(
            [comparison_row(row, c, truth, policies) for c, truth in zip(comparisons, truths, strict=True)]
        )
        self._count(row, verdicts, comparisons)
        self._select(row, comparisons, truths, verdicts)

    def _matched(self, planned: Sequence[Unit], verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
        """Verdicts by task. They come in the planned order; a stored one may bear the name of an equal task."""
        wanted = [(u.task.id, swapped, sample) for u in planned for swapped, sample in judgements(self._tasks)]
        found = [(v.swapped, v.sample) for v in verdicts]
        assert found == [(swapped, sample) for _, swapped, sample in wanted], "planned and returned verdicts differ"
        by_task: dict[str, list[Verdict]] = {u.task.id: [] for u in planned}
        for (task_id, _, _), verdict in zip(wanted, verdicts, strict=True):
            by_task[task_id].append(verdict.model_copy(update={"task_id": task_id}))
        return by_task

    def _compared(self, row: PoolRow, planned: Sequence[Unit], by_task: dict[str, list[Verdict]]) -> list[Comparison]:
        how = self._pairs
        if self._tasks.mode == "pairwise":
            compared = []
            for unit in planned:
                a, b = unit.response_ids
                verdicts = by_task[unit.task.id]
                compared.append(combine(a, b, verdicts, how.combine, how.tie_margin, unit.task.labels))
            return compared
        scores = {u.response_ids[0]: scored(by_task[u.task.id], u.task.labels, u.task.mode) for u in planned}
        ids = {u.response_ids[0]: tuple(v.id for v in by_task[u.task.id]) for u in planned}
        if how.rule == "none":
            return []
        cap = self._tasks.comparisons_per_prompt
        pairs = plan_pairs(self._tasks.plan, list(scores), self._tasks.seed, row.prompt_id, cap)
        return [compare_scores(a, b, scores, ids, how.tie_margin) for a, b in pairs]

    def _count(self, row: PoolRow, verdicts: Sequence[Verdict], comparisons: Sequence[Comparison]) -> None:
        self.counts.outcomes.update(v.outcome.value for v in verdicts)
        results = Counter(c.result for c in comparisons)
        self.counts.add(
            row.language,
            prompts=1,
            responses=len(row.responses),
            duplicates=len(row.responses) - len(set(distinct(row.responses).values())),
            verdicts=len(verdicts),
            ok=sum(v.outcome is Outcome.OK for v in verdicts),
            repaired=sum(v.repaired for v in verdicts),
            comparisons=len(comparisons),
            ties=results["tie"],
            failed=results["failed"],
            flips=sum(c.flip for c in comparisons),
        )

    def _select(
        self, row: PoolRow, comparisons: Sequence[Comparison], truths: Sequence[int | None], verdicts: Sequence[Verdict]
    ) -> None:
        how = self._pairs
        seed, limit = self._tasks.seed, how.max_per_prompt
        pairs = select_pairs(
            comparisons, how.rule, limit=limit, min_margin=how.min_margin, seed=seed, prompt_id=row.prompt_id
        )
        judges = {v.id: v.judge for v in verdicts}
        self._preferences.write([preference_row(row, pair, judges, self._tasks) for pair in pairs])
        self.counts.add(row.language, pairs=len(pairs), prompts_with_pairs=int(bool(pairs)))
        better = {}
        for comparison, truth in zip(comparisons, truths, strict=True):
            if truth is not None:
                better[comparison.a, comparison.b] = truth
                better[comparison.b, comparison.a] = -truth
        for pair in pairs:
            truth = better.get((pair.chosen, pair.rejected))
            if truth is not None:
                self.counts.add(row.language, **{{1: "right", 0: "equal", -1: "wrong"}[truth]: 1})
