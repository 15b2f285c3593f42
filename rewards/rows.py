"""Rows of the labelling tables (columns in `rewards.tables`) from records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from mr3.records import Mode, PoolRow, Verdict
from rewards.plans import authors, distinct
from rewards.prompt_schedule import Judgement
from rewards.records import Comparison, Pair
from rewards.tasks import TaskSettings, shown_text, text_hash


def prompt_row(row: PoolRow) -> dict[str, Any]:
    """One prompt of the pool."""
    return {
        "prompt_id": row.prompt_id,
        "language": row.language,
        "prompt": row.messages,
        "reference": row.reference,
        "meta": json.dumps(row.meta, ensure_ascii=False),
        "provenance": json.dumps(row.provenance, ensure_ascii=False),
    }


def response_rows(row: PoolRow, settings: TaskSettings) -> list[dict[str, Any]]:
    """One row per response of the pool, also of those that are judged as another, equal one."""
    judged_as = distinct(row.responses)
    return [
        {
            "prompt_id": row.prompt_id,
            "response_id": r.id,
            "text": r.text,
            "policy": r.policy,
            "language": row.language,
            "judged_as": judged_as[r.id],
            "text_hash": text_hash(r.text.strip()),
            "chars": len(r.text),
            "cut": shown_text(r.text, settings) != r.text,
        }
        for r in row.responses
    ]


def verdict_row(row: PoolRow, judgement: Judgement, verdict: Verdict, mode: Mode) -> dict[str, Any]:
    """One judgement and what it was about."""
    flat = verdict.model_dump(mode="json")
    flat["distribution"] = None if verdict.distribution is None else json.dumps(verdict.distribution)
    return {
        **flat,
        "prompt_id": row.prompt_id,
        "response_ids": list(judgement.response_ids),
        "language": row.language,
        "mode": mode,
    }


def comparison_row(row: PoolRow, comparison: Comparison, truth: int | None, wrote: Mapping[str, str]) -> dict[str, Any]:
    """One comparison, with the ground truth where there is a checker.

    Args:
        wrote: id of a judged response -> everyone who wrote its text (`rewards.plans.authors`).
    """
    return {
        **comparison.model_dump(exclude={"verdict_ids"}),
        "verdict_ids": list(comparison.verdict_ids),
        "prompt_id": row.prompt_id,
        "language": row.language,
        "policy_a": wrote[comparison.a],
        "policy_b": wrote[comparison.b],
        "truth": truth,
    }


class Shown(Protocol):
    """A response as the pair tables name it: of a pool, or of a finished label run."""

    @property
    def text(self) -> str: ...

    @property
    def policy(self) -> str: ...

    @property
    def id(self) -> str: ...


def pair_row(
    prompt_id: str, language: str, messages: list[dict[str, str]], chosen: Shown, rejected: Shown, pair: Pair
) -> dict[str, Any]:
    """What every pair table says of a pair: TRL's explicit conversational form, and where it comes from."""
    assert chosen.text.strip() != rejected.text.strip(), "identical responses made a pair"
    return {
        "prompt": messages,
        "chosen": [{"role": "assistant", "content": chosen.text}],
        "rejected": [{"role": "assistant", "content": rejected.text}],
        "prompt_id": prompt_id,
        "language": language,
        "chosen_policy": chosen.policy,
        "rejected_policy": rejected.policy,
        "chosen_id": chosen.id,
        "rejected_id": rejected.id,
        "verdict_ids": list(pair.verdict_ids),
        "p_better": pair.p_better,
        "margin": pair.margin,
    }


def preference_row(row: PoolRow, pair: Pair, judges: Mapping[str, str], settings: TaskSettings) -> dict[str, Any]:
    """One preference of a label run.

    Args:
        judges: verdict id -> judge id.
    """
    wrote = authors({r.id: r.policy for r in row.responses}, distinct(row.responses))
    responses = {r.id: r for r in row.responses}
    chosen, rejected = (
        responses[name].model_copy(update={"policy": wrote[name]}) for name in (pair.chosen, pair.rejected)
    )
    return {
        **pair_row(row.prompt_id, row.language, row.messages, chosen, rejected, pair),
        "judge": judges[pair.verdict_ids[0]],
        "rubric_hash": settings.rubric.content_hash,
    }
