"""A stage that the demo started ends with it, even when the demo is killed without warning.

Otherwise the same command, given again, would find the old stage still writing into its folder.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT = "MR3_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the process named in MR3_PARENT_PID ends (Linux; elsewhere nothing)."""
    parent = os.environ.pop(PARENT, None)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before the kernel knew
        raise SystemExit(143)
