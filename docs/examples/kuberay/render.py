"""Print a Kubernetes manifest with its ${VARIABLES} filled in: `python render.py FILE | kubectl apply -f -`.

A variable that is not set, or empty, is an error that names all of them: nothing is applied half filled in.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

VARIABLE = re.compile(r"\$\{(\w+)\}")


def main(arguments: list[str]) -> int:
    """2 for a wrong call or a missing variable."""
    if len(arguments) != 1:
        print("usage: python render.py FILE | kubectl apply -f -", file=sys.stderr)
        return 2
    text = Path(arguments[0]).read_text(encoding="utf-8")
    missing = sorted({name for name in VARIABLE.findall(text) if not os.environ.get(name)})
    if missing:
        print(f"error: set {', '.join(missing)} (the head of {arguments[0]} says what they are)", file=sys.stderr)
        return 2
    print(VARIABLE.sub(lambda match: os.environ[match.group(1)], text), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
