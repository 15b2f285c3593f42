"""Starts HAProxy as Ray Serve asks for it, closed to others and not outliving Ray; run as a program, without packages.

Ray Serve (2.60) writes HAProxy's settings and starts a process anew whenever replicas come or go. Two things it leaves
to whoever runs it: HAProxy's own pages (statistics, metrics) listen on all interfaces, without a key; and where Ray is
killed, HAProxy lives on and holds its ports.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_ANY_INTERFACE = re.compile(r"^(\s*bind )\*?:(?=\d)", re.MULTILINE)
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl(2); it outlasts exec


def close_pages(settings: Path) -> None:
    """Have what listens on any interface listen on the loopback one; where the user names a host, it stays."""
    settings.write_text(_ANY_INTERFACE.sub(r"\g<1>127.0.0.1:", settings.read_text()))


def end_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent ends; if it has ended already, end now."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit("whoever started HAProxy has ended")


def main(argv: Sequence[str]) -> None:
    """`argv`: HAProxy's path and its arguments, of which those that end in .cfg are its settings."""
    parent = os.getppid()
    for word in argv:
        if word.endswith(".cfg"):
            close_pages(Path(word))
    end_with_parent(parent)
    os.execv(argv[0], list(argv))


if __name__ == "__main__":
    main(sys.argv[1:])
