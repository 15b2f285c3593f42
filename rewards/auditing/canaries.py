"""The canaries of a label run, as its metrics hold them, with examples of those that passed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SHOWN = ("kind", "language", "prompt_id", "against", "scores", "p_canary")


def canary_block(label: Path, metrics: dict[str, Any], examples: int) -> dict[str, Any] | None:
    """The `canaries` block of metrics.json with `passed`, rows of canaries.parquet; None for a run without canaries."""
    block = metrics.get("canaries")
    if block is None:
        return None
    import pyarrow.parquet as pq

    rows = pq.read_table(label / "canaries.parquet", columns=[*_SHOWN, "base", "false_positive"]).to_pylist()
    passed = [{name: row[name] for name in _SHOWN} for row in rows if row["false_positive"] and row["base"] is None]
    return {**block, "passed": passed[:examples]}
