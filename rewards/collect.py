"""Turn a prompt's verdicts into rows of the four tables and into the stage's numbers.

Every planned judgement becomes exactly one row of verdicts.parquet, failed ones included; a missing or
a surplus verdict is a bug of the stream and stops the run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mr3.inference.store import Store
from mr3.records import Outcome, PoolRow, Verdict
from rewards.pairs import select_pairs
from rewards.plans import authors, distinct
from rewards.prompt_schedule import replay
from rewards.records import Comparison
from rewards.rows import comparison_row, preference_row, prompt_row, response_rows, verdict_row
from rewards.tables import COMPARISONS, PREFERENCES, PROMPTS, RESPONSES, VERDICTS, TableWriter
from rewards.tasks import TaskSettings

Truth = Callable[[PoolRow, str, str], int | None]


class PairSettings(BaseModel):
    """How verdicts become preferences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Literal["all", "best_worst", "none"] = Field("all", description="which decided comparisons become pairs")
    max_per_prompt: int | None = Field(None, ge=1, description="at most so many pairs per prompt")
    min_margin: float = Field(0.0, ge=0.0, description="leave out decisions closer than this")


class Counts:
    """What is counted, in all and per language."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.languages: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, language: str, **amounts: int) -> None:
        """Add to the numbers of a language."""
        counter = self.languages[language]
        for name, amount in amounts.items():  # Counter.update takes four times as long for so few
            counter[name] += amount

    def total(self, name: str) -> int:
        """Sum over languages."""
        return sum(counter[name] for counter in self.languages.values())


class Collector:
    """Writes the tables of one run, prompt by prompt, in the order of the calls."""

    def __init__(self, folder: Path, tasks: TaskSettings, pairs: PairSettings, truth: Truth | None) -> None:
        self.counts = Counts()
        self.settled = 0
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

    def settle(self, prompts: Iterable[list[Verdict]], store: Store) -> None:
        """Replace, in place, what differs from the store: the tables say what it says.

        A verdict in hand is what the store told its writer, so it can differ where it was a failure that is not kept,
        and somebody else's answer came later. A plan in rounds has gone on from that failure: there it stays.
        """
        if self._tasks.in_rounds:
            return
        prompts = list(prompts)
        stored = store.lookup([v.id for verdicts in prompts for v in verdicts])
        for verdicts in prompts:
            for place, verdict in enumerate(verdicts):
                if verdict.id not in stored:
                    continue
                kept = Verdict.model_validate_json(stored[verdict.id]).model_copy(update={"task_id": verdict.task_id})
                if kept != verdict:
                    verdicts[place] = kept
                    self.settled += 1

    def prompt(self, row: PoolRow, verdicts: Sequence[Verdict]) -> None:
        """Take one prompt with all its verdicts, in the order in which they were asked for."""
        judgements, comparisons = replay(row, self._tasks, verdicts)
        if self._pairs.rule == "none" and self._tasks.mode != "pairwise":
            comparisons = []
        self._prompts.write([prompt_row(row)])
        self._responses.write(response_rows(row, self._tasks))
        mode = self._tasks.mode
        self._verdicts.write([verdict_row(row, j, v, mode) for j, v in zip(judgements, verdicts, strict=True)])
        truths = [self._truth(row, c.a, c.b) if self._truth else None for c in comparisons]
        wrote = authors({r.id: r.policy for r in row.responses}, distinct(row.responses))
        self._comparisons.write(
            [comparison_row(row, c, truth, wrote) for c, truth in zip(comparisons, truths, strict=True)]
        )
        self._count(row, verdicts, comparisons)
        self._select(row, comparisons, truths, verdicts)

    def _count(self, row: PoolRow, verdicts: Sequence[Verdict], comparisons: Sequence[Comparison]) -> None:
        for verdict in verdicts:
            self.counts.outcomes[verdict.outcome.value] += 1
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
        texts = {r.id: r.text for r in row.responses}
        pairs = select_pairs(
            comparisons, how.rule, texts, limit=limit, min_margin=how.min_margin, seed=seed, prompt_id=row.prompt_id
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
