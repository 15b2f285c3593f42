"""API keys: read once where the server starts, kept and compared as digests."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger("mr3.serving")
_SHORTEST = 8


def digest(key: str) -> str:
    """What is kept of a key; replicas and Ray's own records never hold the key itself."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def load_keys(variable: str | None, file: Path | None) -> list[str]:
    """Digests of the keys in an environment variable and a file.

    Raises:
        ValueError: when a named source is missing or empty, or a key is too short to be one.
    """
    keys: list[str] = []
    if variable is not None:
        found = [k.strip() for k in os.environ.get(variable, "").split(",") if k.strip()]
        if not found:
            raise ValueError(f"api_keys_env names {variable}, which holds no key: export {variable}=KEY[,KEY...]")
        keys += found
    if file is not None:
        if not file.is_file():
            raise ValueError(f"no api_keys_file at {file}: write one key per line into it")
        lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
        found = [line for line in lines if line]
        if not found:
            raise ValueError(f"{file} holds no key: write one key per line into it")
        keys += found
        if file.stat().st_mode & 0o077:
            log.warning("others on this machine can read the keys in %s: chmod 600 it", file)
    if any(len(key) < _SHORTEST for key in keys):
        raise ValueError(f"an API key has fewer than {_SHORTEST} characters: choose longer ones")
    return [digest(key) for key in dict.fromkeys(keys)]


def accepted(header: str | None, digests: Sequence[str]) -> bool:
    """Whether an `Authorization: Bearer KEY` header names a known key; every comparison takes the same time."""
    if not digests:
        return True
    scheme, _, key = (header or "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    given = digest(key.strip())
    matches = [hmac.compare_digest(given, known) for known in digests]
    return any(matches)
