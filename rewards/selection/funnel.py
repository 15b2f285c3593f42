"""The funnel: for every filter the pairs that went in and came out, per language, and why the others did not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any


class Funnel:
    """Counts pairs through filters that stand in a row."""

    def __init__(self) -> None:
        self._in: dict[str, Counter[str]] = {}
        self._dropped: dict[str, dict[str, Counter[str]]] = {}
        self._notes: dict[str, dict[str, Counter[str]]] = {}

    def add(self, step: str, language: str, came: int, dropped: Mapping[str, int]) -> None:
        """Count `came` pairs of a language that reached a filter, of which it dropped some, by reason."""
        assert sum(dropped.values()) <= came, f"{step} dropped more than came"
        self._in.setdefault(step, Counter())[language] += came
        self._dropped.setdefault(step, defaultdict(Counter))[language].update(dropped)

    def note(self, step: str, language: str, what: str, count: int) -> None:
        """Count something about pairs that a filter kept."""
        self._notes.setdefault(step, defaultdict(Counter))[language][what] += count

    @property
    def steps(self) -> list[str]:
        """The filters in their order."""
        return list(self._in)

    @property
    def languages(self) -> list[str]:
        """All languages that reached the first filter."""
        return sorted(set().union(*self._in.values())) if self._in else []

    def came(self, step: str, language: str) -> int:
        """Pairs of a language that reached a filter."""
        return self._in[step][language]

    def out(self, step: str, language: str) -> int:
        """Pairs of a language that passed a filter."""
        return self._in[step][language] - self._dropped[step][language].total()

    def report(self) -> list[dict[str, Any]]:
        """One entry per filter, in order: in, out, dropped by reason, and the same per language."""
        for one, after in zip(self.steps, self.steps[1:], strict=False):
            for language in self.languages:
                assert self.out(one, language) == self.came(after, language), (
                    f"pairs got lost between {one} and {after}"
                )
        return [
            {
                "filter": step,
                **self._entry(step, self.languages),
                "languages": {language: self._entry(step, [language]) for language in self.languages},
            }
            for step in self.steps
        ]

    def _entry(self, step: str, languages: list[str]) -> dict[str, Any]:
        dropped: Counter[str] = Counter()
        notes: Counter[str] = Counter()
        for language in languages:
            dropped.update(self._dropped[step][language])
            notes.update(self._notes.get(step, {}).get(language, {}))
        return {
            "in": sum(self.came(step, language) for language in languages),
            "out": sum(self.out(step, language) for language in languages),
            "dropped": {reason: n for reason, n in sorted(dropped.items()) if n},
            **{what: n for what, n in sorted(notes.items())},
        }


def funnel_tables(report: list[dict[str, Any]]) -> str:
    """The funnel as two Markdown tables: pairs left per language after each filter, and reasons."""
    if not report:
        return "No pair of responses was compared.\n"
    steps = [entry["filter"] for entry in report]
    lines = [
        f"| language | compared | {' | '.join(steps)} | left |",
        "| --- |" + " ---: |" * (len(steps) + 2),
    ]
    for language in [None, *report[0]["languages"]]:
        row = [entry if language is None else entry["languages"][language] for entry in report]
        start, left = row[0]["in"], row[-1]["out"]
        share = f"{left / start:.1%}" if start else "-"
        cells = [cell(language) if language else "**all**", str(start), *(str(r["out"]) for r in row), share]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| filter | pairs in | pairs out | dropped because | kept, but |",
        "| --- | ---: | ---: | --- | --- |",
    ]
    for entry in report:
        notes = {k: v for k, v in entry.items() if k not in ("filter", "in", "out", "dropped", "languages")}
        cells = [entry["filter"], str(entry["in"]), str(entry["out"]), _counts(entry["dropped"]), _counts(notes)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items()) or "-"


def cell(text: str) -> str:
    """Text that can't break a Markdown table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
