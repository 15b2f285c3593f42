"""The table of results for people: Markdown for a terminal or a README, HTML for a browser."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_HEAD = ("set", "judge", "figure", "mean", "std over seeds", "95% interval", "items", "failed", "flips", "rubric flip")
_GAPS = ("set", "judge", "against", "difference", "95% interval", "resampled over")
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.3rem .7rem;border-bottom:1px solid #ccc;text-align:left}"
)


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _span(interval: list[float] | None) -> str:
    return "-" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            row["set"],
            row["judge"],
            row["metric"],
            _number(row["value"]),
            "one run" if row["std"] is None else f"{_number(row['std'])} of {row['seeds']}",
            _span(row["interval"]),
            str(row["n"]),
            _number(row["failed_before_repair"]),
            _number(row["flip_rate"]),
            _number(row["rubric_flip"]),
        )
        for row in found["table"]
    ]


def _gaps(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (d["set"], d["judge"], d["from"], f"{d['value']:+.3f}", _span(d["interval"]), d["over"])
        for d in found["differences"]
    ]


def _means(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [(judge, _number(mean["value"]), ", ".join(mean["sets"])) for judge, mean in found["averages"].items()]


def _tables(found: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    tables: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = [("Results", _HEAD, _rows(found))]
    if len(found["averages"]) > 1:
        tables.append(("Mean over sets that every judge has", ("judge", "mean", "sets"), _means(found)))
        tables.append(("Paired differences, same items", _GAPS, _gaps(found)))
    return tables


def markdown(found: Mapping[str, Any]) -> str:
    """The tables of `mr3.evaluation.results.combined` as Markdown."""
    blocks = []
    for title, head, rows in _tables(found):
        lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        blocks.append(f"## {title}\n\n" + "\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def html_page(found: Mapping[str, Any]) -> str:
    """The same as one self-contained page."""
    parts = []
    for title, head, rows in _tables(found):
        heading = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<h2>{escape(title)}</h2><table><tr>{heading}</tr>{body}</table>")
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Results</title><style>{_STYLE}</style>"
    return f"{page}<h1>Judges on labelled tasks</h1>{''.join(parts)}</html>\n"
