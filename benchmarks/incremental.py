"""What a grown pool costs: a tenth more responses, and only judgements that one of them is in."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.workload import base_judge, label, label_config, write_pool

PROMPTS, RESPONSES, EVERY = 1_000, 5, 2


def _grow(pool: Path, grown: Path) -> int:
    """One new response for every second prompt: a tenth of all."""
    added = 0
    with grown.open("w") as out:
        for number, line in enumerate(pool.read_text().splitlines()):
            row = json.loads(line)
            if number % EVERY == 0:
                new = {"id": f"{row['prompt_id']}-new", "text": "I do not know. Thank you.", "policy": "new"}
                row["responses"].insert(number % len(row["responses"]), new)
                added += 1
            out.write(json.dumps(row) + "\n")
    return added


def _involved(folder: Path) -> int:
    """Verdicts about a new response."""
    import pyarrow.parquet as pq

    pairs = pq.read_table(folder / "label" / "verdicts.parquet", columns=["response_ids"])["response_ids"].to_pylist()
    return sum(any(name.endswith("-new") for name in pair) for pair in pairs)


def run() -> Result:
    """For each plan: judge, grow, judge again over the same store."""
    surplus, details = 0, {}
    for plan in ("all_pairs", "circular"):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            pool, judge = write_pool(root / "pool.jsonl", PROMPTS, RESPONSES), base_judge(root / "judge")
            first = label(label_config(root, pool, judge, plan=plan))
            added = _grow(pool, root / "grown.jsonl")
            again = {"plan": plan, "output_dir": str(root / "again" / "label"), "store": str(root / "store")}
            second = label(label_config(root / "again", root / "grown.jsonl", judge, **again))
            involved = _involved(root / "again")
        new = second["verdicts"] - second["from_store"]
        surplus += new - involved
        details[plan] = {
            "first": first["verdicts"],
            "added_responses": added,
            "planned_with_a_new_one": involved,
            "judged_again": new,
        }
    return Result({"needless": surplus}, n=PROMPTS, bars={"needless": Bar("at_most", 0)}, details=details)


BENCHMARK = Benchmark("incremental", "judgements made again without need after a tenth more responses", run)
