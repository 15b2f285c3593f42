"""Files that are whole or absent, exclusive names, and a disk's failures as words for the user."""

from __future__ import annotations

import errno
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_REASONS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "no space left (quota)",
    errno.EIO: "the disk reports an error",
    errno.EROFS: "a read-only file system",
    errno.EACCES: "no right to do it",
    errno.EPERM: "no right to do it",
    errno.ESTALE: "a network drive lost the file",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
}
_SQLITE_REASONS = {
    sqlite3.SQLITE_FULL: "no space left",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_READONLY: "no right to write",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened",
    sqlite3.SQLITE_PERM: "no right to do it",
    sqlite3.SQLITE_BUSY: "it is locked",
    sqlite3.SQLITE_LOCKED: "it is locked",
}
_NO_LINKS = (errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EMLINK)  # EPERM is Linux's word for it


def disk_trouble(error: OSError | sqlite3.Error) -> str | None:
    """Why a disk (its space, its rights) refused, in words; None for an error that is not a disk's."""
    if isinstance(error, OSError):
        return _REASONS.get(error.errno or 0)
    return _SQLITE_REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)


def sync_folder(folder: Path) -> None:
    """Make names that were added to a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def temporary_file(path: Path, data: bytes, sync: bool = True) -> Iterator[Path]:
    """A file of these bytes beside `path`, to be linked or renamed; gone at the end."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
            if sync:
                os.fsync(handle)
        finally:
            os.close(handle)
        yield temporary
    finally:
        with suppress(OSError):  # renamed, or swept later
            os.unlink(temporary)


def clock_of(folder: Path) -> float:
    """Seconds by the clock of the file system that holds a folder: the same for all machines that share it."""
    with temporary_file(folder / "clock", b"", sync=False) as file:
        return os.stat(file).st_mtime


def write_whole(path: Path, data: bytes, sync: bool = True) -> None:
    """Write or replace a file, whole or not at all; with `sync` it survives a power cut."""
    with temporary_file(path, data, sync) as file:
        os.replace(file, path)
    if sync:
        sync_folder(path.parent)


def link_new(source: Path, path: Path) -> bool:
    """Give a file a second name, if nobody has that name yet; False when another file has it.

    A hard link is made or refused in one step, on network drives too: of several writers, one wins.

    Raises:
        ValueError: on a file system without hard links.
    """
    try:
        os.link(source, path)
    except FileExistsError:
        # A network drive that repeats a request whose answer was lost refuses our own success.
        return os.path.samefile(source, path)
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise ValueError(
                f"{path.parent} is on a file system without hard links, by which several writers agree: give a folder "
                "on another one (ext4, XFS, NFS, Lustre and CephFS have them)"
            ) from error
        raise
    sync_folder(path.parent)
    return True
