"""Coverage and order: (share of the rubric's criteria that the trace names) x (share of their pairs named in order).

Names come from the data's `criteria`, else from the rubric. With `until_decided` only the criteria up to the one that
decides are asked for: a judge of ranked criteria may stop there. A criterion counts as named where the beginning of a
word of its name occurs (as mr3.evaluation.traces.mentions has it). Words alone are cheap: a trace that lists the names
and looks at nothing earns full marks here, so give it beside `findings` or little weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import regex

from grpo_experiments.contract import Example, Group, Need, Term, Values
from mr3.evaluation.traces.mentions import flat, name_stems

_NO_BLANKS = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
"""Scripts that put nothing between words, so that a name may begin anywhere."""
_WORD_BEGINS = r"(?<![\p{L}\p{M}\p{N}])"


def first_named(name: str, trace: str) -> int | None:
    """Where a trace first names a criterion (a place in its folded text), or None."""
    places = []
    for stem in name_stems(name):
        begins = "" if _NO_BLANKS.match(stem) else _WORD_BEGINS
        found = regex.search(begins + regex.escape(stem), trace)
        if found:
            places.append(found.start())
    return min(places, default=None)


def coverage(names: Sequence[str], trace: str) -> float:
    """The share of names in the trace, times the share of pairs of named ones that come in order."""
    text = flat(trace)
    places = [place for name in names if (place := first_named(name, text)) is not None]
    pairs = list(combinations(places, 2))
    in_order = sum(a < b for a, b in pairs) / len(pairs) if pairs else 1.0
    return len(places) / len(names) * in_order


class Criteria(Term):
    """Pays for looking at the rubric's criteria in their order."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    until_decided: bool = True

    def _asked(self, example: Example) -> tuple[str, ...]:
        names = example.criteria or tuple(c.name for c in example.task.rubric.criteria)
        if self.until_decided and example.decided_by is not None and example.decided_by >= 0:
            return names[: example.decided_by + 1]
        return names

    def score(self, group: Group) -> Values:
        """None for a rubric without named criteria; 0 for a completion without a closed trace."""
        names = self._asked(group.example)
        if not names:
            return [None] * len(group.samples)
        return [coverage(names, s.trace) if s.trace else 0.0 for s in group.samples]


TERM = Criteria
