"""Python's cycle collector in processes that work through many rows."""

from __future__ import annotations

import gc


def tune_gc() -> None:
    """Look for cycles rarely, and never among what is there now: rows make none, and imports leave a million objects.

    Without it a collection comes every 700 objects, a few rows.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
