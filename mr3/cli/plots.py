"""The report's plots, from metrics alone, as SVG data URIs that a page can hold.

Every function takes plain metrics and returns None where there is nothing to draw.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Metrics = Mapping[str, Any]
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#D55E00", "#009E73", "#CC3355", "#8A8A8A"
_CYCLE = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00")
_OUTCOMES = {
    "ok": GREEN,
    "parse_failed": ORANGE,
    "truncated": "#E69F00",
    "off_scale": "#CC79A7",
    "too_long": GREY,
    "engine_failed": RED,
}


def _new(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(True, color="#E4E4E4", linewidth=0.7)
        axis.set_axisbelow(True)
    return figure, list(axes)


def _uri(figure: Figure) -> str:
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "mr3"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()


def _error(rate: Metrics) -> list[list[float]]:
    """Distances of the interval's ends from the value, as errorbar wants them."""
    low, high = rate["interval"]
    return [[max(0.0, rate["value"] - low)], [max(0.0, high - rate["value"])]]


def _point(axis: Axes, x: float, y: float, rate: Metrics, colour: str, marker: str = "o", along: str = "x") -> None:
    if rate.get("value") is None:
        return
    error = {f"{along}err": _error(rate)} if rate.get("interval") else {}
    axis.errorbar(x, y, color=colour, marker=marker, markersize=5, linewidth=1.3, capsize=2, **error)


def learning_curves(curves: Mapping[str, Sequence[Metrics]]) -> str | None:
    """One panel per measure: the loss of all training stages, then what preference training logs beside it."""
    panels = [
        ("loss", "loss (log scale)"),
        ("mean_token_accuracy", "accuracy of the next token"),
        ("rewards/accuracies", "DPO: chosen above rejected"),
        ("rewards/margins", "DPO: reward margin"),
    ]
    wanted = [(key, title) for key, title in panels if any(key in row for c in curves.values() for row in c)]
    if not wanted:
        return None
    figure, axes = _new(3.4 * len(wanted), 2.9, len(wanted))
    for axis, (key, title) in zip(axes, wanted, strict=True):
        for colour, (name, curve) in zip(_CYCLE * 3, curves.items(), strict=False):
            rows = [row for row in curve if key in row]
            if rows:
                axis.plot([r["step"] for r in rows], [r[key] for r in rows], color=colour, label=name, linewidth=1.5)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("step", fontsize=9)
        axis.tick_params(labelsize=8)
        if key == "loss":
            axis.set_yscale("log")
        axis.legend(fontsize=7, frameon=False)
    return _uri(figure)


def accuracies(sets: Mapping[str, Metrics]) -> str | None:
    """Accuracy of every evaluation set, and of the heuristics on the pairwise set, with intervals."""
    rows: list[tuple[str, Metrics, str]] = []
    for name, found in sets.items():
        blind = name == "rubric_hidden"
        rows.append((f"baseline: {name}" if blind else name, found["accuracy"], GREY if blind else BLUE))
    for name, rate in (sets.get("pairwise") or {}).get("baselines", {}).items():
        rows.append((f"baseline: {name}", rate, GREY))
    if not rows:
        return None
    rows.sort(key=lambda row: (row[2] == BLUE, row[1]["value"] or 0.0))
    figure, (axis,) = _new(7.2, 0.8 + 0.3 * len(rows))
    for y, (_, rate, colour) in enumerate(rows):
        _point(axis, rate["value"] or 0.0, y, rate, colour)
        axis.text(1.03, y, f"{rate['value']:.3f}  (n={rate['n']})", fontsize=8, va="center")
    axis.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=8)
    axis.set_xlim(0, 1.02)
    axis.set_xlabel("accuracy, 95% interval", fontsize=9)
    return _uri(figure)


def accuracy_per_language(sets: Mapping[str, Metrics], modes: Sequence[str], unseen: str = "unseen") -> str | None:
    """A point per language and mode; languages that the judge never saw stand on the right, all modes together."""
    shown = [mode for mode in modes if mode in sets]
    if not shown:
        return None
    seen = sorted({code for mode in shown for code in sets[mode]["by_language"]})
    extra = sorted(sets[unseen]["by_language"]) if unseen in sets else []
    figure, (axis,) = _new(9.5, 3.1)
    markers = dict(zip(shown, "osD^v", strict=False))
    for k, mode in enumerate(shown):
        for x, code in enumerate(seen):
            rate = sets[mode]["by_language"].get(code)
            if rate is not None:
                _point(axis, x + 0.22 * (k - (len(shown) - 1) / 2), rate["value"], rate, _CYCLE[k], markers[mode], "y")
        axis.plot([], [], color=_CYCLE[k], marker=markers[mode], linestyle="", label=mode)
    for x, code in enumerate(extra, start=len(seen)):
        rate = sets[unseen]["by_language"][code]
        _point(axis, x, rate["value"], rate, GREY, "X", "y")
    if extra:
        axis.axvline(len(seen) - 0.5, color="#B0B0B0", linestyle=":")
        axis.plot([], [], color=GREY, marker="X", linestyle="", label="unseen languages, all modes")
    axis.set_xticks(range(len(seen) + len(extra)), [*seen, *extra], fontsize=9)
    axis.set_ylim(0, 1.03)
    axis.set_ylabel("accuracy, 95% interval", fontsize=9)
    axis.legend(fontsize=8, frameon=False, ncols=4, loc="lower left")
    return _uri(figure)


