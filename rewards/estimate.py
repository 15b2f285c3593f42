"""What a label run will cost, before it is paid for: calls, tokens, hours at a measured rate, money.

Calls are counted over the whole pool; prompt tokens come from the rendered prompts of a sample. The rate and the length
of answers are measured by judging that sample (its verdicts go to the store, so nothing is paid for twice), or given.
"""

from __future__ import annotations

import heapq
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from mr3.records import DEFAULT_LABELS, Outcome, PoolRow, Verdict, stable_hash
from rewards.plans import distinct
from rewards.pool import Placed, PoolItem
from rewards.prompt_schedule import Judgement, judge_prompt, task_id
from rewards.tasks import TaskMaker, TaskSettings

if TYPE_CHECKING:
    from rewards.label import LabelConfig

_IN_FLIGHT_PROMPTS = 4


class EstimateSettings(BaseModel):
    """How a run is estimated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_prompts: int = Field(64, ge=1, description="prompts that are rendered, and judged where no rate is given")
    verdicts_per_s: float | None = Field(None, gt=0, description="a rate that you measured; then nothing is judged now")
    price_per_hour: float | None = Field(None, ge=0, description="of all machines together, in any currency")


@cache
def _scripted_calls(responses: int, settings_json: str, undecided: bool) -> int:
    """Calls on a prompt of so many different responses: votes that agree at once, or that never do."""
    settings = TaskSettings.model_validate_json(settings_json)
    texts = [{"id": str(i), "text": str(i), "policy": "p"} for i in range(responses)]
    row = PoolRow.model_validate({"prompt_id": "p", "prompt": "?", "language": "en", "responses": texts})
    labels = tuple(settings.rubric.levels) or DEFAULT_LABELS[settings.mode]

    def verdict(judgement: Judgement) -> Verdict:
        score = labels[judgement.sample % len(labels)] if undecided else labels[1 if judgement.swapped else 0]
        name = task_id("p", judgement)
        return Verdict(
            id=name, task_id=name, outcome=Outcome.OK, score=score, swapped=judgement.swapped, sample=judgement.sample
        )

    judging, calls = judge_prompt(row, settings), 0
    try:
        wanted = next(judging)
        while True:
            calls += len(wanted)
            wanted = judging.send([verdict(j) for j in wanted])
    except StopIteration:
        return calls


@dataclass
class Counted:
    """A pool, counted: `calls` where votes agree at once, `calls_at_most` where they never do."""

    prompts: int = 0
    responses: int = 0
    set_aside: int = 0
    calls: int = 0
    calls_at_most: int = 0
    sample: list[PoolRow] = field(default_factory=list)


def count(items: Iterator[PoolItem], settings: TaskSettings, sample: int, seed: int) -> Counted:
    """One pass over the pool, with the prompts of the smallest hashes as the sample."""
    found = Counted()
    blob = settings.model_dump_json()
    kept: list[tuple[int, int, PoolRow]] = []
    for number, item in enumerate(items):
        if not isinstance(item, Placed):
            found.set_aside += 1
            continue
        row = item.row
        different = len(set(distinct(row.responses).values()))
        found.prompts += 1
        found.responses += len(row.responses)
        found.calls += _scripted_calls(different, blob, False)
        found.calls_at_most += _scripted_calls(different, blob, True)
        drawn = -int(stable_hash("estimate", seed, row.prompt_id, length=16), 16)
        (heapq.heappush if len(kept) < sample else heapq.heappushpop)(kept, (drawn, -number, row))
    found.sample = [row for _, _, row in sorted(kept, key=lambda entry: -entry[1])]
    return found


def _prompt_tokens(config: LabelConfig, rows: list[PoolRow]) -> float | None:
    """Mean tokens of the sample's prompts in their first round."""
    from mr3.judging.judge import Judge, JudgeItem
    from mr3.judging.opening import tokenizer_of

    tokenizer = tokenizer_of(config.judge)
    judge = Judge(config.judge.card, tokenizer, None, "estimate")  # type: ignore[arg-type]
    sizes: list[int] = []
    for row in rows:
        maker = TaskMaker(row, config.tasks)
        tasks = [
            maker.task(task_id(row.prompt_id, j), j.response_ids) for j in next(judge_prompt(row, config.tasks), [])
        ]
        prompts = [judge.prepare(JudgeItem(task=task)).prompt for task in tasks]
        if prompts:
            sizes += map(len, tokenizer(prompts, add_special_tokens=False)["input_ids"])
    return sum(sizes) / len(sizes) if sizes else None


def _judge_sample(config: LabelConfig, rows: list[PoolRow]) -> tuple[float | None, float | None]:
    """(verdicts per second after the first result, mean output tokens); the verdicts stay in the store."""
    from mr3.judging.run import Work, judge_groups
    from rewards.ingest import ingest
    from rewards.worker import Judged, LabelWorker

    stream = config.stream.model_copy(update={"batch_groups": _IN_FLIGHT_PROMPTS})
    work = Work(LabelWorker, {"tasks": config.tasks.model_dump(mode="json")})
    arrivals: list[tuple[float, int]] = []
    tokens: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        placed = iter([Placed(where="sample", row=row) for row in rows])
        pool = ingest(placed, Path(folder) / "pool", Path(folder) / "rejected.jsonl")
        for _, payload in judge_groups(pool.folder, config.judge, config.verdicts, stream, work):
            judged = Judged.model_validate_json(payload)
            arrivals.append((time.monotonic(), judged.new))
            tokens += [v.output_tokens for v in judged.verdicts]
    later = sum(new for _, new in arrivals[1:])
    seconds = arrivals[-1][0] - arrivals[0][0] if arrivals else 0.0
    rate = later / seconds if later and seconds > 0 else None
    return rate, sum(tokens) / len(tokens) if tokens else None


def estimate(config: LabelConfig, items: Iterator[PoolItem]) -> dict[str, Any]:
    """The whole estimate; a number that can't be told is None."""
    how = config.estimate
    found = count(items, config.tasks, how.sample_prompts, config.seed)
    prompt_tokens = _prompt_tokens(config, found.sample)
    rate, output_tokens = how.verdicts_per_s, None
    if rate is None and found.sample:
        rate, output_tokens = _judge_sample(config, found.sample)
    hours = found.calls / rate / 3600 if rate else None
    limit = config.judge.card.sampling.max_tokens
    return {
        "prompts": found.prompts,
        "responses": found.responses,
        "set_aside": found.set_aside,
        "calls": found.calls,
        "calls_at_most": found.calls_at_most,
        "prompt_tokens": round(found.calls * prompt_tokens) if prompt_tokens else None,
        "output_tokens": round(found.calls * output_tokens) if output_tokens else None,
        "output_tokens_at_most": found.calls_at_most * limit,
        "verdicts_per_s": rate,
        "hours": hours,
        "price": hours * how.price_per_hour if hours is not None and how.price_per_hour is not None else None,
        "sample_prompts": len(found.sample),
    }
