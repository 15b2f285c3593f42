"""The funnel: rows in and out of every filter, by language and source, and the reason of every row that went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Filter:
    """Counts of one filter. Every row that comes in is kept, or dropped for one reason."""

    name: str
    kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    details: dict[str, Any] = field(default_factory=dict)

    def keep(self, language: str, source: str, rows: int = 1) -> None:
        """Rows that go on."""
        self.kept[language, source] += rows

    def drop(self, reason: str, language: str, source: str, rows: int = 1) -> None:
        """Rows that do not."""
        self.dropped[reason, language, source] += rows

    @property
    def rows_out(self) -> int:
        """Rows that went on."""
        return self.kept.total()

    @property
    def rows_in(self) -> int:
        """Rows that came."""
        return self.kept.total() + self.dropped.total()

    def as_json(self) -> dict[str, Any]:
        """For artifacts: `read` gives the same counts back."""
        return {
            "name": self.name,
            "kept": [[*key, n] for key, n in sorted(self.kept.items())],
            "dropped": [[*key, n] for key, n in sorted(self.dropped.items())],
            "details": self.details,
        }

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Filter:
        """From `as_json`."""
        kept = Counter({(language, source): n for language, source, n in given["kept"]})
        dropped = Counter({(reason, language, source): n for reason, language, source, n in given["dropped"]})
        return cls(given["name"], kept, dropped, dict(given["details"]))

    def report(self) -> dict[str, Any]:
        """In and out, in all and by language and source, and the reasons."""
        reasons: Counter[str] = Counter()
        by: dict[str, dict[str, dict[str, int]]] = {"languages": {}, "sources": {}}
        for (language, source), n in self.kept.items():
            _count(by, language, source, n, n)
        for (reason, language, source), n in self.dropped.items():
            reasons[reason] += n
            _count(by, language, source, n, 0)
        sorted_by = {kind: dict(sorted(table.items())) for kind, table in by.items()}
        counts = {"in": self.rows_in, "out": self.rows_out, "dropped": dict(reasons.most_common())}
        return {"filter": self.name, **counts, **sorted_by, **self.details}


def _count(by: dict[str, dict[str, dict[str, int]]], language: str, source: str, came: int, left: int) -> None:
    for kind, name in (("languages", language), ("sources", source)):
        row = by[kind].setdefault(name, {"in": 0, "out": 0})
        row["in"] += came
        row["out"] += left


def check_funnel(filters: Iterable[Filter]) -> None:
    """What goes out of one filter comes into the next, by language and source: no row is lost between them."""
    before: Filter | None = None
    for one in filters:
        if before is not None:
            came: Counter[tuple[str, str]] = Counter(one.kept)
            for (_, language, source), n in one.dropped.items():
                came[language, source] += n
            assert came == before.kept, f"rows were lost or doubled between {before.name} and {one.name}"
        before = one


def table(filters: Iterable[Filter]) -> str:
    """The funnel as a small Markdown table."""
    lines = ["| filter | rows in | rows out | dropped for |", "| --- | ---: | ---: | --- |"]
    for one in filters:
        report = one.report()
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in report["dropped"].items())
        lines.append(f"| {one.name} | {report['in']:,} | {report['out']:,} | {reasons} |")
    return "\n".join(lines) + "\n"