def label_outcomes(label: Metrics) -> str | None:
    """Two bars: what became of the verdicts, and of the comparisons made of them."""
    if not label.get("outcomes"):
        return None
    total, flips = label["comparisons"], label["flips"]
    comparisons = {
        "decided": (total - label["ties"] - label["failed_comparisons"], BLUE),
        "tie, both orders agree": (label["ties"] - flips, GREY),
        "tie, the orders disagree": (flips, ORANGE),
        "failed": (label["failed_comparisons"], RED),
    }
    figure, axes = _new(9.5, 1.9, 2)
    outcomes = {name: (label["outcomes"].get(name, 0), colour) for name, colour in _OUTCOMES.items()}
    for axis, title, parts in zip(axes, ("verdicts", "comparisons"), (outcomes, comparisons), strict=True):
        left = 0
        for name, (n, colour) in parts.items():
            if n > 0:
                axis.barh([0], [n], left=left, color=colour, label=f"{name}: {n}", height=0.5)
                left += n
        axis.set_title(f"{title}: {left}", fontsize=10, loc="left")
        axis.set_yticks([])
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return _uri(figure)


def pairs_per_language(label: Metrics) -> str | None:
    """Accuracy of the preference pairs by checkers, per language."""
    found = {code: row["pair_accuracy"] for code, row in label.get("languages", {}).items() if row.get("pair_accuracy")}
    if not found:
        return None
    figure, (axis,) = _new(9.5, 2.6)
    for x, rate in enumerate(found.values()):
        if rate["value"] is not None:
            _point(axis, x, rate["value"], rate, BLUE, along="y")
    axis.set_xticks(range(len(found)), [f"{code}\n{rate['n']}" for code, rate in found.items()], fontsize=8)
    axis.set_ylim(0, 1.03)
    axis.set_ylabel("chosen is truly better", fontsize=9)
    return _uri(figure)


def wins(policy: Metrics) -> str | None:
    """Win rate over the start per language, by checkers; the judge's own opinion of all beside it."""
    found: dict[str, tuple[Metrics, str]] = {
        code: (rate, BLUE) for code, rate in policy.get("win_rate_per_language", {}).items()
    }
    if not found:
        return None
    found["all"] = (policy["win_rate"], ORANGE)
    if "judge_win_rate" in policy:
        found["all,\nby judge"] = (policy["judge_win_rate"], GREY)
    figure, (axis,) = _new(9.5, 2.9)
    for x, (rate, colour) in enumerate(found.values()):
        if rate["value"] is not None:
            _point(axis, x, rate["value"], rate, colour, along="y")
    axis.axhline(0.5, color=RED, linestyle="--", linewidth=1)
    axis.text(-0.6, 0.505, "no better than the start", fontsize=8, color=RED, va="bottom")
    axis.set_xticks(range(len(found)), list(found), fontsize=9)
    axis.set_xlim(-0.7, len(found) - 0.3)
    axis.set_ylim(0, 1.03)
    axis.set_ylabel("win rate, ties half", fontsize=9)
    return _uri(figure)


def pass_rates(policy: Metrics) -> str | None:
    """Share of responses that meet each criterion, before and after."""
    before, after = policy.get("pass_rate_before"), policy.get("pass_rate_after")
    if not before or not after:
        return None
    figure, (axis,) = _new(7.2, 0.9 + 0.36 * len(before))
    for y, name in enumerate(reversed(before)):
        axis.plot([before[name]["value"], after[name]["value"]], [y, y], color="#C0C0C0", linewidth=2, zorder=1)
        _point(axis, before[name]["value"], y, before[name], GREY)
        _point(axis, after[name]["value"], y, after[name], BLUE)
    axis.plot([], [], "o", color=GREY, label="start")
    axis.plot([], [], "o", color=BLUE, label="after DPO")
    axis.set_yticks(range(len(before)), list(reversed(before)), fontsize=9)
    axis.set_xlim(0, 1)
    axis.set_xlabel("pass rate by checkers, 95% interval", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    return _uri(figure)


def differences(sets: Mapping[str, Mapping[str, Metrics]], baseline: str) -> str | None:
    """Per evaluation set and arm the paired difference of the score from the baseline arm."""
    rows = [
        (f"{name}: {arm}", row["difference"])
        for name, arms in sets.items()
        for arm, row in arms.items()
        if row.get("difference")
    ]
    if not rows:
        return None
    figure, (axis,) = _new(7.2, 0.9 + 0.32 * len(rows))
    for y, (_, difference) in enumerate(reversed(rows)):
        low, high = difference["interval"]
        _point(axis, difference["value"], y, difference, GREEN if low > 0 else RED if high < 0 else GREY)
    axis.axvline(0.0, color="#606060", linewidth=1)
    axis.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)], fontsize=8)
    axis.set_xlabel(f"score less that of {baseline}, 95% interval over seeds and contents", fontsize=9)
    return _uri(figure)
