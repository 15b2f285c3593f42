"""The store keeps each id once, through kills at any instant and a lost index."""

from __future__ import annotations

import errno
import random
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Timer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.inference.store import Deaths, Store
from tests.store_support import died, machine_named

_WRITER = """
import sys
from mr3.inference.store import Store
store = Store(sys.argv[1])
for i in range(100_000):
    store.write({f"{sys.argv[2]}-{i}-{j}": "x" * 2000 for j in range(20)})
    print(i, flush=True)
"""


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.text(max_size=5)), max_size=6))
def test_first_writing_of_an_id_stays(batches: list[dict[str, str]], tmp_path_factory: object) -> None:
    folder: Path = tmp_path_factory.mktemp("store")  # type: ignore[attr-defined]
    store, wanted = Store(folder), {}
    for batch in batches:
        store.write(batch)
        for key, value in batch.items():
            wanted.setdefault(key, value)
    assert store.refresh() == store.count() == len(wanted)
    assert store.lookup([*wanted, "absent"]) == wanted
    assert dict(store.items()) == wanted


def test_a_lost_index_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write({"a": "1", "b": "2"})
    store.write({"b": "3", "c": "4"})
    store.refresh()
    before = dict(store.items())
    [index] = tmp_path.glob("index-*.sqlite")
    index.unlink()
    again = Store(tmp_path)
    assert again.lookup(["a"]) == {"a": "1"}, "who looks up first makes it"
    assert dict(again.items()) == before == {"a": "1", "b": "2", "c": "4"}
    assert again.kept_aside() == 1


def test_torn_files_are_no_parts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write({"a": "1"})
    (tmp_path / "parts" / ".torn.tmp").write_bytes(b"PAR1 and then the power went")
    assert store.refresh() == 1


def test_a_broken_index_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write({"a": "1"})
    store.refresh()
    [index] = tmp_path.glob("index-*.sqlite")
    index.write_bytes(b"no database at all" * 500)
    assert Store(tmp_path).refresh() == 1
    assert Store(tmp_path).lookup(["a"]) == {"a": "1"}


def test_parts_that_were_taken_away_are_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write({"a": "1"})
    store.refresh()
    for part in (tmp_path / "parts").iterdir():
        part.unlink()
    store.write({"b": "2"})
    assert store.refresh() == 1
    assert store.lookup(["a", "b"]) == {"b": "2"}


def test_a_death_is_the_mark_of_a_dead_process_of_the_same_run(tmp_path: Path) -> None:
    driver = Store(tmp_path)
    run = driver.open_run()
    living = Store(tmp_path, run)
    living.claim(["lived"])
    died(tmp_path, ["a", "b"], run=run)
    died(tmp_path, ["a", "b"], alone=True, run=run)
    died(tmp_path, ["b"], alone=True, run=run)
    other = died(tmp_path, ["a", "of another run"])
    worker = Store(tmp_path, run)
    expected = {"a": Deaths(2, 1, 0, 0, True), "b": Deaths(3, 2, 1, 0, True)}
    assert worker.deaths() == expected, "neither marks of the living count, nor those of other runs"
    another = Store(tmp_path)
    another.open_run()
    another.refresh()
    assert worker.deaths() == expected, "a run that starts leaves the marks of one that lives alone"
    assert not list((tmp_path / "marks").glob(f"{other}.*")), "and sweeps those of dead ones"
    driver.close()
    living.close()
    another.refresh()
    assert not list((tmp_path / "marks").iterdir())
    assert [file.stem for file in (tmp_path / "owners").iterdir()] == [another.open_run()]


