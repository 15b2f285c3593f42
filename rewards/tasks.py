"""From a pool row to the judge's tasks: one house rubric, a mode, a plan, the orders.

The same pure functions run in the labelling stream (to make the judge's work) and afterwards (to know
what had been planned), so that every planned judgement can be accounted for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mr3.records import Mode, PoolRow, Task
from mr3.rubrics import Rubric
from rewards.model import Orders
from rewards.plans import distinct, plan_pairs

CUT_MARK = " […]"


class TaskSettings(BaseModel):
    """How a pool becomes tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rubric: Rubric = Field(description="the one house rubric, by which every response is judged")
    mode: Mode = "pairwise"
    instruction: str | None = Field(None, description="replaces the prompt profile's own instruction")
    plan: str = Field("all_pairs", description="which pairs of a prompt are compared: all_pairs, circular, chain")
    comparisons_per_prompt: int | None = Field(None, ge=1, description="at most so many comparisons per prompt")
    orders: Orders = Field("both", description="judge A/B and B/A (both), or one order")
    samples: int = Field(1, ge=1, description="judgements per order, combined by majority")
    reference: Literal["include", "omit"] = Field("include", description="show the pool's reference answer")
    response_chars: int | None = Field(
        None, ge=1, description="cut longer responses here, visibly; by default an overlong prompt is `too_long`"
    )
    seed: int = 0


@dataclass(frozen=True)
class Unit:
    """One task and the responses that it is about (A first)."""

    response_ids: tuple[str, ...]
    task: Task


def text_hash(text: str) -> str:
    """Identity of a response's text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def shown_text(text: str, settings: TaskSettings) -> str:
    """The response as the judge reads it."""
    limit = settings.response_chars
    return text if limit is None or len(text) <= limit else text[:limit] + CUT_MARK


def units(row: PoolRow, settings: TaskSettings) -> list[Unit]:
    """All tasks of one prompt, identical responses only once."""
    texts = {r.id: shown_text(r.text, settings) for r in row.responses}
    judged = list(dict.fromkeys(distinct(row.responses).values()))
    groups: list[tuple[str, ...]]
    if settings.mode == "pairwise":
        cap = settings.comparisons_per_prompt
        groups = [*plan_pairs(settings.plan, judged, settings.seed, row.prompt_id, cap)]
    else:
        groups = [(name,) for name in judged]
    return [
        Unit(
            response_ids=ids,
            task=Task(
                id="\t".join((row.prompt_id, *ids)),
                mode=settings.mode,
                input=row.prompt,
                responses=[texts[i] for i in ids],
                rubric=settings.rubric,
                language=row.language,
                instruction=settings.instruction,
                reference=row.reference if settings.reference == "include" else None,
            ),
        )
        for ids in groups
    ]


def judgements(settings: TaskSettings) -> list[tuple[bool, int]]:
    """(swapped, sample) of every judgement that each task gets."""
    orders = (False, True) if settings.mode == "pairwise" and settings.orders == "both" else (False,)
    return [(swapped, sample) for swapped in orders for sample in range(settings.samples)]
