"""Whether a stage's folder is finished and still belongs to its config and inputs, without running the stage."""

from __future__ import annotations

from pathlib import Path

from mr3.artifacts import MANIFEST, content_hash, read_json
from mr3.config import StageConfig
from mr3.records import stable_hash


def is_current(config: StageConfig) -> bool:
    """True when the folder has a manifest of the same config, over inputs that are unchanged on disk.

    Where it says False the stage itself decides: it goes on, or explains what was changed.
    """
    file = config.output_dir / MANIFEST
    if not file.is_file():
        return False
    manifest = read_json(file)
    hashes = {p: content_hash(Path(p)) for p in manifest["inputs"] if Path(p).exists()}
    return bool(manifest.get("key") == stable_hash(manifest["stage"], config.decisive(), hashes))
