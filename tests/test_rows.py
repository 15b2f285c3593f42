"""One bad row stops no run: it is set aside with its place and the reason, and its neighbours come through."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.rows import MAX_DEPTH, MAX_LINE
from mr3.sources.opening import open_source
from mr3.sources.reading import file_rows
from mr3.sources.spec import FileSource
from rewards.ingest import EMPTY, ingest_pool, read_part
from rewards.pool import Pool, PoolSpec
from tests.judging_support import pair

ROWS = 5


def pool_row(i: int, **more: Any) -> dict[str, Any]:
    responses = [{"id": f"p{i}-{k}", "text": f"six {k}", "policy": f"m{k}"} for k in range(2)]
    row = {"prompt_id": f"p{i}", "prompt": f"What is {i} + 4?", "language": "en", "responses": responses}
    return {**row, "meta": {"n": i, "more": [1.5, None, "ü"]}, **more}


def labelled_row(i: int, **more: Any) -> dict[str, Any]:
    return {"task": pair(id=f"p{i}").model_dump(mode="json"), "gold": "Tie", **more}


COLUMNS = {
    "prompt": "prompt",
    "prompt_id": "prompt_id",
    "language": "language",
    "responses": {"each": "responses", "text": "text", "policy": "policy", "id": "id"},
    "meta": "meta",
}


def pool_ids(file: Path, columns: bool = False, merge: bool = False) -> tuple[list[str], list[str]]:
    """(prompt ids that can be judged, places set aside) by the whole way to the worker's payload."""
    source = {"path": str(file), "columns": COLUMNS} if columns else str(file)
    spec: PoolSpec = Pool.model_validate({"sources": [source], "merge": merge})
    with tempfile.TemporaryDirectory() as folder:
        rejected = Path(folder) / "rejected.jsonl"
        try:
            done = ingest_pool(spec, Path(folder) / "pool", rejected)
        except ValueError as error:
            assert str(error) == EMPTY or "no row of the pool can be judged" in str(error)
            return [], []
        kept = [row.prompt_id for part in done.parts for _, row in read_part(part)]
        lines = rejected.read_text(encoding="utf-8").splitlines()
    return kept, [json.loads(line)["where"] for line in lines]


def source_ids(file: Path) -> tuple[list[str], list[str]]:
    rows = list(open_source(FileSource(path=str(file))))
    kept = [row.task.id for row in rows if hasattr(row, "task")]
    return kept, [row.where for row in rows if not hasattr(row, "task")]


READERS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[Path], tuple[list[str], list[str]]]]] = {
    "pool": (pool_row, pool_ids),
    "pool with columns": (pool_row, lambda file: pool_ids(file, columns=True)),
    "merged pool": (pool_row, lambda file: pool_ids(file, merge=True)),
    "source": (labelled_row, source_ids),
}

deep = "[" * 900 + "]" * 900
BAD: dict[str, bytes] = {
    "a lone surrogate in a text": b'"\\ud800"',
    "a lone surrogate in a name": b'{"\\udfff": 1}',
    "a number of 5,000 digits": b"9" * 5_000,
    "900 levels": deep.encode(),
    "too many levels": ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)).encode(),
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "a zero byte": b'"\x00"',
    "bytes that are no UTF-8": b'"\xff\xfe"',
    "a mark within": b'\xef\xbb\xbf""',
    "a cut line": b'"',
}


