"""`mr3 audit`: what can be said of the labels of a run, with and without a checker and people's labels.

In: a folder that `mr3 label` made, and optionally gold labels (of `mr3 annotate`, or by import string). Out: audit.json
and a self-contained audit.html, all of it per language and per source policy: outcomes and scores, ties, flips and
position, length, language consistency, win rates, accuracy, kappa and calibration against truth and people, canaries.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from mr3.artifacts import finished_files, metrics_of, stage_run, write_atomic, write_json
from mr3.config import StageConfig
from mr3.stage import stage_main
from rewards.auditing.gold import GoldSpec, gold_files, load_gold

log = logging.getLogger(__name__)


class AuditConfig(StageConfig):
    """Config of `mr3 audit`."""

    label: Path = Field(description="folder that `mr3 label` made")
    gold: GoldSpec | None = Field(
        None, description="labels made by people: gold.jsonl, or {source: package.module:function, options}"
    )
    title: str = "Audit of labels"
    note: str | None = Field(None, description="what a reader should know before the numbers; stands at the top")
    examples: int = Field(3, ge=0, description="failed verdicts shown per outcome, and canaries that passed")
    identify_per_language: int | None = Field(
        2000, ge=0, description="identify the language of about so many responses per language; 0: none, null: all"
    )


def audit(config: AuditConfig) -> dict[str, Any]:
    """The whole report as data.

    Raises:
        ValueError: when the label folder is not finished, or gold labels don't fit its scale.
    """
    from rewards.auditing.agreement import Agreement
    from rewards.auditing.canaries import canary_block
    from rewards.auditing.language import Languages
    from rewards.auditing.length import Lengths
    from rewards.auditing.orders import Orders
    from rewards.auditing.tally import Tally
    from rewards.auditing.truth import Truth
    from rewards.auditing.wins import Wins
    from rewards.walk import label_settings, scale_of, walk

    settings = label_settings(config.label)
    metrics = metrics_of(config.label)
    labels, mode = scale_of(settings), settings["mode"]
    tally, orders, lengths = Tally(labels, mode, config.examples), Orders(labels, mode), Lengths(labels, mode)
    truth, wins = Truth(), Wins()
    agreement = Agreement(load_gold(config.gold), labels, mode) if config.gold is not None else None
    languages = None
    if config.identify_per_language != 0:
        responses = {name: found["responses"] for name, found in metrics["languages"].items()}
        languages = Languages(labels, mode, responses, config.identify_per_language, config.seed)
    sections = [s for s in (tally, orders, lengths, truth, wins, languages, agreement) if s is not None]
    for prompt in walk(config.label):
        for section in sections:
            section.add(prompt)
    rubric = settings["rubric"]
    return {
        "title": config.title,
        "note": config.note,
        "judge": settings["judge"]["model"],
        "mode": mode,
        "labels": list(labels),
        "rubric": {"name": rubric["name"], "criteria": [c["name"] for c in rubric["criteria"]], "text": rubric},
        "accounting": _accounting(tally.responses, metrics),
        "verdicts": tally.report(),
        "orders": orders.report() if orders.any else None,
        "pairs": {k: metrics.get(k) for k in ("comparisons", "pairs", "ties", "flips", "pair_accuracy")},
        "truth": truth.report(),
        "length": lengths.report(),
        "language": languages.report() if languages is not None else None,
        "wins": wins.report(),
        "canaries": canary_block(config.label, metrics, config.examples),
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
    from rewards.auditing.page import page
    from rewards.walk import label_settings

    label_settings(config.label)  # a wrong folder is an error before anything is written
    inputs = finished_files(config.label)
    if config.gold is not None:
        inputs += gold_files(config.gold)
    with stage_run("audit", config, inputs) as stage:
        if stage.finished:
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
