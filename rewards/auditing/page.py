"""The audit as one self-contained HTML page: tables from the report, plots inlined as PNG."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any


def page(report: dict[str, Any]) -> str:
    """The report of `rewards.audit.audit` as HTML; everything from data is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = (resources.files("rewards.auditing") / "audit.html").read_text(encoding="utf-8")
    dump = json.dumps(report, ensure_ascii=False, indent=1)
    return environment.from_string(template).render(r=report, plots=_plots(report), dump=dump)


def _plots(report: dict[str, Any]) -> list[str]:
    """Two rows of panels as base64 PNG: per language; then calibration, length and canaries, what there is of them."""
    languages = report["verdicts"]["languages"]
    found = [_figure(_language_panels(report), 1.8 + 0.28 * len(languages))]
    more = _other_panels(report)
    return [*found, _figure(more, 3.6)] if more else found


def _figure(panels: Sequence[Callable[[Any], None]], height: float) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, draw in zip(axes, panels, strict=True):
        draw(axis)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def _language_panels(report: dict[str, Any]) -> list[Callable[[Any], None]]:
    """Stacked shares of outcomes and of scores, and agreement (or flips) with intervals, per language."""
    languages = report["verdicts"]["languages"]
    outcomes = {k: v["outcomes"] for k, v in languages.items()}
    scores = {k: v["scores"] for k, v in languages.items()}
    panels: list[Callable[[Any], None]] = [
        lambda axis: _stacked(axis, outcomes, "outcomes", {"ok": "#9ab8d0"}),
        lambda axis: _stacked(axis, scores, "scores of valid verdicts", {}),
    ]
    if report["gold"]:
        rates = {k: v["accuracy"] for k, v in report["gold"]["languages"].items()}
        base = {k: v["baseline_constant"]["value"] for k, v in report["gold"]["languages"].items()}
        panels.append(lambda axis: _intervals(axis, rates, "accuracy against people (x: constant answer)", base))
    elif report["mode"] == "pairwise" and report["orders"]:
        flips = {k: v["flip_rate"] for k, v in report["orders"]["languages"].items()}
        panels.append(lambda axis: _intervals(axis, flips, "flip rate", {}))
    return panels


def _other_panels(report: dict[str, Any]) -> list[Callable[[Any], None]]:
    curves = {
        name: report[key]["all"]["calibration"]["bins"]
        for key, name in (("truth", "checker"), ("gold", "people"))
        if report[key] and report[key]["all"]["calibration"]
    }
    panels: list[Callable[[Any], None]] = []
    if curves:
        panels.append(lambda axis: _reliability(axis, curves))
    bins = report["length"]["all"]["by_ratio"]
    if any(rate["n"] for rate in bins.values()):
        panels.append(lambda axis: _intervals(axis, bins, "longer wins, by longer / shorter", {}))
    if report["canaries"]:
        kinds = {kind: found["false_positive"] for kind, found in report["canaries"]["kinds"].items()}
        panels.append(lambda axis: _intervals(axis, kinds, "canaries that passed", {}))
    return panels


def _reliability(axis: Any, curves: dict[str, list[dict[str, Any]]]) -> None:
    axis.plot([0, 1], [0, 1], color="#bbb", lw=1)
    for name, bins in curves.items():
        axis.plot([b["stated"] for b in bins], [b["true"] for b in bins], "o-", label=f"{name}, n={_items(bins)}")
    axis.set(title="calibration", xlabel="stated probability", ylabel="share that is true", xlim=(0, 1), ylim=(0, 1))
    axis.title.set_fontsize(10)
    axis.legend(fontsize=8, frameon=False)


def _items(bins: list[dict[str, Any]]) -> int:
    return sum(b["n"] for b in bins)


def _stacked(axis: Any, rows: dict[str, dict[str, int]], title: str, colours: dict[str, str]) -> None:
    names = list(rows)
    kinds = sorted({kind for row in rows.values() for kind in row})
    left = [0.0] * len(names)
    for kind in kinds:
        shares = [rows[n].get(kind, 0) / max(1, sum(rows[n].values())) for n in names]
        axis.barh(names, shares, left=left, label=kind, color=colours.get(kind))
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axis.set(title=title, xlim=(0, 1), xlabel="share")
    axis.invert_yaxis()
    if kinds:
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3, frameon=False)


def _intervals(axis: Any, rows: dict[str, dict[str, Any]], title: str, marks: dict[str, float | None]) -> None:
    known = {name: row for name, row in rows.items() if row["value"] is not None}
    for name, row in known.items():
        low, high = row["interval"]
        axis.errorbar([row["value"]], [name], xerr=[[row["value"] - low], [high - row["value"]]], fmt="o", color="C0")
        if marks.get(name) is not None:
            axis.plot([marks[name]], [name], "x", color="C1")
    axis.set(title=title, xlim=(0, 1), xlabel="rate with 95% interval")
    axis.title.set_fontsize(10)
    axis.margins(y=0.3)
    axis.invert_yaxis()
    if not known:
        axis.text(0.5, 0.5, "no valid verdicts to compare", ha="center", transform=axis.transAxes)
