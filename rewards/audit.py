"""`mr3 audit`: what can be said of the labels of a run, with and without people's labels.

In: a folder that `mr3 label` made, and optionally gold labels by import string. Out: audit.json and a
self-contained audit.html: outcomes per language and source policy, scores, flips and position, what each way to
combine the orders keeps, and agreement with people with n, intervals and the constant answer beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from mr3.artifacts import metrics_of, stage_run, write_atomic, write_json
from mr3.config import StageConfig
from mr3.stage import stage_main
from rewards.pool import Adapter, load_function, pool_files
from rewards.records import GoldLabel

log = logging.getLogger(__name__)


class AuditConfig(StageConfig):
    """Config of `mr3 audit`."""

    label: Path = Field(description="folder that `mr3 label` made")
    gold: Adapter | None = Field(None, description="labels made by people: {source: package.module:function, options}")
    title: str = "Audit of labels"
    note: str | None = Field(None, description="what a reader should know before the numbers; stands at the top")
    examples: int = Field(3, ge=0, description="failed verdicts shown per outcome")


def _gold(adapter: Adapter) -> list[GoldLabel]:
    found = list(load_function(adapter.source)(**adapter.options))
    if not found:
        raise ValueError(f"{adapter.source} gave no gold labels: check gold.options, or leave gold out")
    return found


def audit(config: AuditConfig) -> dict[str, Any]:
    """The whole report as data.

    Raises:
        ValueError: when the label folder is not finished, or gold labels don't fit its scale.
    """
    from rewards.agreement import Agreement
    from rewards.orders import Orders
    from rewards.tally import Tally
    from rewards.walk import label_settings, scale_of, walk

    settings = label_settings(config.label)
    labels, pairwise = scale_of(settings), settings["mode"] == "pairwise"
    if config.gold is not None and pairwise:
        raise ValueError("gold labels are of single responses: audit a pointwise or binary label run with them")
    tally = Tally(pairwise, config.examples)
    orders = Orders(labels) if pairwise else None
    agreement = Agreement(_gold(config.gold), labels) if config.gold is not None else None
    for prompt in walk(config.label):
        tally.add(prompt)
        if orders is not None:
            orders.add(prompt)
        if agreement is not None:
            agreement.add(prompt)
    label_metrics = metrics_of(config.label)
    rubric = settings["rubric"]
    return {
        "title": config.title,
        "note": config.note,
        "judge": settings["judge"]["model"],
        "mode": settings["mode"],
        "labels": list(labels),
        "rubric": {"name": rubric["name"], "criteria": [c["name"] for c in rubric["criteria"]], "text": rubric},
        "accounting": _accounting(tally.responses, label_metrics),
        "verdicts": tally.report(),
        "orders": orders.report() if orders is not None else None,
        "pairs": {k: label_metrics.get(k) for k in ("comparisons", "pairs", "ties", "flips", "pair_accuracy")},
        "gold": agreement.report() if agreement is not None else None,
    }


def _accounting(responses: int, metrics: dict[str, Any]) -> dict[str, Any]:
    """Every row of the pool: labelled, or set aside by name."""
    assert responses == metrics["responses"], "responses.parquet and metrics.json differ"
    aside = metrics["set_aside"]
    return {
        "responses": responses,
        "rows_set_aside": aside["rows"],
        "responses_set_aside": aside["responses"],
        "reasons": aside["reasons"],
        "verdicts": metrics["verdicts"],
        "from_store": metrics["from_store"],
        "verdicts_per_s": metrics["verdicts_per_s"],
    }


def run(config: AuditConfig) -> None:
    """Write audit.json and audit.html.

    Raises:
        ValueError: see `audit`.
    """
    from rewards.audit_html import page
    from rewards.walk import label_settings

    label_settings(config.label)  # a wrong folder is an error before anything is written
    inputs: list[str | Path] = [config.label / "manifest.json"]
    if config.gold is not None:
        inputs += pool_files(config.gold)
    with stage_run("audit", config, inputs) as stage:
        if stage.finished:
            log.info("%s is finished: nothing to do", stage.folder)
            return
        report = audit(config)
        write_json(stage.folder / "audit.json", report)
        write_atomic(stage.folder / "audit.html", page(report).encode())
        stage.metrics = {k: v for k, v in report.items() if k not in ("note", "title", "rubric")}
    log.info("wrote %s", config.output_dir / "audit.html")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the stage."""
    return stage_main("audit", AuditConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
