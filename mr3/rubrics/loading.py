"""Reading a rubric strictly: a mapping or a YAML file in, a `Rubric` and what stands around it out.

An error names the file, the criterion or level, and the value; all problems of a file are listed at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mr3.rubrics.record import Rubric

HEADER = ("version", "about", "modes", "families")
"""Keys of a library file that tell of the rubric, and are no part of what the judge reads."""

_MARKUP = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?(?:think|tool_call|tool_response)>")
_SHOWN = 60


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key that comes twice is an error: PyYAML would keep the last one and say nothing."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, str | int | float | bool | None):
            if key in seen:
                raise ValueError(f"line {key_node.start_mark.line + 1}: the key {key!r} comes twice; keep one of them")
            seen.add(key)
    loader.flatten_mapping(node)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


@dataclass(frozen=True)
class RubricFile:
    """A rubric and the header of its file (empty where the file is a plain rubric)."""

    rubric: Rubric
    header: dict[str, Any]


def refuse(where: str, problems: Iterable[str]) -> None:
    """Raise one ValueError with every problem on a line of its own; nothing happens where there is none."""
    lines = [f"  {problem}" for problem in problems]
    if lines:
        raise ValueError(f"{where} is not a valid rubric:\n" + "\n".join(lines))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _place(location: tuple[int | str, ...], data: Mapping[str, Any]) -> str:
    """Where a problem is, a criterion by its name where it has one."""
    if not location:
        return "rubric"
    if location[0] != "criteria" or len(location) < 2:
        return ".".join(map(str, location))
    index, criteria = location[1], data.get("criteria")
    name: object = None
    if isinstance(index, int) and isinstance(criteria, list) and index < len(criteria):
        name = criteria[index].get("name") if isinstance(criteria[index], dict) else None
    here = f"criterion {name!r}" if isinstance(name, str) and name else f"criterion {int(index) + 1}"
    return ".".join([here, *map(str, location[2:])])


def _levels_by_text(data: Mapping[str, Any]) -> list[str]:
    """YAML reads 1 as a number and true as a truth value; a label is text."""
    levels = data.get("levels")
    wrong = [key for key in levels if not isinstance(key, str)] if isinstance(levels, dict) else []
    shown = {key: str(key).lower() if isinstance(key, bool) else str(key) for key in wrong}
    return [f"levels: the label {key!r} is not text for YAML: write it as '{text}'" for key, text in shown.items()]


def text_problems(rubric: Rubric) -> list[str]:
    """What is wrong with the texts of a rubric that is well-formed: blank ones, and chat markup in them."""
    texts = [(f"criterion {c.name!r}.{kind}", getattr(c, kind)) for c in rubric.criteria for kind in _CRITERION_TEXTS]
    texts += [(f"level {label!r}", text) for label, text in rubric.levels.items()]
    found = []
    for place, text in texts:
        markup = _MARKUP.search(text)
        if not text.strip():
            found.append(f"{place}: the text {_short(text)} is empty; describe it, or take it out")
        elif markup:
            found.append(f"{place}: chat markup {markup.group()!r} has no place in a rubric: {_short(text)}")
    found += [f"level {label!r}: a label can't be blank" for label in rubric.levels if not label.strip()]
    return found


_CRITERION_TEXTS = ("name", "description")


def read_mapping(data: object, where: str) -> RubricFile:
    """Validate what a file or a message held.

    Raises:
        ValueError: naming `where`, the criterion or level, and the value.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} is not a valid rubric:\n  it holds {_short(data)}, not a mapping with `criteria:`")
    refuse(where, _levels_by_text(data))
    header = {key: data[key] for key in HEADER if key in data}
    body = {key: value for key, value in data.items() if key not in HEADER}
    try:
        rubric = Rubric.model_validate(body)
    except ValidationError as error:
        lines = []
        for e in error.errors():
            said = "" if e["type"] in ("missing", "value_error") else f" (got {_short(e['input'])})"
            lines.append(f"{_place(e['loc'], body)}: {e['msg']}{said}")
        refuse(where, lines)
        raise AssertionError("pydantic raises with at least one error") from error
    refuse(where, text_problems(rubric))
    return RubricFile(rubric, header)


def read_file(path: Path) -> RubricFile:
    """As `read_mapping`, from a YAML file.

    Raises:
        ValueError: also for a missing file, and for a file that is not YAML.
    """
    if not path.is_file():
        raise ValueError(f"no rubric file at {path}: give the path of a YAML file with `criteria:`")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} can't be read as YAML: {error}") from error
    return read_mapping(data, str(path))


def load_rubric(source: str | Path | dict[str, object]) -> Rubric:
    """Read one rubric from a mapping or a YAML file (also one of a rubric library).

    Raises:
        ValueError: naming the file and the criterion, when the rubric is not valid.
    """
    if isinstance(source, dict):
        return read_mapping(source, "rubric").rubric
    return read_file(Path(source)).rubric
