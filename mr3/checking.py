"""Ground-truth checkers: a plug-in that says which criteria a response meets, and the order a rubric makes of that.

A checker is named in configs as `package.module:function`, so that the library knows no world by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Checker = Callable[[dict[str, Any], str], dict[str, bool]]


def load_checker(path: str) -> Checker:
    """Import `package.module:function`; the function takes (meta, response) and returns criterion -> met.

    Raises:
        ValueError: when there is no such module or function.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise ValueError(f"checker {path!r} must look like package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"checker {path!r}: no module named {error.name}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"checker {path!r}: {module_name} has no function {name!r}")
    checker: Checker = found
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
