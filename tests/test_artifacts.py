"""Artifact folders: run once, resume, refuse what belongs to another config."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import ClassVar

import pytest

from mr3 import artifacts
from mr3.artifacts import (
    finished_files,
    hash_path,
    hash_unchanged,
    metrics_of,
    require_folder,
    stage_run,
    verify_outputs,
    write_atomic,
    write_json,
)
from mr3.cli.state import is_current
from mr3.config import StageConfig


class Work(StageConfig):
    incidental: ClassVar[frozenset[str]] = frozenset({"workers"})

    rows: int = 3
    workers: int = 1


def do(config: Work, stage: str = "work", inputs: list[Path] | None = None) -> int:
    """1 if the work was done, 0 if it was finished before."""
    with stage_run(stage, config, inputs or []) as run:
        if run.finished:
            return 0
        run.metrics["rows"] = config.rows
        return 1


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    config = Work(output_dir=tmp_path / "a")
    assert not is_current(config)
    assert do(config) == 1 and do(config) == 0
    assert is_current(config)
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest["config"]["rows"] == 3 and manifest["resumed"] is False and manifest["wall_s"] >= 0
    assert metrics_of(tmp_path / "a") == {"rows": 3}


def test_an_interrupted_stage_goes_on(tmp_path: Path) -> None:
    config = Work(output_dir=tmp_path / "a")
    with pytest.raises(KeyboardInterrupt), stage_run("work", config):
        raise KeyboardInterrupt
    assert not (tmp_path / "a/manifest.json").exists()
    with stage_run("work", config) as run:
        assert run.resumed and not run.finished
    assert json.loads((tmp_path / "a/manifest.json").read_text())["resumed"] is True


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_another_config_is_refused_by_name(tmp_path: Path, finished: bool) -> None:
    config = Work(output_dir=tmp_path / "a")
    do(config)
    if not finished:
        (tmp_path / "a/manifest.json").unlink()
    changed = Work(output_dir=tmp_path / "a", rows=4, seed=1)
    assert not is_current(changed)
    with pytest.raises(ValueError, match=r"another config \(changed: rows, seed\).*--output_dir"):
        do(changed)
    with pytest.raises(ValueError, match="made by stage 'work'"):
        do(config, stage="play")


@pytest.mark.parametrize("finished", [True, False])
def test_what_only_decides_how_a_result_is_reached_may_change(tmp_path: Path, finished: bool) -> None:
    do(Work(output_dir=tmp_path / "a"))
    if not finished:
        (tmp_path / "a/manifest.json").unlink()
    more = Work(output_dir=tmp_path / "a", workers=8)
    assert is_current(more) is finished
    assert do(more) == (0 if finished else 1)
    with pytest.raises(ValueError, match=r"changed: rows\)"):
        do(Work(output_dir=tmp_path / "a", workers=2, rows=4))


def test_a_changed_input_is_seen_and_named(tmp_path: Path) -> None:
    data = tmp_path / "rows.txt"
    data.write_text("one")
    config = Work(output_dir=tmp_path / "a")
    assert do(config, inputs=[data]) == 1
    assert is_current(config)
    data.write_text("two")
    assert not is_current(config)
    with pytest.raises(ValueError, match=r"changed: .*rows\.txt"):
        do(config, inputs=[data])
    data.unlink()
    assert not is_current(config)


def test_the_place_of_a_folder_is_no_part_of_its_config(tmp_path: Path) -> None:
    do(Work(output_dir=tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert do(Work(output_dir=tmp_path / "b")) == 0


def test_hashes_follow_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "a").write_text("x")
    first = hash_path(folder)
    assert hash_path(folder) == first
    (folder / "a").rename(folder / "b")
    second = hash_path(folder)
    (folder / "b").write_text("y")
    assert len({first, second, hash_path(folder)}) == 3


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_text("one")
    assert hash_unchanged(file) == hash_path(file)
    read = []
    monkeypatch.setattr(artifacts, "hash_path", lambda path: read.append(path) or hash_path(path))
    assert hash_unchanged(file) == hash_path(file) and not read
    file.write_text("two")
    assert hash_unchanged(file) == hash_path(file) and len(read) == 1


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deep" / "value.json"
    write_json(file, {"a": 1})

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("mr3.files.os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(file, b"{}")
    assert json.loads(file.read_text()) == {"a": 1}


def test_missing_things_come_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run that stage first"):
        metrics_of(tmp_path)
    with pytest.raises(ValueError, match=r"no judge at .*make it with `mr3 sft`"):
        require_folder(tmp_path / "none", "judge", "mr3 sft")
    assert require_folder(tmp_path, "judge", "mr3 sft") == tmp_path


def finished(folder: Path) -> Path:
    """A finished stage with one table of its own, and what is not its output."""
    with stage_run("work", Work(output_dir=folder)) as run:
        (run.folder / "rows.parquet").write_bytes(b"the rows")
        for other in ("work", "store/parts"):
            (run.folder / other).mkdir(parents=True)
            (run.folder / other / "part.parquet").write_bytes(b"scratch")
        with stage_run("inner", Work(output_dir=folder / "inner")):
            (folder / "inner" / "own.parquet").write_bytes(b"another stage's")
    return folder


def flip(file: Path, byte: int) -> None:
    """One bit of one byte, with size and times kept: as a disk does it."""
    state, data = file.stat(), bytearray(file.read_bytes())
    data[byte] ^= 1
    file.write_bytes(bytes(data))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def test_a_manifest_holds_digests_of_its_own_tables(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a")
    outputs = json.loads((folder / "manifest.json").read_text())["outputs"]
    assert outputs == {name: hash_path(folder / name) for name in ("metrics.json", "rows.parquet")}
    verify_outputs(folder, outputs)


def test_every_damaged_byte_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a")
    for byte in range(len(b"the rows")):
        flip(folder / "rows.parquet", byte)
        with pytest.raises(ValueError, match=r"rows\.parquet is not as the stage wrote it.*delete .*`mr3 work`"):
            verify_outputs(folder, ["metrics.json", "rows.parquet"])
        flip(folder / "rows.parquet", byte)
    verify_outputs(folder, ["rows.parquet"])
    (folder / "rows.parquet").unlink()
    with pytest.raises(ValueError, match=r"rows\.parquet is missing"):
        verify_outputs(folder, ["rows.parquet"])
    with pytest.raises(ValueError, match=r"knows no output other\.parquet"):
        verify_outputs(folder, ["other.parquet"])
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="run that stage to its end first"):
        verify_outputs(folder, ["rows.parquet"])


def test_a_folder_without_digests_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = finished(tmp_path / "a")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["outputs"]
    write_json(folder / "manifest.json", manifest)
    verify_outputs(folder, ["rows.parquet"])
    assert "made by an earlier version" in caplog.text


def test_a_stage_refuses_a_damaged_table_of_another_before_it_takes_its_folder(tmp_path: Path) -> None:
    table = finished(tmp_path / "a") / "rows.parquet"
    later = Work(output_dir=tmp_path / "b")
    flip(table, 3)
    with pytest.raises(ValueError, match="not as the stage wrote it"):
        do(later, inputs=[table])
    assert not later.output_dir.exists()
    flip(table, 3)
    assert do(later, inputs=finished_files(tmp_path / "a")) == 1
    flip(table, 0)
    assert not is_current(later)