def test_what_another_run_is_judging_is_not_claimed(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    one = first.claim(["a", "b"])
    assert one.mine == {"a", "b"}
    two = second.claim(["b", "c"])
    assert two.mine == {"c"} and second.held(["a", "b", "c"]) == {"a", "b"}
    assert first.held(["b", "c"]) == {"c"}, "what is left to the other is not in the mark"
    assert first.claim(["b"]).mine == {"b"}, "one run has no claim on itself: its engines died, or it asks twice"
    first.write({"a": "1"})
    first.end(one.mark)
    three = second.claim(["a"])
    assert three.stored == {"a": "1"} and not three.mine


def test_the_claims_of_the_frozen_and_the_dead_lapse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Store(tmp_path)
    died(tmp_path, ["dead"])
    frozen = Store(tmp_path)
    frozen.claim(["frozen"])
    with machine_named("elsewhere"):
        far = Store(tmp_path)
        far.claim(["far"])
    for store in (frozen, far):
        store._marks._stop.set()  # type: ignore[union-attr]
    names = ["dead", "frozen", "far"]
    assert reader.held(names) == {"frozen", "far"}
    monkeypatch.setattr("mr3.inference.marks.STALE_S", 0.05)
    monkeypatch.setattr("mr3.inference.marks._NOW_S", 0.0)
    time.sleep(0.1)
    assert reader.held(names) == set() and reader.claim(names).mine == set(names)
    assert frozen.write({"frozen": "late"}) == {}, "who wakes up may still be the first to answer"


def test_the_first_committed_answer_wins_for_every_reader_and_writers_are_told(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    with machine_named("elsewhere"):
        far = Store(tmp_path)
        assert far.catch_up() == 0
    assert first.write({"a": "first", "b": "first"}) == {}
    assert second.write({"b": "second", "c": "second"}) == {"b": "first"}
    assert far.write([("c", "far"), ("c", "twice"), ("d", "far")]) == {"c": "second"}
    winners = {"a": "first", "b": "first", "c": "second", "d": "far"}
    with machine_named("a third"):
        made_new = Store(tmp_path)
        made_new.refresh()
    for reader in (first, second, far, made_new):
        assert reader.lookup([*winners, "absent"]) == winners == dict(reader.items())
    assert made_new.kept_aside() == 2


def test_threads_and_processes_write_at_once(tmp_path: Path) -> None:
    """Each part is in every index under the number that it has."""
    code = "import sys; from tests.test_store import write_in_threads; write_in_threads(*sys.argv[1:])"
    others = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in ("one", "two")]
    assert [other.wait() for other in others] == [0, 0]
    wanted = {f"{name}-{k}-{j}" for name in ("one", "two") for k in range(40) for j in range(3)}
    for name in ("one", "two", "new"):
        with machine_named(name):
            store = Store(tmp_path)
        assert store.catch_up() == len(wanted) and {key for key, _ in store.items()} == wanted
        assert store.kept_aside() == 0


def write_in_threads(folder: str, name: str) -> None:
    with machine_named(name):
        store = Store(folder)
    with ThreadPoolExecutor(4) as threads:
        rows = [{f"{name}-{k}-{j}": "" for j in range(3)} for k in range(40)]
        assert list(threads.map(store.write, rows)) == [{}] * len(rows)


def test_a_part_that_a_network_drive_hides_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Store(tmp_path)
    for k in range(3):
        writer.write({"a": str(k), f"b{k}": ""})
    hidden = tmp_path / "parts" / f"{1:012d}.parquet"
    hidden.rename(tmp_path / "elsewhere")
    Timer(0.5, lambda: (tmp_path / "elsewhere").rename(hidden)).start()
    with machine_named("far"):
        reader = Store(tmp_path)
    assert reader.catch_up() == 4 and reader.lookup(["a"]) == {"a": "0"}
    hidden.unlink()
    monkeypatch.setattr("mr3.inference.parts.GAP_S", 0.0)
    with machine_named("later"):
        assert Store(tmp_path).catch_up() == 3, "what was taken away is not waited for"
    reader.catch_up()
    assert reader.lookup(["a"]) == {"a": "1"}


def test_an_index_that_another_start_of_the_machine_left_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write({"a": "1"})
    store.close()
    [index] = tmp_path.glob("index-*.sqlite")
    with closing(sqlite3.connect(index)) as db, db:
        db.execute("DELETE FROM ids")
        db.execute("UPDATE made SET boot = 'yesterday'")
    assert Store(tmp_path).lookup(["a"]) == {"a": "1"}, "it was not synced, and may lack what was in memory"


def test_a_store_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    old = tmp_path / "parts" / "00000001720000000000-0a1b2c3d.parquet"
    pq.write_table(pa.table({"id": ["a"], "payload": ["1"]}), old)
    with pytest.raises(ValueError, match=r"earlier version.* Give another `store:`, or move"):
        Store(tmp_path)
    old.unlink()
    Store(tmp_path).write({"a": "1"})
    (tmp_path / "store.json").write_text('{"version": 3}')
    with pytest.raises(ValueError, match="not that of a store of version 2"):
        Store(tmp_path)


def test_a_file_system_without_hard_links_is_named_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("mr3.files.os.link", refuse)
    with pytest.raises(ValueError, match="without hard links"):
        Store(tmp_path)


def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write({"a": "1"})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mr3.files.os.fsync", full)
        with pytest.raises(ValueError, match=r"no space left for the store .* run the same command again"):
            store.write({"b": "2"})
    assert not list((tmp_path / "parts").glob(".*"))
    store.write({"b": "2"})
    assert store.refresh() == 2


def test_killed_at_any_instant_loses_no_finished_part(tmp_path: Path) -> None:
    rng = random.Random(0)
    acknowledged = 0
    for run in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(run)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline()
        time.sleep(rng.random() * 0.2)
        writer.send_signal(signal.SIGKILL)
        acknowledged += 20 * (1 + len(writer.stdout.read().splitlines()))
        writer.wait()
        store = Store(tmp_path)
        # The part that was being written when the kill came may have been finished, but not announced.
        assert acknowledged <= store.refresh() <= acknowledged + 20 * (run + 1)
        assert len(dict(store.items())) == store.count()
