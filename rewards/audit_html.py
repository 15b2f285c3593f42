"""The audit as one self-contained HTML page: tables from the report, one plot inlined as PNG."""

from __future__ import annotations

import base64
import io
import json
from importlib import resources
from typing import Any


def page(report: dict[str, Any]) -> str:
    """The report of `rewards.audit.audit` as HTML; everything from data is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = (resources.files("rewards") / "audit.html").read_text(encoding="utf-8")
    dump = json.dumps(report, ensure_ascii=False, indent=1)
    return environment.from_string(template).render(r=report, plot=_plot(report), dump=dump)


def _plot(report: dict[str, Any]) -> str:
    """Stacked shares of outcomes and of scores per language, and agreement with its intervals, as base64 PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    languages = report["verdicts"]["languages"]
    panels = 3 if report["gold"] or report["orders"] else 2
    figure = Figure(figsize=(4.2 * panels, 1.8 + 0.28 * len(languages)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels)
    _stacked(axes[0], {k: v["outcomes"] for k, v in languages.items()}, "outcomes", {"ok": "#9ab8d0"})
    _stacked(axes[1], {k: v["scores"] for k, v in languages.items()}, "scores of valid verdicts", {})
    if report["gold"]:
        rates = {k: v["accuracy"] for k, v in report["gold"]["languages"].items()}
        base = {k: v["baseline_constant"]["value"] for k, v in report["gold"]["languages"].items()}
        _intervals(axes[2], rates, "accuracy against people (x: constant answer)", base)
    elif report["orders"]:
        rates = {k: v["flip_rate"] for k, v in report["orders"]["languages"].items()}
        _intervals(axes[2], rates, "flip rate", {})
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


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
