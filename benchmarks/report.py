"""The table of results in benchmarks/README.md, made from the stored files between two marks: it can't drift."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.registry import bar_of, numbers

BEGIN = "<!-- results: written by `make results`, do not edit -->"
END = "<!-- end of results -->"
MOST = 12
"""Numbers that one row of the table holds."""


def _number(value: float | int | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _machine(record: Mapping[str, Any]) -> str:
    found = record["machine"]
    return found["accelerator"] or f"{found['cores']} cores, {found['memory_gb']:.0f} GB"


def _interval(record: Mapping[str, Any], name: str) -> str:
    """Of one number; an interval without a name is that of the first number."""
    interval = record["interval"]
    if isinstance(interval, Mapping):
        interval = interval.get(name)
    elif name != next(iter(numbers(record["value"]))):
        interval = None
    return f" [{interval[0]:.3g}, {interval[1]:.3g}]" if interval else ""


def _measured(record: Mapping[str, Any], name: str, value: float | int | None) -> str:
    bar = bar_of(record, name)
    shown = f"{name} {_number(value)}".strip() + _interval(record, name)
    if bar is None:
        return shown
    return f"{shown} ({bar})" if bar.met_by(value) else f"**{shown} ({bar}: missed)**"


def _results(record: Mapping[str, Any]) -> str:
    """All numbers; of a long list those that miss their bar, and how many there are."""
    values = numbers(record["value"])
    if len(values) <= MOST:
        return "; ".join(_measured(record, name, value) for name, value in values.items())
    bars = {name: bar for name in values if (bar := bar_of(record, name)) is not None}
    missed = [name for name, bar in bars.items() if not bar.met_by(values[name])]
    words = [f"{len(bars) - len(missed)} of {len(bars)} bars met", *(_measured(record, n, values[n]) for n in missed)]
    return "; ".join(words)


def table(records: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: one row per benchmark; nothing without results."""
    records = list(records)
    if not records:
        return ""
    lines = ["| `python -m benchmarks ...` | what | measured (bar) | n | machine |", "| --- | --- | --- | --- | --- |"]
    for record in records:
        cells = (f"`{record['name']}`", record["about"], _results(record), record["n"] or "", _machine(record))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def rewrite(readme: Path, records: Iterable[Mapping[str, Any]]) -> bool:
    """Replace what stands between the marks; False when the marks are not there."""
    text = readme.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        print(f"{readme} has no results marks: put {BEGIN!r} and {END!r} where the table belongs", file=sys.stderr)
        return False
    readme.write_text(f"{head}{BEGIN}\n{table(records)}\n{END}{tail}", encoding="utf-8")
    return True
