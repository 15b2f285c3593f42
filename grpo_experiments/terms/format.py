"""1 for an answer exactly as the judge's card asks: one closed trace, one object, its two keys, a legal score.

Read by the card's own parser before any repair: what would have to be mended, what stands in front of or behind the
object, and what was cut off earn 0. As a gate it withholds all other credit (no credit without format).
"""

from __future__ import annotations

from grpo_experiments.contract import Group, Term, Values


class Format(Term):
    """Strict format."""

    def score(self, group: Group) -> Values:
        """Always measured: a completion has the format or it has not."""
        return [
            float(s.ok and not s.parsed.repaired and bool((s.parsed.explanation or "").strip())) for s in group.samples
        ]


TERM = Format
