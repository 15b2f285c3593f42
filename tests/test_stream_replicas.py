"""Replicas share even a pool that one of them could take whole: the first to be ready leaves some for the others."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mr3.inference.session import ray_session
from mr3.inference.stream import StreamSettings, stream_groups

GROUPS, REPLICAS = 96, 2  # what one replica alone could have in its hands at once
LATER_S, WORK_S = 1.0, 3.0


class NamedWorker:
    """Answers every group with its process. The second one to start is ready when the first has had its first batch."""

    def __init__(self, folder: str) -> None:
        self._busy = Path(folder) / "busy"
        try:
            (Path(folder) / "first").mkdir()
        except FileExistsError:
            give_up = time.monotonic() + 60
            while not self._busy.exists() and time.monotonic() < give_up:
                time.sleep(0.05)
            time.sleep(LATER_S)

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._busy.touch()
        await asyncio.sleep(WORK_S)
        names = [str(os.getpid())] * len(batch["group"])
        return {"group": batch["group"], "payload": np.array(names, dtype=object)}


@pytest.mark.slow
def test_replicas_share_a_small_pool(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    groups = [str(i) for i in range(GROUPS)]
    pq.write_table(pa.table({"group": groups, "payload": ["{}"] * GROUPS}), pool / "part-0.parquet")
    settings = StreamSettings(replicas_min=REPLICAS, replicas_max=REPLICAS)
    with ray_session():
        found = list(stream_groups(pool, NamedWorker, {"folder": str(tmp_path)}, settings))
    assert sorted(g for g, _ in found) == sorted(groups)
    shares = Counter(name for _, name in found)
    assert len(shares) == REPLICAS and min(shares.values()) >= GROUPS / REPLICAS / 2, shares
