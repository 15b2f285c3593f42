"""`mr3 report RUN`: summary.json and a self-contained report.html of a demo's run folder.

Reads only what stands there: demo.json (which stages and figures), timing.json, and the stages' metrics,
examples and preferences.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from mr3.artifacts import git_commit, read_json, write_atomic, write_json
from mr3.cli import plots
from mr3.cli.summary import DEMO, Row, RunRecord, all_metrics, build_summary, text_table

_PREFERENCES = 8
_MODES = ("pairwise", "pointwise", "binary")


class Pieces:
    """The stages of one run by kind; a run may lack any of them."""

    def __init__(self, record: RunRecord, metrics: Mapping[str, Any]) -> None:
        self._record, self._metrics = record, metrics

    def of(self, *kinds: str) -> dict[str, Any]:
        """Metrics of the finished stages of these kinds."""
        names = [name for name, stage in self._record.stages.items() if stage.stage in kinds]
        return {name: self._metrics[name] for name in names if name in self._metrics}

    def main_eval(self) -> tuple[str | None, Mapping[str, Any]]:
        """The evaluation with the most sets, which is the judge's (a base is asked less)."""
        found = {name: m for name, m in self.of("eval").items() if "sets" in m}  # several judges have theirs below
        if not found:
            return None, {}
        name = max(found, key=lambda n: len(found[n]["sets"]))
        return name, found[name]["sets"]

    def folder(self, kind: str) -> Path | None:
        """Folder of the first finished stage of a kind."""
        return next((self._record.stages[name].folder for name in self.of(kind)), None)

    def examples(self) -> list[dict[str, Any]]:
        """examples.json of the main evaluation."""
        name, _ = self.main_eval()
        file = self._record.stages[name].folder / "examples.json" if name else Path()
        found: list[dict[str, Any]] = read_json(file) if file.is_file() else []
        return found


def figures(pieces: Pieces) -> list[tuple[str, str, str | None]]:
    """(title, what it shows, data URI) of every plot."""
    curves = {name: m["curve"] for name, m in pieces.of("sft", "dpo").items() if m.get("curve")}
    _, sets = pieces.main_eval()
    label: Mapping[str, Any] = next(iter(pieces.of("label").values()), {})
    policy: Mapping[str, Any] = next(iter(pieces.of("policy-eval").values()), {})
    return [
        ("Learning curves", "Every training stage of this run.", plots.learning_curves(curves)),
        (
            "The judge against baselines",
            "Held-out contents. The grey ones must fail: they do not read the rubric, or only its first criterion.",
            plots.accuracies(sets),
        ),
        (
            "Accuracy per language and mode",
            "Right of the line: languages that no judge row was written in.",
            plots.accuracy_per_language(sets, _MODES),
        ),
        (
            "What labelling made of the pool",
            "Both orders are judged; a disagreement is a tie, and neither ties nor failures make a pair.",
            plots.label_outcomes(label),
        ),
        (
            "Are the preference pairs right?",
            "By checkers, on text that policies wrote; the number of pairs stands under each language.",
            plots.pairs_per_language(label),
        ),
        (
            "Wins of the DPO policy over its start",
            "Better under the house rubric, by checkers, on held-out prompts.",
            plots.wins(policy),
        ),
        ("What DPO changed", "Per criterion, by checkers.", plots.pass_rates(policy)),
    ]


def examples(pieces: Pieces) -> list[dict[str, Any]]:
    """Verdicts in full, as the evaluation kept them."""
    return [{**row, "input": _text(row["input"])} for row in pieces.examples()]


def _text(value: str | list[dict[str, str]]) -> str:
    return value if isinstance(value, str) else "\n".join(f"{m['role']}: {m['content']}" for m in value)


def preferences(pieces: Pieces) -> list[dict[str, str]]:
    """A few preference pairs, each in another language."""
    folder = pieces.folder("label")
    if folder is None or not (folder / "preferences.parquet").is_file():
        return []
    import pyarrow.parquet as pq

    columns = ["language", "prompt", "chosen", "rejected", "chosen_policy", "rejected_policy"]
    table = pq.read_table(folder / "preferences.parquet", columns=columns)
    seen: dict[str, dict[str, str]] = {}
    for row in table.to_pylist():
        texts = {key: row[key][-1]["content"] for key in ("prompt", "chosen", "rejected")}
        seen.setdefault(row["language"], {**row, **texts})
        if len(seen) == _PREFERENCES:
            break
    return list(seen.values())


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted key, value) of all leaves; a rate is a leaf."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and "value" not in value:
            yield from flat(value, f"{name}.")
        elif not isinstance(value, list):
            yield name, value


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _figure_row(name: str, value: Any, bars: Mapping[str, Row]) -> dict[str, Any]:
    rate = value if isinstance(value, Mapping) else {"value": value}
    interval = rate.get("interval")
    bar = bars.get(name)
    return {
        "name": name,
        "value": _shown(rate["value"]),
        "n": rate.get("n", ""),
        "interval": f"{interval[0]:.3f} – {interval[1]:.3f}" if interval else "",
        "bar": str(bar.bar) if bar else "",
        "met": bar.met if bar else None,
    }


def write_report(folder: Path, begun: float) -> list[Row]:
    """Write summary.json, bars.txt and report.html; returns the bars.

    Raises:
        ValueError: when the folder is no demo's run.
    """
    file = folder / "demo.json"
    if not file.is_file():
        raise ValueError(f"{folder} is not the run folder of a demo (no demo.json): run `mr3 demo` first")
    record = RunRecord.model_validate(read_json(file))
    timing = read_json(folder / "timing.json") if (folder / "timing.json").is_file() else {}
    wall_s = {**timing.get("stages", {}), "total": timing.get("total", 0.0)}
    metrics = all_metrics(record, {"wall_s": wall_s, "peak_rss_gb": timing.get("peak_rss_gb")})
    pieces = Pieces(record, metrics)
    plotted = figures(pieces)
    wall_s["report"] = round(time.monotonic() - begun, 2)  # nearly all of it is the plots
    wall_s["total"] = round(wall_s["total"] + wall_s["report"], 2)
    summary, rows = build_summary(record, metrics | {DEMO: metrics[DEMO] | {"wall_s": wall_s}})
    page = _page(folder, record, summary, rows, plotted, pieces)
    write_atomic(folder / "report.html", page.encode())
    write_atomic(folder / "bars.txt", (text_table(rows) + "\n").encode())
    write_json(folder / "summary.json", summary)
    return rows


def _page(
    folder: Path,
    record: RunRecord,
    summary: Mapping[str, Any],
    rows: Sequence[Row],
    plotted: Sequence[tuple[str, str, str | None]],
    pieces: Pieces,
) -> str:
    from jinja2 import Environment

    source = (resources.files("mr3.cli") / "report.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    bars = {row.key: row for row in rows}
    return template.render(
        run=folder.name,
        seed=record.seed,
        commit=git_commit(),
        notes=record.notes,
        missed=[row.key for row in rows if not row.met],
        bars=len(rows),
        plots=[p for p in plotted if p[2]],
        figures=[_figure_row(name, value, bars) for name, value in flat(summary) if name != "seed"],
        examples=examples(pieces),
        preferences=preferences(pieces),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 report [RUN]`."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(prog="mr3 report", description=(__doc__ or "").strip())
    parser.add_argument("run", nargs="?", default="runs/demo", help="run folder of a demo")
    folder = Path(parser.parse_args(argv).run)
    try:
        rows = write_report(folder, begun)
    except ValueError as error:
        print(f"mr3 report: error: {error}", file=sys.stderr)
        return 2
    print(text_table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
