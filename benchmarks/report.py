"""The README's table of results, made from the stored result files between two marks, so that it can't drift."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.registry import bar_of, numbers

BEGIN = "<!-- results: written by `make results`, do not edit -->"
END = "<!-- end of results -->"


def _number(value: float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _machine(record: Mapping[str, Any]) -> str:
    found = record["machine"]
    return found["accelerator"] or f"{found['cores']} cores, {found['memory_gb']:.0f} GB"


def _interval(record: Mapping[str, Any], name: str) -> str:
    interval = record["interval"]
    if isinstance(interval, Mapping):
        interval = interval.get(name)
    return f"{interval[0]:.3g} – {interval[1]:.3g}" if interval else ""


def table(records: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: one row per number; nothing without results."""
    records = list(records)
    if not records:
        return ""
    lines = ["| figure | value | 95% | bar | n | machine | command |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for record in records:
        for name, value in numbers(record["value"]).items():
            bar = bar_of(record, name)
            shown = f"{bar}{'' if bar.met_by(value) else ' **(missed)**'}" if bar else ""
            figure = f"{record['name']}{': ' + name if name else ''}"
            cells = (figure, _number(value), _interval(record, name), shown, record["n"] or "", _machine(record))
            lines.append("| " + " | ".join(map(str, cells)) + f" | `{record['command']}` |")
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
