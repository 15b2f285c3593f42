"""Stage configs: pydantic models with no unknown keys, read from YAML, overridden by `--a.b value`.

`${NAME}` in a YAML string is an environment variable; a missing one is an error that names it. What a stage records of
its config (`recorded`) names such variables and masks secrets that were written out.

`--overlay FILE` lays the sections of one file over the configs of any stage, before its overrides: `configs/tiny.yaml`
makes every config small. A section has the name of the config it is for (SftConfig: `sft`). In it, `"*"` stands for
every entry of a mapping or list, and a key that ends in `?` counts only where the config has that key.
Free of torch, vllm and ray.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
MASK = "***"
_OF_SECRETS = r"api|access|auth|bearer|client|hf|hub|private|refresh|secret|session|signing|wandb"
# A model's `eos_token` is none, nor is a mapping's `key: id`.
_SECRET_NAME = re.compile(
    rf"(.*[_-])?(({_OF_SECRETS})[_-]?(token|key)|password|passwd|passphrase|secret|credentials?|authorization)|token|key",
    re.IGNORECASE,
)
_RANDOM = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])\S{20,}")
_USERINFO = re.compile(r"(?<=://)[^/?#\s@]+(?=@)")
_QUERY = re.compile(r"(?<=[?&])([\w.~-]+)=([^&#\s]+)")


class StageConfig(BaseModel):
    """What every stage config has."""

    model_config = ConfigDict(extra="forbid")

    incidental: ClassVar[frozenset[str]] = frozenset()
    """Keys that decide how a result is reached and not what it is: a run may be resumed with other values."""

    output_dir: Path
    seed: int = 0

    _variables: dict[str, str] = PrivateAttr(default_factory=dict)
    """Value -> how the file says it, of the strings with environment variables."""

    def recorded(self) -> dict[str, Any]:
        """What may stand in a file: variables by name, secrets masked."""
        data = json.loads(self.model_dump_json(exclude={"output_dir"}))
        recorded: dict[str, Any] = without_secrets(data, self._variables)
        return recorded

    def decisive(self) -> dict[str, Any]:
        """What a result depends on, with values in place of variables; a new token or password is no new config."""
        data = json.loads(self.model_dump_json(exclude={"output_dir", *self.incidental}))
        decisive: dict[str, Any] = without_secrets(data)
        return decisive


C = TypeVar("C", bound=BaseModel)


def _is_secret(name: str, value: Any) -> bool:
    """Whether a key's value is to be masked: text under a name as secrets have it. A lone `key` can be a column's."""
    if not isinstance(value, str) or not value or not _SECRET_NAME.fullmatch(name):
        return False
    return name.lower() != "key" or _RANDOM.fullmatch(value) is not None


def public_text(text: str) -> str:
    """A text without the passwords and keys of the URLs in it."""
    if "://" not in text:
        return text
    text = _USERINFO.sub(MASK, text)
    return _QUERY.sub(lambda m: f"{m[1]}={MASK}" if _SECRET_NAME.fullmatch(m[1]) else m[0], text)


def without_secrets(value: Any, variables: Mapping[str, str] | None = None) -> Any:
    """Data with `***` for secrets: under names such as hf_token, password or authorization, and in URLs.

    Args:
        variables: strings that are to be replaced by how the config's file says them, `${NAME}`.
    """
    known = variables or {}
    if isinstance(value, Mapping):
        return {k: known.get(v, MASK) if _is_secret(str(k), v) else without_secrets(v, known) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(v, known) for v in value]
    if not isinstance(value, str):
        return value
    return public_text(known.get(value, value))


def _variables_in(raw: Any, expanded: Any) -> dict[str, str]:
    """Every expanded string, also as a path is written, with what it was before."""
    if isinstance(raw, dict):
        return {v: k for key in raw for v, k in _variables_in(raw[key], expanded[key]).items()}
    if isinstance(raw, list):
        return {v: k for pair in zip(raw, expanded, strict=True) for v, k in _variables_in(*pair).items()}
    if not isinstance(raw, str) or raw == expanded:
        return {}
    return {expanded: raw, str(Path(expanded)): raw}


def expand(value: Any, where: str) -> Any:
    """Strings with their `${NAME}` and `${NAME:-default}` filled in.

    Raises:
        ValueError: for a variable that is not set.
    """
    if isinstance(value, dict):
        return {k: expand(v, where) for k, v in value.items()}
    if isinstance(value, list):
        return [expand(v, where) for v in value]
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
    expanded = expand(data, where)
    config = build_config(model, expanded, where)
    if isinstance(config, StageConfig):
        config._variables = _variables_in(data, expanded)
    return config
