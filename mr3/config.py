"""Stage configs: pydantic models with no unknown keys, read from YAML, overridden by `--a.b value`.

`${NAME}` in a YAML string is an environment variable; a missing one is an error that names it.

`--overlay FILE` lays the sections of one file over the configs of any stage, before its overrides: `configs/tiny.yaml`
makes every config small. A section has the name of the config it is for (SftConfig: `sft`). In it, `"*"` stands for
every entry of a mapping or list, and a key that ends in `?` counts only where the config has that key.
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


def section_of(model: type[BaseModel]) -> str:
    """The section of an overlay that is for configs of this kind: `policy-eval` for PolicyEvalConfig."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", model.__name__.removesuffix("Config")).lower()


def lay_over(data: Any, overlay: dict[str, Any]) -> None:
    """Merge an overlay into a config's data, in place.

    Raises:
        ValueError: where a section of the overlay meets something in the config that is none.
    """
    for name, value in overlay.items():
        key, optional = name.removesuffix("?"), name.endswith("?")
        if key == "*":
            for entry in data.values() if isinstance(data, dict) else data:
                lay_over(entry, value)
            continue
        if not isinstance(data, dict):
            raise ValueError(f"an overlay sets {key!r} where the config has {data!r}, which is no section")
        if optional and data.get(key) is None:
            continue
        if isinstance(value, dict):
            if data.get(key) is None:
                data[key] = {}
            lay_over(data[key], value)
        else:
            data[key] = value


def _pop_overlays(model: type[BaseModel], overrides: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files of `--overlay`, and the other overrides. A config with a key of that name hands the file on itself."""
    if "overlay" in model.model_fields:
        return [], list(overrides)
    files: list[Path] = []
    rest: list[str] = []
    words = iter(overrides)
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--overlay":
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if not value:
            raise ValueError("--overlay needs a value: --overlay FILE")
        files.append(Path(value))
    return files, rest


def _mapping(file: Path, what: str) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError(f"no {what} file at {file}: give an existing YAML file with --{what}")
    loaded = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    if not isinstance(loaded, dict):
        raise ValueError(f"{file} must hold a mapping of keys")
    return loaded


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
    """Read a stage's YAML, lay overlays over it, apply overrides, validate.

    Raises:
        ValueError: for a missing file, an unset variable, an unknown key or a bad value.
    """
    data = {} if path is None else _mapping(Path(path), "config")
    overlays, overrides = _pop_overlays(model, overrides)
    for file in overlays:
        lay_over(data, _mapping(file, "overlay").get(section_of(model)) or {})
    where = str(path) if path is not None else model.__name__
    _override(data, overrides)
    return build_config(model, _expand(data, where), where)
