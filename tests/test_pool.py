"""Pools: bad rows are set aside by name, good ones keep their identity, parts keep the order."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mr3.records import Candidate, Message, PoolRow
from rewards.ingest import ingest, read_part
from rewards.plans import authors, distinct
from rewards.pool import Adapter, Placed, PoolItem, pool_files, read_pool
from rewards.pools.rows import RowReader
from rewards.records import SetAside
from rewards.reorder_buffer import ReorderBuffer


def _row(prompt_id: str, **changes: Any) -> dict[str, Any]:
    row = {
        "prompt_id": prompt_id,
        "prompt": "2+2?",
        "language": "en",
        "responses": [{"id": "x", "text": "4", "policy": "p"}, {"id": "y", "text": "5", "policy": "q"}],
    }
    row.update(changes)
    return {k: v for k, v in row.items() if v is not ...}


def _write_jsonl(path: Path, lines: list[Any]) -> Path:
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n", encoding="utf-8")
    return path


def _good(items: list[PoolItem]) -> list[PoolRow]:
    return [i.row for i in items if isinstance(i, Placed)]


BAD = {
    "not json at all": "bad JSON",
    "[1, 2]": "expected an object",
    json.dumps(_row("no-prompt", prompt=...)): "missing or empty: prompt",
    json.dumps(_row("no-language", language="")): "missing or empty: language",
    json.dumps(_row("no-responses", responses=[])): "missing or empty: responses",
    json.dumps(_row("bad-response", responses=[{"text": 4, "policy": "p"}])): "responses.0.text",
    json.dumps(_row("extra", responses=[{"text": "4", "policy": "p", "rank": 1}])): "responses.0.rank",
    json.dumps(_row("same-ids", responses=[{"id": "x", "text": t, "policy": "p"} for t in "45"])): "same id",
    json.dumps(_row("robot", prompt=[{"role": "robot", "content": "hi"}])): "system",
}


def test_bad_rows_are_set_aside_by_line_and_id(tmp_path: Path) -> None:
    file = _write_jsonl(tmp_path / "pool.jsonl", [_row("first"), *BAD, _row("last")])
    items = list(read_pool(str(file)))
    assert [r.prompt_id for r in _good(items)] == ["first", "last"]
    set_aside = [i for i in items if isinstance(i, SetAside)]
    assert [s.where for s in set_aside] == [f"pool.jsonl:{n}" for n in range(2, 2 + len(BAD))]
    for found, (line, reason) in zip(set_aside, BAD.items(), strict=True):
        assert reason in found.reason, line
        if line.startswith("{"):
            assert found.prompt_id == json.loads(line)["prompt_id"]


def test_an_empty_response_leaves_its_prompt_in(tmp_path: Path) -> None:
    responses = [{"id": "x", "text": " \n", "policy": "p"}, {"text": "4", "policy": "p"}]
    file = _write_jsonl(tmp_path / "pool.jsonl", [_row("a", responses=responses)])
    aside, kept = read_pool(str(file))
    assert isinstance(aside, SetAside) and (aside.prompt_id, aside.response_id) == ("a", "x")
    assert isinstance(kept, Placed) and [r.id for r in kept.row.responses] == ["a#1"]


def test_parquet_and_jsonl_read_alike(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    rows = [
        _row("a", prompt=messages, meta={"sum": 4}, reference="4"),
        _row("b", prompt="[not a message list]", meta={}, reference=None),
    ]
    file = tmp_path / "pool.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(json.dumps(r) for r in rows).encode()))
    table = [{**r, "prompt": r["prompt"] if r["prompt_id"] == "b" else json.dumps(messages)} for r in rows]
    table = [{**r, "meta": json.dumps(r["meta"])} for r in table]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "pool.parquet")
    from_jsonl, from_parquet = (_good(list(read_pool(str(tmp_path / n)))) for n in ("pool.jsonl.gz", "pool.parquet"))
    assert from_jsonl == from_parquet
    assert from_jsonl[0].prompt == [Message(role="system", content="Be brief."), Message(role="user", content="2+2?")]
    assert from_jsonl[0].meta == {"sum": 4}
    assert pool_files(str(tmp_path)) == [tmp_path / "pool.parquet"]


def test_user_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pool at"):
        list(read_pool(str(tmp_path / "absent.jsonl")))
    with pytest.raises(ValueError, match="neither"):
        list(read_pool(str(_write_jsonl(tmp_path / "pool.txt", [_row("a")]))))
    pq.write_table(pa.table({"prompt_id": ["a"]}), tmp_path / "half.parquet")
    with pytest.raises(ValueError, match="no column prompt, responses"):
        list(read_pool(str(tmp_path / "half.parquet")))
    with pytest.raises(ValueError, match="can't load"):
        list(read_pool(Adapter(source="rewards.pool:absent")))


def test_ingest_finds_duplicates_and_keeps_the_order(tmp_path: Path) -> None:
    rows = [_row(f"p{i}") for i in range(7)]
    file = _write_jsonl(tmp_path / "pool.jsonl", [*rows[:4], _row("p2", prompt="other"), "oops", *rows[4:]])
    done = ingest(read_pool(str(file)), tmp_path / "work", tmp_path / "rejected.jsonl", part_rows=3)
    assert (done.prompts, done.responses, done.rows_set_aside) == (7, 14, 2)
    rejected = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [(r["where"], r["prompt_id"]) for r in rejected] == [("pool.jsonl:5", "p2"), ("pool.jsonl:6", None)]
    assert rejected[0]["reason"] == "duplicate prompt id"
    assert len(done.parts) == 3
    again = [pair for part in done.parts for pair in read_part(part)]
    assert [(i, r.prompt_id) for i, r in again] == [(i, f"p{i}") for i in range(7)]
    assert all(r.prompt == "2+2?" for _, r in again), "the first of two rows with one id is kept"


@pytest.mark.parametrize(("lines", "message"), [([""], "the pool is empty"), (["oops"], "no row of the pool")])
def test_a_pool_without_rows_is_an_error(tmp_path: Path, lines: list[str], message: str) -> None:
    file = _write_jsonl(tmp_path / "pool.jsonl", lines)
    with pytest.raises(ValueError, match=message):
        ingest(read_pool(str(file)), tmp_path / "work", tmp_path / "rejected.jsonl")


def test_the_spool_puts_results_in_order(tmp_path: Path) -> None:
    buffer = ReorderBuffer(tmp_path / "buffer", part_rows=4, hold=3)
    for index in (9, 0, 5, 3, 1, 8):
        buffer.add(index, f"of {index}\u2028")
    assert buffer.take(0) == {0: "of 0\u2028", 1: "of 1\u2028", 3: "of 3\u2028"}
    assert sorted(buffer.take(1)) == [5] and sorted(buffer.take(2)) == [8, 9] and buffer.take(3) == {}


def test_identical_responses_are_judged_as_one() -> None:
    texts = {"a": "4", "b": "5", "c": " 4\n", "d": "5"}
    responses = [Candidate(id=i, text=t, policy="p") for i, t in texts.items()]
    assert distinct(responses) == {"a": "a", "b": "b", "c": "a", "d": "b"}


def test_a_text_of_two_policies_is_credited_to_both() -> None:
    same_as = {"a": "a", "b": "b", "c": "a", "d": "b"}
    wrote = authors({"a": "x", "b": "x", "c": "w", "d": "x"}, same_as)
    assert wrote == {"a": "w + x", "b": "x"}


def test_the_fast_way_and_the_slow_way_agree(tmp_path: Path) -> None:
    """A whole JSON line is read at once; the same row as a decoded object goes the long way."""
    messages = json.dumps([{"role": "user", "content": "2+2?"}])
    rows = [
        _row("plain"),
        _row("messages as text", prompt=messages),
        _row("bracket", prompt="[1, 2] has how many elements?"),
        _row("no prompt", prompt=""),
        _row("", language="en"),
        _row("no language", language="", prompt="Could you tell me how much two and two are?"),
        _row("null meta", meta=None),
        _row("meta as text", meta='{"x": 1}'),
        _row("blank", responses=[{"text": "\t", "policy": "p"}]),
    ]
    whole = list(read_pool(str(_write_jsonl(tmp_path / "pool.jsonl", rows))))
    reader = RowReader()
    slow = [item for n, row in enumerate(rows, start=1) for item in reader.items(f"pool.jsonl:{n}", row)]
    assert whole == slow
    assert [r.prompt_id for r in _good(whole)] == [
        *("plain", "messages as text", "bracket", "no language", "null meta", "meta as text")
    ]


def test_a_damaged_file_is_an_error_that_says_where(tmp_path: Path) -> None:
    lines = "".join(json.dumps(_row(f"p{i}", prompt=str(i * 7919) * 40)) + "\n" for i in range(2000)).encode()
    (tmp_path / "pool.jsonl.gz").write_bytes(gzip.compress(lines)[:-2000])
    with pytest.raises(ValueError, match=r"pool\.jsonl\.gz is damaged after line \d+"):
        list(read_pool(str(tmp_path / "pool.jsonl.gz")))
    (tmp_path / "pool.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="can't be read as Parquet after row 0"):
        list(read_pool(str(tmp_path / "pool.parquet")))
