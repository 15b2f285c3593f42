"""Starts HAProxy as Ray Serve asks for it, closed to others and not outliving Ray; run as a program, without packages.

Ray Serve (2.60) writes HAProxy's settings and starts a process anew whenever replicas come or go. Three things it
leaves to whoever runs it: HAProxy's own pages (statistics, metrics) listen on all interfaces, without a key; a request
may take for ever to arrive; and where Ray is killed, HAProxy lives on and holds its ports.
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
_DEFAULTS = re.compile(r"^defaults[ \t]*\n", re.MULTILINE)
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl(2); it outlasts exec


def close_pages(settings: str) -> str:
    """Have what listens on any interface listen on the loopback one; where the user names a host, it stays."""
    return _ANY_INTERFACE.sub(r"\g<1>127.0.0.1:", settings)


def bound_requests(settings: str, seconds: int) -> str:
    """Wait for a whole request (or a full buffer of it) before a replica hears of it, but only so many seconds."""
    return _DEFAULTS.sub(rf"\g<0>    option http-buffer-request\n    timeout http-request {seconds}s\n", settings)


def end_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent ends; if it has ended already, end now."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit("whoever started HAProxy has ended")


def main(argv: Sequence[str]) -> None:
    """`argv`: seconds that a request may take to arrive, HAProxy's path, its arguments (settings end in .cfg)."""
    parent, seconds, command = os.getppid(), int(argv[0]), list(argv[1:])
    for word in command:
        if word.endswith(".cfg"):
            settings = Path(word)
            settings.write_text(bound_requests(close_pages(settings.read_text()), seconds))
    end_with_parent(parent)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
