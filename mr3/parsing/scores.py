"""Which label a score value means: exactly one legal label after the documented repairs, or none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from mr3.parsing.plain import EDGES, plain

_SIDES = (("Assistant A", "Assistant B"), ("Response A", "Response B"), ("Response 1", "Response 2"), ("A", "B"))
_NAMES = ("assistant ", "response ")
_ABOVE = ">"


class Number(str):
    """A JSON number as it was written: a float would round 4.0000000000000001 into a legal score."""

    __slots__ = ()


@lru_cache(maxsize=1024)
def _table(labels: tuple[str, ...]) -> tuple[Mapping[str, str | None], bool]:
    """Comparable form -> label (None where two labels share a form), and whether the labels are rankings."""
    rankings = bool(labels) and all(f" {_ABOVE} " in label for label in labels)
    table: dict[str, str | None] = {}
    for label in labels:
        form = _ranking(plain(label)) if rankings else plain(label)
        table[form] = None if form in table else label
    return table, rankings


def _ranking(text: str) -> str:
    """An order of responses in the form `a > b > c`; other text is returned in a form that no label has.

    `Assistant A > Assistant B` and `Response 1 > Response 2` name their responses. Bare numbers do not: `2 > 1` may be
    an order or two scores, so they stay as they are.
    """
    items = [item.strip(EDGES) for item in text.split(_ABOVE)]
    for name in _NAMES:
        if all(item.startswith(name) for item in items):
            items = [item.removeprefix(name).strip(EDGES) for item in items]
            if all(len(item) == 1 and item in "12345" for item in items):
                items = ["abcde"[int(item) - 1] for item in items]
            break
    return f" {_ABOVE} ".join(items)


def legal(value: str | bool, labels: tuple[str, ...], *, typed: bool = False) -> tuple[str | None, bool]:
    """The label that a score value means and whether reading it took a repair; (None, True) if it means none.

    `typed`: numbers and booleans are how the format writes scores, so they are no repair.
    """
    if type(value) is str and value in labels:
        return value, False
    native = typed and type(value) is not str
    text = str(value).lower() if isinstance(value, bool) else str(value)
    table, rankings = _table(labels)
    form = plain(text)
    label = table.get(_ranking(form) if rankings else form)
    return label, label is None or not (native and text == label)


def side(first: bool, labels: tuple[str, ...]) -> str | None:
    """The label of the first or the second of two responses; None when the labels name no sides, or several."""
    known = set(labels)
    found = [pair for pair in _SIDES if known.issuperset(pair)]
    return found[0][0 if first else 1] if len(found) == 1 else None
