"""Prompts of a policy as rows for GRPOTrainer: `prompt` (chat turns), `prompt_id`, `language`, `meta` (JSON), and
`opponent`, a response to be compared with, where the config names some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from grpo_experiments.policy.config import PolicyGrpoConfig
from mr3.records import stable_hash
from rewards.pools.rows import decoded_prompt

Row = dict[str, Any]


def read_rows(config: PolicyGrpoConfig) -> list[Row]:
    """The rows, in the file's order; with `max_prompts` so many of them, drawn by a hash of seed and id.

    Raises:
        ValueError: for a missing or empty file, or a prompt without its opponent.
    """
    if not config.prompts.is_file():
        raise ValueError(f"no prompts at {config.prompts}: make them with `mr3 data`, or give another path")
    rows = [_row(raw) for raw in pq.read_table(config.prompts).to_pylist()]
    if not rows:
        raise ValueError(f"{config.prompts} holds no prompts")
    if config.max_prompts is not None and config.max_prompts < len(rows):
        drawn = sorted(row["prompt_id"] for row in rows)
        drawn.sort(key=lambda name: stable_hash("prompts", config.seed, name))
        chosen = set(drawn[: config.max_prompts])
        rows = [row for row in rows if row["prompt_id"] in chosen]
    if config.references is not None:
        opponents = _opponents(config.references, config.reference_column)
        missing = [row["prompt_id"] for row in rows if row["prompt_id"] not in opponents]
        if missing:
            raise ValueError(f"{config.references} has no response to {missing[0]!r} ({len(missing)} prompts in all)")
        rows = [{**row, "opponent": opponents[row["prompt_id"]]} for row in rows]
    return rows


def _row(raw: Row) -> Row:
    turns = decoded_prompt(raw["prompt"])
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    meta = raw.get("meta") or "{}"
    return {
        "prompt": turns,
        "prompt_id": str(raw["prompt_id"]),
        "language": raw["language"],
        "meta": meta if isinstance(meta, str) else json.dumps(meta, ensure_ascii=False),
    }


def _opponents(file: Path, column: str) -> dict[str, str]:
    """Prompt id -> the first response to it that has text."""
    if not file.is_file():
        raise ValueError(f"no responses at {file}: make them with `mr3 sample`, or give another path")
    if column not in pq.read_schema(file).names:
        raise ValueError(f"{file} has no column {column!r}: set reference_column to the one with the responses")
    found: dict[str, str] = {}
    for raw in pq.read_table(file, columns=["prompt_id", column]).to_pylist():
        if raw[column]:
            found.setdefault(str(raw["prompt_id"]), raw[column])
    return found
