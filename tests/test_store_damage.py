"""A store whose files are damaged, or whose disk refuses: nothing is mistaken, nothing is lost, and it is said once."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest

import mr3.files
from mr3.artifacts import stage_run
from mr3.config import StageConfig
from mr3.inference.parts import DamagedPart, decode, encode
from mr3.inference.store import Store
from mr3.stage import stage_main
from rewards.tables import TableWriter
from rewards.walk import label_settings
from tests.store_support import machine_named


def part(folder: Path, number: int) -> Path:
    return folder / "parts" / f"{number:012d}.parquet"


def test_no_flipped_bit_changes_a_payload_in_silence() -> None:
    ids, payloads = [f"id{k}" for k in range(20)], [f'{{"score":"{k % 5}"}}' for k in range(20)]
    data, wanted = encode(ids, payloads), dict(zip(ids, payloads, strict=True))
    noticed = 0
    for place in range(len(data)):
        torn = bytearray(data)
        torn[place] ^= 1 << place % 8
        try:
            assert decode(bytes(torn)) == wanted
        except DamagedPart:
            noticed += 1
    assert noticed > len(data) // 3


@pytest.mark.parametrize("damage", ["torn", "zeroed", "emptied", "another part's content"])
def test_damaged_parts_go_to_the_quarantine_all_in_one_run(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Store(tmp_path)
    for k in range(4):
        writer.write({f"a{k}": "1", "shared": f"from {k}"})
    for k in (1, 3):
        data = part(tmp_path, k).read_bytes()
        changed = {"torn": data[:-9], "zeroed": bytes(len(data)), "emptied": b""}
        if damage in changed:
            part(tmp_path, k).write_bytes(changed[damage])
        else:
            part(tmp_path, k).write_bytes(data.replace(b"mr3.digest", b"mr3.disgst"))
    with machine_named("far"):
        before = Store(tmp_path)
    readers = [before, Store(tmp_path)]
    with caplog.at_level(logging.WARNING, "mr3"):
        for reader in readers:
            reader.refresh()
            assert reader.lookup(["a0", "a1", "a2", "a3", "shared"]) == {"a1": "1", "a3": "1", "shared": "from 1"}
            assert reader.count() == 3
    named = [r.message for r in caplog.records if "damaged" in r.message]
    assert len(named) == 2, "each is named once"
    kept = sorted(p.name for p in (tmp_path / "quarantine").iterdir())
    assert kept == [f"{k:012d}.{kind}" for k in (1, 3) for kind in ("parquet", "txt")]
    assert readers[0].write({"a0": "again"}) == {} == readers[1].write({"a2": "again"})
    with machine_named("a third"):
        assert Store(tmp_path).lookup(["a0", "a2", "shared"]) == {"a0": "again", "a2": "again", "shared": "from 1"}
    assert part(tmp_path, 6).exists(), "numbers of damaged parts are not given again"


def test_damage_that_comes_while_a_run_reads_is_found_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write({"a": "1"})
    store.write({"a": "2", "b": "2"})
    assert Store(tmp_path).lookup(["a"]) == {"a": "1"}
    part(tmp_path, 1).write_bytes(b"PAR1")
    assert Store(tmp_path).lookup(["a", "b"]) == {"a": "2", "b": "2"}, "the next answer counts"


def test_a_part_that_can_not_be_read_is_an_error_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).write({"a": "1"})
    reader = Store(tmp_path)

    def failing(self: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(self))

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(ValueError, match="the disk reports an error for the store"):
        reader.lookup(["a"])
    monkeypatch.undo()
    assert reader.lookup(["a"]) == {"a": "1"}


def test_a_locked_index_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mr3.inference.index.WAIT_S", 0.05)
    Store(tmp_path).write({"a": "1"})
    [index] = tmp_path.glob("index-*.sqlite")
    with closing(sqlite3.connect(index, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ValueError, match=r"it is locked .*delete index-\S+ and index-\S+-journal"):
            Store(tmp_path).refresh()
    assert Store(tmp_path).refresh() == 1


@pytest.mark.parametrize("kind", ["a folder", "no rights", "another database", "torn", "a hot journal"])
def test_an_index_in_a_bad_state_is_made_again_or_one_message(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.write({"a": "1"})
    store.close()
    [index] = tmp_path.glob("index-*.sqlite")
    data = index.read_bytes()
    if kind in ("a folder", "no rights"):
        index.unlink()
        index.mkdir() if kind == "a folder" else index.symlink_to("/proc/no/such/place")
        with pytest.raises(ValueError, match=r"the index .*: it can't be opened"):
            Store(tmp_path).refresh()
        index.rmdir() if kind == "a folder" else index.unlink()
    elif kind == "another database":
        index.unlink()
        with closing(sqlite3.connect(index)) as db, db:
            db.execute("CREATE TABLE parts (name TEXT)")
    elif kind == "torn":
        index.write_bytes(data[: len(data) // 2])
    else:
        index.with_name(f"{index.name}-journal").write_bytes(os.urandom(4096))
    assert Store(tmp_path).refresh() == 1


_OPERATIONS = ("open", "write", "fsync", "link", "replace", "unlink")


@contextmanager
def failing(nth: int, code: int) -> Iterator[list[str]]:
    """The n-th operation on files fails, once; with a negative code the process ends. Yields all that were tried."""
    tried: list[str] = []

    def wrap(name: str) -> Any:
        real = getattr(os, name)

        def operation(*args: Any, **kwargs: Any) -> Any:
            tried.append(name)
            if len(tried) == nth:
                if code < 0:
                    os._exit(9)
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        return operation

    with mock.patch.multiple(mr3.files.os, **{name: wrap(name) for name in _OPERATIONS}):
        yield tried


def small_run(folder: Path) -> dict[str, str]:
    """What a worker does: claims, writes, ends its claim; returns what counts."""
    found: dict[str, str] = {}
    with Store(folder) as store:
        store.open_run()
        store.refresh()
        for k in range(2):
            claim = store.claim([f"a{k}", f"b{k}"])
            found |= claim.stored
            rows = {i: f"value of {i}" for i in sorted(claim.mine)}
            found |= {**rows, **store.write(rows)}
            store.end(claim.mark)
    return found


def test_each_file_operation_may_fail_once(tmp_path: Path) -> None:
    wanted = small_run(tmp_path / "calm")
    with failing(0, 0) as tried:
        small_run(tmp_path / "counted")
    assert {*tried} == {*_OPERATIONS}
    refused = 0
    for nth in range(1, len(tried) + 1):
        folder = tmp_path / str(nth)
        with failing(nth, (errno.ENOSPC, errno.EIO)[nth % 2]):
            try:
                assert small_run(folder) == wanted, "an operation that need not succeed"
            except ValueError as error:
                refused += 1
                assert str(folder) in str(error) and "run the same command again" in str(error)
        assert small_run(folder) == wanted
        store = Store(folder)
        assert dict(store.items()) == wanted and store.kept_aside() == 0
    assert refused > len(tried) // 2


def test_a_process_killed_at_any_operation_loses_nothing_that_it_had_stored(tmp_path: Path) -> None:
    """Between writing, linking and taking the mark back, as a kill would end it: no cleaning up."""
    wanted = small_run(tmp_path / "calm")
    with failing(0, 0) as tried:
        small_run(tmp_path / "counted")
    stored = 0
    for nth in range(1, len(tried) + 1, 3):
        folder = tmp_path / str(nth)
        pid = os.fork()
        if not pid:
            with failing(nth, -1):
                small_run(folder)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        before = len(list((folder / "parts").glob("*.parquet"))) if (folder / "parts").is_dir() else 0
        assert small_run(folder) == wanted
        with Store(folder) as store:
            store.refresh()
            assert dict(store.items()) == wanted and store.kept_aside() == 0
            old = time.time() - 7_200
            for torn in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):
                os.utime(torn, (old, old))
            store.refresh()
        assert not list((folder / "marks").iterdir()), "the dead process's marks are swept"
        assert not list(folder.glob("**/.*")), "and what it had not finished writing"
        stored += before == len(list((folder / "parts").glob("*.parquet"))) == 2
    assert stored, "some were killed after all was stored"


def test_what_a_disk_refuses_a_stage_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: StageConfig) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "table.parquet")

    def bug(_: StageConfig) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "mistaken")

    arguments = ["--output_dir", str(tmp_path)]
    assert stage_main("label", StageConfig, run, arguments) == 2
    assert capsys.readouterr().err.splitlines() == [
        "mr3 label: error: no space left ([Errno 28] No space left on device: 'table.parquet'): mend that, and the "
        "same command goes on from here"
    ]
    with pytest.raises(FileNotFoundError):
        stage_main("label", StageConfig, bug, arguments)


def test_a_table_that_was_changed_after_its_stage_is_refused_by_its_readers(tmp_path: Path) -> None:
    class Labels(StageConfig):
        pass

    with (
        stage_run("label", Labels(output_dir=tmp_path / "label")) as stage,
        TableWriter(stage.folder / "verdicts.parquet", pa.schema([("score", pa.string())])) as table,
    ):
        table.write([{"score": str(k)} for k in range(9)])
    assert label_settings(tmp_path / "label") == {"seed": 0}
    file = tmp_path / "label" / "verdicts.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"verdicts.parquet is not as the stage wrote it"):
        label_settings(tmp_path / "label")
