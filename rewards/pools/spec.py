"""The `pool:` block of a config: which sources are read, and what is done with their rows.

A pool is one of
    runs/pool/pool.parquet                                  a file or folder in the pool's own format
    [a.jsonl, b/]                                           several of them
    {path: a.parquet, columns: {...}}                       files in another format, see `rewards.pools.columns`
    {hub: org/set, split: train, revision: COMMIT, columns: {...}}
    {source: package.module:function, options: {...}}       an adapter
    {sources: [any of these, ...], merge: true, default_language: en}
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from rewards.pools.columns import Columns

_COMMIT = re.compile(r"[0-9a-f]{40}")
_BUILDERS = ("json", "parquet", "csv", "arrow", "text")


class Adapter(BaseModel):
    """A reader given by import string: `source(**options)` yields `PoolRow`, raw rows (dicts) and `SetAside`."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(description="package.module:function")
    options: dict[str, Any] = Field(default_factory=dict)


class FileSource(BaseModel):
    """JSONL, JSONL.gz or Parquet files, or folders of them."""

    model_config = ConfigDict(extra="forbid")

    path: str | list[str] = Field(description="file or folder, or a list of them")
    columns: Columns | None = Field(None, description="the files' names for ours; unset: the pool's own format")
    limit: int | None = Field(None, ge=1, description="only the first so many rows")

    @property
    def paths(self) -> list[str]:
        """Always a list."""
        return [self.path] if isinstance(self.path, str) else self.path


class HubSource(BaseModel):
    """A data set read by `datasets.load_dataset`: a hub id at a pinned commit, a local folder, or files of a format."""

    model_config = ConfigDict(extra="forbid")

    hub: str = Field(description=f"hub id, local folder, or a format ({', '.join(_BUILDERS)}) together with data_files")
    config: str | None = Field(None, description="name of the set's configuration (subset)")
    split: str = "train"
    revision: str | None = Field(None, description="commit (40 hex digits); required for hub ids")
    data_files: str | list[str] | None = Field(None, description="as load_dataset takes them")
    streaming: bool = Field(True, description="read while downloading; false keeps a copy in the cache of `datasets`")
    columns: Columns | None = Field(None, description="the set's names for ours; unset: the pool's own format")
    limit: int | None = Field(None, ge=1, description="only the first so many rows")

    @property
    def local(self) -> bool:
        """Whether nothing is fetched from a hub."""
        return Path(self.hub).is_dir() or (self.hub in _BUILDERS and self.data_files is not None)

    @model_validator(mode="after")
    def _pinned(self) -> HubSource:
        if self.hub in _BUILDERS and self.data_files is None:
            raise ValueError(f"hub: {self.hub} is a file format: say which files with data_files")
        if not self.local and not _COMMIT.fullmatch(self.revision or ""):
            raise ValueError(
                f"pin {self.hub}: set revision to a commit of 40 hex digits (shown under 'Files and versions' of the "
                f"set's page), so that a run that goes on reads the same rows; got {self.revision!r}"
            )
        return self


def _kind(value: Any) -> str | None:
    """Which of the shapes a value of the config has; None for none of them."""
    if isinstance(value, str):
        return "path"
    if isinstance(value, list | tuple):
        return "list"
    for key, model in (("sources", Pool), ("source", Adapter), ("hub", HubSource), ("path", FileSource)):
        if isinstance(value, model) or (isinstance(value, dict) and key in value):
            return key if key != "path" else "file"
    return None


_SHAPES = Discriminator(
    _kind,
    custom_error_type="pool",
    custom_error_message=(
        "give a path, a list, {path: ..., columns: ...}, {hub: ..., revision: ..., columns: ...}, "
        "{source: package.module:function, options: ...} or {sources: [...], merge: true}"
    ),
)
_Path = Annotated[str, Tag("path")]
_File = Annotated[FileSource, Tag("file")]
_Hub = Annotated[HubSource, Tag("hub")]
_Adapter = Annotated[Adapter, Tag("source")]

Source = Annotated[_Path | _File | _Hub | _Adapter, _SHAPES]


class Pool(BaseModel):
    """Several sources, and how their rows become one pool."""

    model_config = ConfigDict(extra="forbid")

    sources: list[Source] = Field(min_length=1)
    merge: bool = Field(False, description="join rows of the same prompt; equal responses become one")
    default_language: str | None = Field(
        None, description="for rows whose language can't be told; unset: they are set aside"
    )
    languages: list[str] | None = Field(
        None, description="only these are possible where a language is told by the text"
    )
    min_confidence: float = Field(0.5, ge=0.0, le=1.0, description="below it a language counts as untold")


_Pool = Annotated[Pool, Tag("sources")]
_List = Annotated[list[Source], Tag("list")]

PoolSpec = Annotated[_Path | _List | _File | _Hub | _Adapter | _Pool, _SHAPES]


def as_pool(spec: PoolSpec) -> Pool:
    """Every shape as the longest one."""
    if isinstance(spec, Pool):
        return spec
    return Pool(sources=spec if isinstance(spec, list) else [spec])
