"""How a pool becomes the judge's tasks: one house rubric, a mode, a plan, the orders, and what a task shows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.records import PoolMode, PoolRow, Task
from mr3.rubrics import Rubric
from mr3.rubrics.checks import check_mode
from rewards.model import Combine, Orders
from rewards.plans import ONE_ROUND, PLANS

CUT_MARK = " […]"


def check_plan(plan: str, cap: int | None) -> None:
    """Raises: ValueError: for an unknown plan, or a cap on one that goes by rounds."""
    if plan not in PLANS:
        raise ValueError(f"unknown plan {plan!r}: choose one of {', '.join(PLANS)}")
    if cap is not None and plan not in ONE_ROUND:
        raise ValueError(f"plan {plan} goes by rounds and can't be cut: leave comparisons_per_prompt out")


class TaskSettings(BaseModel):
    """How a pool becomes tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rubric: Rubric = Field(description="the one house rubric, by which every response is judged")
    mode: PoolMode = "pairwise"
    instruction: str | None = Field(None, description="replaces the prompt profile's own instruction")
    plan: str = Field("all_pairs", description="what is compared: all_pairs, circular, chain or knockout")
    comparisons_per_prompt: int | None = Field(None, ge=1, description="at most so many comparisons per prompt")
    orders: Orders = Field("both", description="judge A/B and B/A (both), one by lot (one), or both where it decides")
    samples: int = Field(1, ge=1, description="judgements per order, combined by majority; stops when that is decided")
    combine: Combine = Field("agree", description="agree: both orders must say the same; mean: mean P(A better)")
    tie_margin: float = Field(0.0, ge=0.0, description="with mean or scores: differences up to this are ties")
    reference: Literal["include", "omit"] = Field("include", description="show the pool's reference answer")
    response_chars: int | None = Field(
        None, ge=1, description="cut longer responses here, visibly; by default an overlong prompt is `too_long`"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _plan_works(self) -> TaskSettings:
        check_plan(self.plan, self.comparisons_per_prompt)
        check_mode(self.rubric, self.mode)
        return self

    @property
    def in_rounds(self) -> bool:
        """Whether what is judged next depends on verdicts."""
        return self.mode == "pairwise" and (self.plan not in ONE_ROUND or self.samples > 1)


def text_hash(text: str) -> str:
    """Identity of a response's text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def shown_text(text: str, settings: TaskSettings) -> str:
    """The response as the judge reads it."""
    limit = settings.response_chars
    return text if limit is None or len(text) <= limit else text[:limit] + CUT_MARK


class TaskMaker:
    """The judge's tasks about one prompt."""

    def __init__(self, row: PoolRow, settings: TaskSettings) -> None:
        self._row, self._settings = row, settings
        self._texts = {r.id: shown_text(r.text, settings) for r in row.responses}

    def task(self, name: str, response_ids: Sequence[str]) -> Task:
        """The task about one response, or about two (A first)."""
        row, settings = self._row, self._settings
        # The parts were validated when pool and config were read; once more for each task would be a tenth of the work.
        return Task.model_construct(
            id=name,
            mode=settings.mode,
            input=row.prompt,
            responses=[self._texts[i] for i in response_ids],
            rubric=settings.rubric,
            language=row.language,
            instruction=settings.instruction,
            reference=row.reference if settings.reference == "include" else None,
        )
