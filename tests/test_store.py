"""The store keeps each id once, through kills at any instant and a lost index."""

from __future__ import annotations

import errno
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.inference.store import Deaths, Store

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
    assert again.lookup(["a"]) == {}
    again.refresh()
    assert dict(again.items()) == before == {"a": "1", "b": "2", "c": "4"}


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


def test_another_process_catches_up_without_a_sweep(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.refresh()
    first.start(["a", "b"])
    first.write({"a": "1"})
    second = Store(tmp_path)
    assert second.lookup(["a"]) == {}
    assert second.catch_up() == 1
    assert second.lookup(["a", "b"]) == {"a": "1"}
    assert set(second.deaths()) == {"a", "b"}, "catching up takes no marks away"
    second.refresh()
    assert second.deaths() == {}


def test_marks_that_were_never_taken_back_count_deaths(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.end(store.start(["lived"]))
    store.start(["a", "b"])
    store.start(["a", "b"], alone=True)
    store.start(["b"], alone=True)
    assert store.deaths() == {"a": Deaths(2, 1, 0), "b": Deaths(3, 2, 1)}


def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write({"a": "1"})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mr3.inference.store.os.fsync", full)
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
