"""One flipped bit in every byte of a part of the store and of each table of a label run: is other content ever read?

Silent is a flip after which the file is read without an error and says something else. A part is read by the store, a
table as audit and pair selection read it, with the digest of the whole file in the manifest. What page checksums of
Parquet alone would let through is in the details.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.plain_label import TABLES, fork_label, prepare, wait_for
from benchmarks.registry import Bar, Benchmark, Result
from benchmarks.workload import base_judge, label_config, write_pool
from mr3.artifacts import hash_path, verify_outputs
from mr3.inference.parts import DamagedPart, decode

PROMPTS, RESPONSES = 24, 3
LARGEST = 64 << 10


def _flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1 << place % 8
    return bytes(changed)


def part_flips(data: bytes) -> Counter[str]:
    """A part, read as the store reads it."""
    wanted, found = decode(data), Counter[str]()
    for place in range(len(data)):
        try:
            found["harmless" if decode(_flipped(data, place)) == wanted else "silent"] += 1
        except DamagedPart:
            found["noticed"] += 1
    return found


def _rows(data: bytes) -> Any:
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False).to_pylist()


def table_flips(file: Path) -> Counter[str]:
    """A table of a finished stage, verified and then read."""
    data = file.read_bytes()
    wanted, found = _rows(data), Counter[str]()
    for place in range(len(data)):
        changed = _flipped(data, place)
        try:
            same = _rows(changed) == wanted
        except (pa.ArrowException, OSError, ValueError):
            same = True
        found["silent_by_page_checksums_alone"] += not same
        file.write_bytes(changed)
        try:
            verify_outputs(file.parent, [file.name])
            found["harmless" if same else "silent"] += 1
        except ValueError:
            found["noticed"] += 1
    file.write_bytes(data)
    verify_outputs(file.parent, [file.name])
    return found


def run() -> Result:
    """The files of one small label run."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pool, model = write_pool(root / "pool.jsonl", PROMPTS, RESPONSES), base_judge(root / "judge")
        prepare(model)
        config = label_config(root, pool, model, canaries={"per_language": 1}, stream={"batch_groups": PROMPTS})
        assert wait_for(fork_label(config, root / "log")) == 0, (root / "log").read_text()
        part = max((root / "store" / "parts").glob("*.parquet"), key=lambda p: p.stat().st_size)
        files = [root / "label" / f"{name}.parquet" for name in (*TABLES, "canaries")]
        sizes = {file.stem: file.stat().st_size for file in files} | {"part": part.stat().st_size}
        assert max(sizes.values()) <= LARGEST, sizes
        found = {"part": part_flips(part.read_bytes())}
        for file in files:
            before = hash_path(file)
            found[file.stem] = table_flips(file)
            assert hash_path(file) == before
    total = sum(found.values(), Counter[str]())
    return Result(
        {"flips": sum(sizes.values()), "silent": total["silent"]},
        n=sum(sizes.values()),
        bars={"flips": Bar("at_least", 10_000), "silent": Bar("at_most", 0)},
        details={"bytes": sizes, "by_file": {name: dict(counts) for name, counts in found.items()}},
    )


BENCHMARK = Benchmark(
    "bit-flips", "a flipped bit in every byte of a part and of each table: other content, silently", run
)
