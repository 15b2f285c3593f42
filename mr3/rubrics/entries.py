"""The rubric library: named, versioned rubrics as YAML files, those of the package and those of the user's folders.

An entry is a rubric with a header: `version` (raised when the text changes), `about`, the `modes` that it is for, and
the task `families`. Its id is the name of its file.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mr3.records import Mode
from mr3.rubrics.checks import mode_problems
from mr3.rubrics.loading import RubricFile, read_file, refuse
from mr3.rubrics.record import Rubric

MODES: tuple[Mode, ...] = typing.get_args(Mode)


class Header(BaseModel):
    """What a library file says of its rubric."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(1, ge=1, strict=True)
    about: str = ""
    modes: tuple[Mode, ...] = Field((), description="modes it is written for; empty: all that its levels allow")
    families: tuple[str, ...] = ()


class Entry(BaseModel):
    """One rubric of a library."""

    model_config = ConfigDict(frozen=True)

    id: str
    path: Path
    rubric: Rubric
    header: Header

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that it can be used in."""
        return self.header.modes or tuple(m for m in MODES if not mode_problems(self.rubric, m))


def entry_of(name: str, path: Path, found: RubricFile) -> Entry:
    """Check header and levels of a file that was read.

    Raises:
        ValueError: naming the file, the key and the value.
    """
    try:
        header = Header.model_validate(found.header)
    except ValidationError as error:
        refuse(str(path), (f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()))
        raise AssertionError("pydantic raises with at least one error") from error
    problems = [f"mode {m}: {p}" for m in header.modes for p in mode_problems(found.rubric, m)]
    if not header.modes and not any(not mode_problems(found.rubric, m) for m in MODES):
        problems += [
            f"mode {m}: {p}" for m in ("pointwise", "pairwise", "binary") for p in mode_problems(found.rubric, m)
        ]
    refuse(str(path), problems)
    return Entry(id=name, path=path, rubric=found.rubric, header=header)


def load_entry(path: Path) -> Entry:
    """One library file.

    Raises:
        ValueError: for a file that is no valid entry.
    """
    return entry_of(path.stem, path, read_file(path))


def rubric_files(folder: Path) -> list[Path]:
    """The YAML files of a library folder, by name.

    Raises:
        ValueError: for a folder that is not there, holds no YAML file, or has two files of one name.
    """
    if not folder.is_dir():
        raise ValueError(f"no rubric library at {folder}: give a folder of YAML files")
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if not files:
        raise ValueError(f"the rubric library {folder} holds no YAML file")
    stems = [file.stem for file in files]
    for file in files:
        if stems.count(file.stem) > 1:
            raise ValueError(f"two files of the rubric library {folder} are named {file.stem}: rename one")
    return files


def built_in() -> Path:
    """The folder of the package's own library."""
    return Path(str(resources.files("mr3.rubrics"))) / "library"


def load_entries(folders: Iterable[str | Path] = (), own: bool = True) -> dict[str, Entry]:
    """Entries by id: the package's library (unless `own` is false), then the folders; a later id hides an earlier one.

    Raises:
        ValueError: for a folder or a file that is no library.
    """
    found: dict[str, Entry] = {}
    for folder in [*([built_in()] if own else []), *map(Path, folders)]:
        found |= {file.stem: load_entry(file) for file in rubric_files(folder)}
    return dict(sorted(found.items()))


def fitting(labels: Iterable[str]) -> list[str]:
    """Ids of the package's rubrics that describe just these scores, for messages that say what to use instead."""
    wanted = set(labels)
    return [name for name, entry in load_entries().items() if set(entry.rubric.levels) == wanted]


def find_entry(name: str, folders: Sequence[str | Path] = ()) -> Entry:
    """An entry by id, or the rubric of a file that `name` is the path of.

    Raises:
        ValueError: when there is neither, with the nearest ids.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return load_entry(Path(name))
    files = {file.stem: file for folder in (built_in(), *map(Path, folders)) for file in rubric_files(folder)}
    if name in files:
        return load_entry(files[name])
    near = difflib.get_close_matches(name, files, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"no rubric {name!r} in the library: {hint}`mr3 rubric list` names all; a file needs .yaml")


def rubric_yaml(rubric: Rubric, version: int, about: str, modes: Sequence[Mode] = ()) -> str:
    """The text of a library file."""
    header = {"name": rubric.name, "version": version, "about": about, **({"modes": list(modes)} if modes else {})}
    body = rubric.model_dump(exclude={"absent", "name"}, exclude_defaults=True)
    data = {**header, **body}
    text: str = yaml.safe_dump(data, allow_unicode=True, sort_keys=False, width=1_000)
    if yaml.safe_load(text) != data:  # YAML folds rare line separators unless they are escaped
        text = yaml.safe_dump(data, allow_unicode=False, sort_keys=False, width=1_000)
    return text
