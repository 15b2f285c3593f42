"""`mr3 trace-sheet`: blind sheets of judges' reasoning for people to rate, and what they said.

In: evaluations of one tasks file by several judges. Out: `sheets/LANGUAGE.csv` to hand out, key.json, which stays. With
`import:` (the sheets' folder and the filled CSVs) instead: ratings.json, per question and run, paired.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.artifacts import stage_run, write_json
from mr3.config import StageConfig
from mr3.stage import stage_main

log = logging.getLogger(__name__)


class FilledSheets(BaseModel):
    """Which sheets were filled."""

    model_config = ConfigDict(extra="forbid")

    sheet: Path = Field(description="folder in which `mr3 trace-sheet` made the sheets")
    files: list[Path] = Field(min_length=1, description="filled CSVs, of one annotator or several")


class TraceSheetConfig(StageConfig):
    """Config of `mr3 trace-sheet`."""

    tasks: Path | None = Field(None, description="the tasks file that all runs were evaluated on")
    runs: dict[str, Path] = Field(default_factory=dict, description="name -> folder of a finished `mr3 eval`")
    languages: list[str] = Field(default_factory=list, description="of the tasks; empty: all")
    per_language: int = Field(20, ge=1, description="tasks in the sheet of each language; each comes once per run")
    import_: FilledSheets | None = Field(None, alias="import", description="read ratings, make no sheet")

    @model_validator(mode="after")
    def _one_of_two(self) -> TraceSheetConfig:
        if self.import_ is None and (self.tasks is None or not self.runs):
            raise ValueError("give `tasks` and `runs` to make sheets, or `import` to read filled ones")
        return self


def run(config: TraceSheetConfig) -> None:
    """Make sheets, or read filled ones.

    Raises:
        ValueError: for an unfinished evaluation, nothing to rate, or filled sheets that don't fit their key.
    """
    from rewards.annotation.trace_sheets import KEY, load_trace_key, rated, read_trace_ratings, write_trace_sheets

    filled, inputs = None, [path / "verdicts.parquet" for path in config.runs.values()]
    if config.tasks is not None:
        inputs.append(config.tasks)
    if config.import_ is not None:
        key = load_trace_key(config.import_.sheet)
        filled = rated(key, read_trace_ratings(config.import_.files, key))
        inputs += [config.import_.sheet / KEY, *config.import_.files]
    with stage_run("trace-sheet", config, inputs) as stage:
        if stage.finished:
            return
        if filled is not None:
            write_json(stage.folder / "ratings.json", filled)
            stage.metrics = filled
        else:
            assert config.tasks is not None, "checked by the config"
            stage.metrics = write_trace_sheets(
                stage.folder, config.tasks, config.runs, config.languages, config.per_language, config.seed
            )
            log.info("%d traces: hand out %s, keep %s", stage.metrics["items"], stage.folder / "sheets", KEY)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the stage."""
    return stage_main("trace-sheet", TraceSheetConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
