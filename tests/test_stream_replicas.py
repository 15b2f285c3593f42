"""Replicas share even a pool of a few hundred groups: none has all of it in its queue while another is idle."""

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

GROUPS, REPLICAS = 576, 2


class NamedWorker:
    """Answers every group with its process; ready once all replicas are."""

    def __init__(self, meet: str) -> None:
        (Path(meet) / str(os.getpid())).touch()
        give_up = time.monotonic() + 60
        while len(list(Path(meet).iterdir())) < REPLICAS and time.monotonic() < give_up:
            time.sleep(0.05)

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.5)
        names = [str(os.getpid())] * len(batch["group"])
        return {"group": batch["group"], "payload": np.array(names, dtype=object)}


@pytest.mark.slow
def test_replicas_share_a_small_pool(tmp_path: Path) -> None:
    pool, meet = tmp_path / "pool", tmp_path / "meet"
    pool.mkdir()
    meet.mkdir()
    groups = [str(i) for i in range(GROUPS)]
    pq.write_table(pa.table({"group": groups, "payload": ["{}"] * GROUPS}), pool / "part-0.parquet")
    settings = StreamSettings(replicas_min=REPLICAS, replicas_max=REPLICAS)
    with ray_session():
        found = list(stream_groups(pool, NamedWorker, {"meet": str(meet)}, settings))
    assert sorted(g for g, _ in found) == sorted(groups)
    shares = Counter(name for _, name in found)
    assert len(shares) == REPLICAS and min(shares.values()) >= GROUPS / REPLICAS / 2, shares
