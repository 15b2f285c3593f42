"""Code that configs name: `package.module:name` is imported and run, so a config is as trusted as a program.

What no config can need is refused: the standard library holds no engine, checker or adapter, but it does hold
`os:system`.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from typing import Any

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _is_standard(module: str | None) -> bool:
    return (module or "").partition(".")[0] in sys.stdlib_module_names


def load_named(path: str, what: str) -> Callable[..., Any]:
    """The class or function that a config names as `package.module:name`.

    Args:
        what: the config's key, for messages.

    Raises:
        ValueError: for another form, a module or name that is not there, something that can't be called, or code of
            the standard library, also where another module only passes it on.
    """
    if not _PATH.fullmatch(path):
        raise ValueError(f"{what} {path!r} must look like package.module:name")
    module = path.partition(":")[0]
    standard = f"{what} {path!r} is of Python's standard library, and no config runs that: name a function of your own"
    if _is_standard(module):
        raise ValueError(standard)
    try:
        found: Any = pkgutil.resolve_name(path)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"can't load {what} {path!r}: {error}") from error
    if (inspect.isroutine(found) or inspect.isclass(found)) and _is_standard(found.__module__):
        raise ValueError(standard)
    if not callable(found):
        raise ValueError(f"{what} {path!r} is a {type(found).__name__}, not a function or class")
    named: Callable[..., Any] = found
    return named
