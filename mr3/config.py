"""Stage configs: pydantic models with no unknown keys, read from YAML, overridden by `--a.b value`.

`${NAME}` in a YAML string is an environment variable; a missing one is an error that names it.
Free of torch, vllm and ray.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class StageConfig(BaseModel):
    """What every stage config has."""

    model_config = ConfigDict(extra="forbid")

    incidental: ClassVar[frozenset[str]] = frozenset()
    """Keys that decide how a result is reached and not what it is: a run may be resumed with other values."""

    output_dir: Path
    seed: int = 0


C = TypeVar("C", bound=BaseModel)


def _expand(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {k: _expand(v, where) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, where) for v in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = os.environ.get(name, default)
        if found is None:
            raise ValueError(f"{where}: the environment variable {name} is not set; export {name}=... and run again")
        return found

    return _VARIABLE.sub(variable, value)


def _override(data: dict[str, Any], overrides: Sequence[str]) -> None:
    """Apply `--a.b value` pairs in place; values are read as YAML."""
    words = list(overrides)
    while words:
        flag = words.pop(0)
        if not flag.startswith("--"):
            raise ValueError(f"expected an override such as --a.b value, got {flag!r}")
        key, equals, value = flag[2:].partition("=")
        if not equals:
            if not words:
                raise ValueError(f"{flag} needs a value: {flag} VALUE")
            value = words.pop(0)
        *parents, leaf = key.split(".")
        node = data
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"--{key}: {parent!r} is not a section of this config")
        node[leaf] = yaml.safe_load(value)


def build_config(model: type[C], data: dict[str, Any], where: str) -> C:
    """Validate `data` into `model`, with one readable line per problem."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = []
        for e in error.errors():
            key = ".".join(str(p) for p in e["loc"]) or "config"
            if e["type"] == "extra_forbidden":
                known = ", ".join(sorted(field.alias or name for name, field in model.model_fields.items()))
                lines.append(f"  {key}: unknown key (known here: {known})")
            else:
                lines.append(f"  {key}: {e['msg']}")
        raise ValueError(f"{where} is not a valid {model.__name__}:\n" + "\n".join(lines)) from error


def load_config(model: type[C], path: str | Path | None, overrides: Sequence[str] = ()) -> C:
    """Read a stage's YAML, apply overrides, validate.

    Raises:
        ValueError: for a missing file, an unset variable, an unknown key or a bad value.
    """
    data: dict[str, Any] = {}
    if path is not None:
        file = Path(path)
        if not file.is_file():
            raise ValueError(f"no config file at {file}: give an existing YAML file with --config")
        loaded = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        if not isinstance(loaded, dict):
            raise ValueError(f"{file} must hold a mapping of keys")
        data = loaded
    where = str(path) if path is not None else model.__name__
    _override(data, overrides)
    return build_config(model, _expand(data, where), where)
