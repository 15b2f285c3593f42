"""The history of a refinement: one JSON line per round, synced when it is written, read again when a run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mr3.refinement.records import Proposal
from mr3.rubrics import Rubric
from mr3.stats import Rate


class Judged(BaseModel):
    """A proposal with its mean on the development set (None where it was not judged)."""

    model_config = ConfigDict(extra="forbid")

    proposal: Proposal
    hash: str | None = None
    develop: float | None = None


class Round(BaseModel):
    """One round: what was proposed, what was tried on the second set, and what came of it."""

    model_config = ConfigDict(extra="forbid")

    round: int
    before: str
    develop: float
    proposals: list[Judged]
    chosen: str | None = None
    chosen_develop: float | None = None
    difference: Rate | None = None
    accepted: bool = False
    why: str
    rubric: Rubric


class History:
    """`history.jsonl` of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Round]:
        """All whole rounds; a torn last line (a run that died while writing it) is cut off the file.

        Raises:
            ValueError: for a line that is whole and yet no round.
        """
        if not self.path.is_file():
            return []
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))
        found = []
        for number, line in enumerate(whole.decode("utf-8").splitlines(), start=1):
            try:
                found.append(Round.model_validate_json(line))
            except ValidationError as error:
                raise ValueError(f"{self.path}, line {number} is no round of a refinement: {error}") from error
        return found

    def add(self, row: Round) -> None:
        """Append one round and sync it."""
        values: dict[str, Any] = row.model_dump(mode="json")
        with self.path.open("ab") as out:
            out.write((json.dumps(values, ensure_ascii=False) + "\n").encode("utf-8"))
            out.flush()
            os.fsync(out.fileno())
