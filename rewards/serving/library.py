"""The rubric library of a server: rubrics by id, so that requests can name one instead of sending it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mr3.rubrics import Rubric, load_rubric


def load_library(source: Path | Mapping[str, Rubric]) -> dict[str, Rubric]:
    """Rubrics by id: of a mapping, or of a folder's YAML files (the id is the name without its ending).

    Raises:
        ValueError: for a folder that is not there or holds no rubric, and for a file that is not a rubric.
    """
    if not isinstance(source, Path):
        return dict(source)
    if not source.is_dir():
        raise ValueError(f"no rubric library at {source}: give a folder of YAML files, or {{id: rubric}}")
    files = sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
    if not files:
        raise ValueError(f"the rubric library {source} holds no YAML file")
    found: dict[str, Rubric] = {}
    for file in files:
        if file.stem in found:
            raise ValueError(f"two files of the rubric library {source} are named {file.stem}: rename one")
        found[file.stem] = load_rubric(file)
    return found
