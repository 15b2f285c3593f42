"""Groups in files, cut into batches: every group once, in order, whatever the sizes of the files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr3.inference.session import ray_session
from mr3.inference.slices import Slices
from mr3.inference.stream import StreamSettings, stream_groups


def _write(folder: Path, sizes: list[int]) -> list[tuple[str, str]]:
    """Files of these sizes; all their groups in order."""
    groups = [(f"g{i}", f'{{"n": {i}, "é": "\ud55c"}}') for i in range(sum(sizes))]
    rest = iter(groups)
    for number, size in enumerate(sizes):
        rows = [next(rest) for _ in range(size)]
        table = pa.table({"payload": [p for _, p in rows], "other": [0] * size, "group": [g for g, _ in rows]})
        pq.write_table(table, folder / f"part-{number:03d}.parquet", row_group_size=3)
    return groups


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), rows=st.integers(1, 12))
def test_batches_in_order_are_the_files_in_order(sizes: list[int], rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        groups = _write(Path(folder), sizes)
        slices = Slices.of(folder, rows)
        batches = [slices.read(i) for i in range(len(slices))]
    assert [pair for b in batches for pair in zip(b["group"], b["payload"], strict=True)] == groups
    assert all(len(b["group"]) == rows for b in batches[:-1])
    assert len(batches) == -(-len(groups) // rows)


def test_one_file_or_its_folder(tmp_path: Path) -> None:
    _write(tmp_path, [5])
    assert Slices.of(tmp_path / "part-000.parquet", 2).read(2) == {"group": ["g4"], "payload": ['{"n": 4, "é": "한"}']}
    assert len(Slices.of(tmp_path, 2)) == 3


def test_a_folder_without_parts_is_named(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=str(place)):
            Slices.of(place, 2)


class Echo:
    """Answers every group with its payload, and says how many came at once."""

    async def __call__(self, batch: dict[str, list[str]]) -> dict[str, list[str]]:
        return {"group": batch["group"], "payload": [f"{len(batch['group'])} {p}" for p in batch["payload"]]}


class Refuses:
    """A worker that says what is wrong, when it is made or when it is asked."""

    def __init__(self, at_once: bool) -> None:
        if at_once:
            raise ValueError("no such model")

    async def __call__(self, batch: dict[str, list[str]]) -> dict[str, list[str]]:
        raise ValueError(f"no space for {batch['group'][0]}")


def test_the_stream_gives_every_group_once_and_a_workers_errors_as_they_are(tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir()
    empty.mkdir()
    groups = _write(full, [70, 1, 40])
    _write(empty, [0])
    settings = StreamSettings(batch_groups=8, concurrency=3)
    with ray_session():
        found = list(stream_groups(full, Echo, {}, settings))
        assert list(stream_groups(empty, Echo, {}, settings)) == []
        for source in (full, [{"group": "g0", "payload": "{}"}]):
            for at_once, message in ((True, "^no such model$"), (False, r"^no space for g\d+$")):
                with pytest.raises(ValueError, match=message):
                    list(stream_groups(source, Refuses, {"at_once": at_once}, settings))
    payloads = dict(groups)
    assert sorted(g for g, _ in found) == sorted(payloads)
    assert all(p == f"{8 if int(g[1:]) < 104 else 7} {payloads[g]}" for g, p in found)
