"""Whether a stage's folder is finished and still belongs to its config and inputs, without running the stage."""

from __future__ import annotations

import json
from pathlib import Path

from mr3.artifacts import content_hash, read_json
from mr3.config import StageConfig


def is_current(config: StageConfig) -> bool:
    """True when the folder has a manifest of the same config, over inputs that are unchanged on disk.

    Where it says False the stage itself decides: it goes on, or explains what was changed.
    """
    file = config.output_dir / "manifest.json"
    if not file.is_file():
        return False
    manifest = read_json(file)
    left_out = config.incidental
    was = {name: value for name, value in manifest["config"].items() if name not in left_out}
    if was != json.loads(config.model_dump_json(exclude={"output_dir", *left_out})):
        return False
    return all(Path(p).exists() and content_hash(Path(p)) == before for p, before in manifest["inputs"].items())
