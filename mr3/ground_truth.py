"""Ground-truth checkers: a plug-in that says which criteria a response meets, and the order a rubric makes of that.

A checker is named in configs as `package.module:function`, so that the library knows no world by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mr3.importing import load_named

Checker = Callable[[dict[str, Any], str], dict[str, bool]]


def load_checker(path: str) -> Checker:
    """Import `package.module:function`; the function takes (meta, response) and returns criterion -> met.

    Raises:
        ValueError: as `load_named`.
    """
    checker: Checker = load_named(path, "checker")
    return checker


def compare(criteria: Sequence[str], checks_a: Mapping[str, bool], checks_b: Mapping[str, bool]) -> int:
    """1 if a is truly better, -1 if b is, 0 for a tie: the first criterion on which they differ decides.

    Raises:
        ValueError: when the checker knows nothing of a criterion.
    """
    for name in criteria:
        if name not in checks_a or name not in checks_b:
            known = ", ".join(sorted({*checks_a, *checks_b}))
            raise ValueError(f"the checker does not know the criterion {name!r} (it knows: {known})")
        if checks_a[name] != checks_b[name]:
            return 1 if checks_a[name] else -1
    return 0