def lines_of(make: Callable[..., dict[str, Any]]) -> list[bytes]:
    return [json.dumps(make(i), ensure_ascii=False).encode() for i in range(ROWS)]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_set_aside_by_its_place(tmp_path: Path, reader: str, kind: str) -> None:
    make, read = READERS[reader]
    lines = lines_of(make)
    key = b'"meta"' if make is pool_row else b'"own"'
    lines[2] = lines[2].replace(b'"meta": {"n": 2, "more": [1.5, null, "\xc3\xbc"]}', b'"x": 1')[:-1] + b", "
    lines[2] += key + b': {"v": ' + BAD[kind] + b"}}"
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(lines))
    assert read(file) == (["p0", "p1", "p3", "p4"], ["rows.jsonl:3"])


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("key", ["prompt_id", "prompt", "responses", "language", "task", "gold"])
def test_a_key_that_stands_twice_is_no_row(tmp_path: Path, reader: str, key: str) -> None:
    make, read = READERS[reader]
    lines = lines_of(make)
    if key not in make(0):
        return
    lines[1] = lines[1][:-1] + f', "{key}": {json.dumps(make(7)[key])}}}'.encode()
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(lines))
    assert read(file) == (["p0", "p2", "p3", "p4"], ["rows.jsonl:2"])


@pytest.mark.parametrize("reader", READERS)
def test_empty_lines_and_a_mark_at_the_start_are_no_rows_and_lines_have_a_longest(tmp_path: Path, reader: str) -> None:
    make, read = READERS[reader]
    long = json.dumps(make(9, x="x" * MAX_LINE)).encode()
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b"\n\r\n \n".join([*lines_of(make)[:3], long, *lines_of(make)[3:]]))
    assert read(file) == ([f"p{i}" for i in range(ROWS)], ["rows.jsonl:10"])


mutation = st.tuples(
    st.sampled_from(["put", "cut", "swap"]),
    st.integers(0, 10_000),
    st.one_of(st.binary(max_size=6), st.sampled_from([*BAD.values(), b"[", b"{", b"null", b'"', b"\\ud800", b"1e999"])),
)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=60, deadline=None)
@given(row=st.integers(0, ROWS - 1), changes=st.lists(mutation, min_size=1, max_size=4))
def test_whatever_happens_to_a_line_the_others_come_through(reader: str, row: int, changes: list[Any]) -> None:
    make, read = READERS[reader]
    lines = lines_of(make)
    for how, at, new in changes:
        line = lines[row]
        at %= len(line) + 1
        new = new.replace(b"\n", b" ")
        lines[row] = line[:at] + new + (line[at:] if how == "put" else line[at + len(new) :] if how == "swap" else b"")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_bytes(b"\n".join(lines))
        kept, aside = read(file)
        others = [f"p{i}" for i in range(ROWS) if i != row]
        # The changed line may still be a row, under this name or that of another, which then comes twice.
        assert [name for name in dict.fromkeys(kept) if name in others] == others
        assert len(kept) + len(aside) >= ROWS - (not lines[row].strip())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_values_of_any_type_stop_nothing(reader: str, data: st.DataObject) -> None:
    make, read = READERS[reader]
    rows = [make(i) for i in range(ROWS)]
    key = data.draw(st.sampled_from(sorted(rows[0])))
    place = rows[0]
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(values)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        assert [n for n in read(file)[0] if n in ("p1", "p2", "p3", "p4")][-4:] == ["p1", "p2", "p3", "p4"]


def test_a_parquet_row_that_is_not_utf8_is_set_aside(tmp_path: Path) -> None:
    prompts = pa.array([b"one", b"\xff\xfe", b"three"]).cast(pa.binary()).view(pa.string())
    rows = {"prompt_id": ["p0", "p1", "p2"], "prompt": prompts, "language": ["en"] * 3}
    responses = [[{"id": f"p{i}-0", "text": "six", "policy": "m"}] for i in range(3)]
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({**rows, "responses": responses, "meta": ["{}", "{}", deep]}), file)
    assert pool_ids(file) == (["p0"], ["rows.parquet:2", "rows.parquet:3"])
    assert [isinstance(row, dict) for _, row in file_rows(file)] == [True, False, True]


def test_a_csv_row_that_is_not_utf8_or_too_long_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"a,b\n1,2\n\xff,2\n1,2,3\n4,5\n")
    found = [row if isinstance(row, dict) else row.reason for _, row in file_rows(file)]
    assert found == [
        {"a": "1", "b": "2"},
        "text that is not UTF-8",
        "more cells than the header has columns",
        {"a": "4", "b": "5"},
    ]
