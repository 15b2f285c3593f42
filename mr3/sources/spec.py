"""How configs name sources: a known set, files, or an adapter. Free of torch, vllm and ray.

One source is one of
    {set: helpsteer3, revision: COMMIT}                            a published set, by its name in the registry
    {set: mgsm, path: mgsm.jsonl}                                  the same columns from a local file
    {path: rows.jsonl}                                             files in the factory's own row format
    {path: a.parquet, mode: pairwise, columns: {...}, rubric: {}}  files with other columns
    {adapter: package.module:function, options: {...}}             a function that yields rows
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from mr3.records import Mode

COMMIT = re.compile(r"[0-9a-f]{40}")


GoldScale = Annotated[
    Literal["set", "verdict"],
    Field(description="set: golds as the published set has them (HelpSteer3: -3..3); verdict: the scores (1..7)"),
]


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, description="name in ids and reports; unset: the set's, file's or adapter's")
    limit: int | None = Field(None, ge=1, description="only the first so many rows")
    languages: list[str] | None = Field(None, description="rows in other languages are left out, and counted")
    rubrics: str | list[str] | None = Field(
        None,
        description="rubrics of its rows: YAML files, a folder of them, or rubrics.parquet of `mr3 rubric generate`",
    )


class SetSource(_Source):
    """A published set of the registry (`mr3/sources/sets.yaml`), from the hub or from local files with its columns."""

    set: str
    revision: str = Field("main", description="a commit, or what is looked up once, at the start of a run")
    path: str | list[str] | None = Field(None, description="local files in place of the hub")
    gold_scale: GoldScale = "set"
    split: str | None = Field(None, description="unset: the registry's")
    streaming: bool = Field(True, description="read while downloading; false keeps a copy in the cache of `datasets`")


class Columns(BaseModel):
    """Where a file keeps what: each value is a column's name, `responses` a list of them or one column with a list."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(None, description="unset: a hash of the row's content")
    input: str = "input"
    responses: str | list[str] = Field(default_factory=list)
    gold: str = "actual_score"
    language: str | None = "language"
    instruction: str | None = None
    reference: str | None = None
    options: str | None = None


class FileSource(_Source):
    """JSONL (also .gz), JSON, CSV, TSV or Parquet files."""

    path: str | list[str]
    mode: Mode | None = Field(None, description="needed with columns; unset: files in the factory's own row format")
    columns: Columns | None = None
    rubric: dict[str, Any] | str | None = Field(None, description="a rubric, or its YAML file; needed with columns")
    own_rubrics: dict[str, dict[str, Any] | str] = Field(default_factory=dict, description="language -> rubric")
    labels: dict[str, str] = Field(default_factory=dict, description="a file's value -> legal score")
    language: str | None = Field(None, description="of all rows, where there is no column for it")

    @model_validator(mode="after")
    def _whole(self) -> FileSource:
        if (self.columns is None) != (self.mode is None):
            raise ValueError("columns and mode go together: give both, or neither for the factory's own row format")
        if self.columns is not None and self.rubric is None and self.rubrics is None and self.mode != "choice":
            raise ValueError(
                "a file with columns needs a rubric: set `rubric:` to criteria or levels, or to a file, or `rubrics:`"
            )
        if self.columns is not None and self.columns.language is None and self.language is None:
            raise ValueError("no language: name its column, or set `language:` for all rows")
        return self


class AdapterSource(_Source):
    """A function by import string; `function(**options)` yields `Labelled` rows, their dumps, or `SetAside`."""

    adapter: str = Field(description="package.module:function")
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("adapter")
    @classmethod
    def _import_string(cls, value: str) -> str:
        if value.count(":") != 1:
            raise ValueError(f"give an adapter as package.module:function, not {value!r}")
        return value


def _kind(value: Any) -> Literal["set", "adapter", "file"]:
    keys = value if isinstance(value, dict) else type(value).model_fields
    return "set" if "set" in keys else "adapter" if "adapter" in keys else "file"


SourceSpec = Annotated[
    Annotated[SetSource, Tag("set")] | Annotated[FileSource, Tag("file")] | Annotated[AdapterSource, Tag("adapter")],
    Discriminator(_kind),
]


class Texts(BaseModel):
    """Which prompt texts and rubrics known sets get, and how one of several paraphrases is picked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["own", "published"] = Field("published", description="the project's own texts, or the published ones")
    templates_dir: Path | None = Field(None, description="your copy of the published templates (data/mr3_rubrics)")
    unverified: bool = Field(False, description="own texts also of languages that were not verified")
    seed: int = Field(0, description="of the choice among a family's rubrics and of the order of their keys")
