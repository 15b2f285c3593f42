"""The numbers of one labelling run, from its counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mr3.stats import wilson
from rewards.collect import Counts
from rewards.ingest import Ingested
from rewards.noise import kept_error


def label_metrics(
    counts: Counts,
    ingested: Ingested,
    *,
    new: int,
    superseded: int,
    settled: int,
    seconds: float,
    per_s: float | None,
    both_orders: bool,
    checked: bool,
) -> dict[str, Any]:
    """What goes into metrics.json.

    `verdicts_per_s` counts verdicts that were made in this run, from a worker's being ready to the last result: its
    start is in `stream_s`, and a run without new verdicts has no rate. `superseded` of the new ones give way to another
    run's verdict, which the store had first; `settled` failed here, and another run or a row of equal content had an
    answer when the tables were written.
    """
    totals: Counter[str] = Counter()
    for counter in counts.languages.values():
        totals.update(counter)
    verdicts = totals["verdicts"]
    metrics: dict[str, Any] = {
        "prompts": totals["prompts"],
        "responses": totals["responses"],
        "duplicate_responses": totals["duplicates"],
        "set_aside": {
            "rows": ingested.rows_set_aside,
            "responses": ingested.responses_set_aside,
            "reasons": dict(ingested.reasons.most_common(20)),
        },
        "pool": ingested.reading(),
        "verdicts": verdicts,
        "outcomes": dict(sorted(counts.outcomes.items())),
        "ok": wilson(totals["ok"], verdicts),
        "repaired": wilson(totals["repaired"], verdicts),
        "generated": wilson(_generated(counts), verdicts),
        "from_store": verdicts - new,
        "superseded": superseded,
        "settled": settled,
        "verdicts_per_s": round(per_s, 2) if per_s and new else None,
        "stream_s": round(seconds, 2),
        "comparisons": totals["comparisons"],
        "pairs": totals["pairs"],
        "ties": totals["ties"],
        "failed_comparisons": totals["failed"],
        "flips": totals["flips"],
        "languages": {name: _of_language(c, checked) for name, c in sorted(counts.languages.items())},
    }
    judged = totals["comparisons"] - totals["failed"]
    if both_orders:
        metrics["flip_rate"] = wilson(totals["flips"], judged)
        if judged:
            metrics["kept_error_from_flips"] = round(kept_error(totals["flips"] / judged), 6)
    if checked:
        metrics["pair_accuracy"] = _pair_accuracy(totals)
    return metrics


def _generated(counts: Counts) -> int:
    """Verdicts for which the judge wrote something: all but prompts over the limit and dead engines."""
    return sum(n for outcome, n in counts.outcomes.items() if outcome not in ("too_long", "engine_failed"))


def _of_language(counter: Counter[str], checked: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "prompts": counter["prompts"],
        "responses": counter["responses"],
        "verdicts": counter["verdicts"],
        "ok": wilson(counter["ok"], counter["verdicts"]),
        "comparisons": counter["comparisons"],
        "pairs": counter["pairs"],
        "yield": wilson(counter["prompts_with_pairs"], counter["prompts"]),
        "pairs_per_comparison": wilson(counter["pairs"], counter["comparisons"]),
    }
    if checked:
        found["pair_accuracy"] = _pair_accuracy(counter)
    return found


def _pair_accuracy(counter: Counter[str]) -> dict[str, Any]:
    """Pairs whose chosen response is truly better, over all checked pairs: truly equal responses make a wrong pair."""
    checked = counter["right"] + counter["wrong"] + counter["equal"]
    return {**wilson(counter["right"], checked), "truly_equal": counter["equal"]}
