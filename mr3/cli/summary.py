"""summary.json of a demo: its figures by name, taken from the stages' metrics.json, each against its bar.

Which figures there are, where they stand and what their bars are is data (`figures:` in the demo's config).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from mr3.artifacts import read_json

DEMO = "demo"
"""The name under which the demo's own numbers (wall_s, peak_rss_gb) are found."""


class Bar(BaseModel):
    """What a figure must reach; for a group of figures (one per language) every member must."""

    model_config = ConfigDict(extra="forbid")

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    low_above: float | None = Field(None, description="the low end of the interval is above this")
    high_at_least: float | None = Field(None, description="the high end of the interval is no lower: no proven fall")

    def __str__(self) -> str:
        words = {"at_least": "≥", "at_most": "≤", "above": ">", "low_above": "low end >", "high_at_least": "high end ≥"}
        return ", ".join(f"{words[k]} {v:g}" for k, v in self.model_dump(exclude_none=True).items())

    def met_by(self, value: float | None, interval: tuple[float, float] | None) -> bool:
        """Whether one number reaches the bar; a missing number or interval does not."""
        if value is None:
            return False
        low, high = interval if interval is not None else (float("nan"), float("nan"))
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.low_above is None or low > self.low_above)
            and (self.high_at_least is None or high >= self.high_at_least)
        )


class Figure(BaseModel):
    """Where a figure stands: a stage's name and a path in its metrics (`*` stands for every key)."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    at: str
    bar: Bar | None = None


class StageFolder(BaseModel):
    """One stage of a run."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    folder: Path


class RunRecord(BaseModel):
    """demo.json: what a report needs to know of a run."""

    model_config = ConfigDict(extra="forbid")

    seed: int
    stages: dict[str, StageFolder]
    figures: dict[str, Figure]
    notes: list[str] = Field(default_factory=list)


class Row(NamedTuple):
    """One number against its bar."""

    key: str
    value: float | None
    interval: tuple[float, float] | None
    n: int | None
    bar: Bar
    met: bool


def look_up(metrics: Any, path: str) -> Any:
    """The value at a dotted path, None where there is none; `a.*.b` gives a mapping from the keys at `*`."""
    head, _, rest = path.partition(".")
    if not isinstance(metrics, Mapping):
        return None
    if head == "*":
        found = {key: look_up(value, rest) if rest else value for key, value in metrics.items()}
        return {key: value for key, value in found.items() if value is not None} or None
    if head not in metrics:
        return None
    return look_up(metrics[head], rest) if rest else metrics[head]


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of nested dicts."""
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[leaf] = value


def rates(value: Any, key: str) -> Iterator[tuple[str, float | None, tuple[float, float] | None, int | None]]:
    """(key, value, interval, n) of a number, a rate, or all members of a mapping of these."""
    if isinstance(value, Mapping) and "value" in value:
        interval = value.get("interval")
        yield key, value["value"], (interval[0], interval[1]) if interval else None, value.get("n")
    elif isinstance(value, Mapping):
        for name, member in value.items():
            yield from rates(member, f"{key}.{name}")
    else:
        yield key, None if value is None else float(value), None, None


def bar_rows(figures: Mapping[str, Figure], found: Mapping[str, Any]) -> list[Row]:
    """Every number that has a bar."""
    rows = []
    for key, figure in figures.items():
        if figure.bar is None:
            continue
        for name, value, interval, n in rates(found[key], key):
            rows.append(Row(name, value, interval, n, figure.bar, figure.bar.met_by(value, interval)))
    return rows


def all_metrics(record: RunRecord, own: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json of every stage that has one, by the stage's name; `own` are the demo's numbers."""
    found: dict[str, Any] = {DEMO: dict(own)}
    for name, stage in record.stages.items():
        file = stage.folder / "metrics.json"
        if file.is_file():
            found[name] = read_json(file)
    return found


def build_summary(record: RunRecord, metrics: Mapping[str, Any]) -> tuple[dict[str, Any], list[Row]]:
    """summary.json (figures as nested keys, then `bars` and `seed`) and the rows of the bars."""
    found = {key: look_up(metrics.get(figure.stage), figure.at) for key, figure in record.figures.items()}
    summary: dict[str, Any] = {"seed": record.seed}
    for key, value in found.items():
        put(summary, key, value)
    rows = bar_rows(record.figures, found)
    summary["bars"] = [
        {"key": r.key, "value": r.value, "bar": r.bar.model_dump(exclude_none=True), "met": r.met} for r in rows
    ]
    return summary, rows


def text_table(rows: list[Row]) -> str:
    """The bars for the terminal, missed ones marked."""
    width = max((len(r.key) for r in rows), default=0)
    lines = []
    for r in rows:
        value = "missing" if r.value is None else f"{r.value:.4g}"
        interval = f"[{r.interval[0]:.3f}, {r.interval[1]:.3f}]" if r.interval else ""
        lines.append(f"  {'ok  ' if r.met else 'MISS'} {r.key:<{width}} {value:>8} {interval:<16} {r.bar}")
    return "\n".join(lines)
