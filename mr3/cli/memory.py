"""The peak of resident memory of this process and everything under it, sampled in a thread."""

from __future__ import annotations

import threading
from types import TracebackType

_EVERY_S = 1.0


def tree_rss_gb() -> float:
    """Resident memory of the process tree in 1e9 bytes; pages that processes share count for each of them."""
    import psutil

    total = 0
    root = psutil.Process()
    for process in (root, *root.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # ended since it was listed
            continue
    return total / 1e9


class PeakMemory:
    """`with PeakMemory() as peak: ...; peak.gb`."""

    def __init__(self) -> None:
        self.gb = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def _sample(self) -> None:
        while not self._end.wait(_EVERY_S):
            self.gb = max(self.gb, tree_rss_gb())

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
