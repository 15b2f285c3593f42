"""Read filled sheets: every row by its id, every rating one of the legal ones, every problem with file and row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from mr3.records import Record
from rewards.annotation.cells import read_sheet
from rewards.annotation.sample import Item
from rewards.annotation.sheets import Key
from rewards.auditing.people import majority
from rewards.records import CONSENSUS, Gold, GoldLabel, GoldPair

SIDES: dict[str, Literal["a", "b", "tie"]] = {"A": "a", "B": "b", "tie": "tie"}


class ImportSettings(BaseModel):
    """Which sheets were filled, and by whom."""

    model_config = ConfigDict(extra="forbid")

    sheet: Path = Field(description="folder in which `mr3 annotate` made the sheets")
    files: dict[str, Path | list[Path]] | list[Path] = Field(
        description="annotator -> filled CSV or several; a list names annotators by their files"
    )

    @property
    def by_annotator(self) -> dict[str, list[Path]]:
        """Annotator -> files.

        Raises:
            ValueError: when there is no file, two files would be one annotator, or a name is reserved.
        """
        if isinstance(self.files, dict):
            found = {name: [f] if isinstance(f, Path) else list(f) for name, f in self.files.items()}
        else:
            found = {file.stem: [file] for file in self.files}
            if len(found) < len(self.files):
                raise ValueError(
                    "two filled sheets have the same file name: write import.files as {annotator: [files]}"
                )
        if not found:
            raise ValueError("import.files is empty: name the filled sheets, {annotator: file}")
        if CONSENSUS in found:
            raise ValueError(f"{CONSENSUS!r} names the majority of annotators: give this annotator another name")
        return found


class Rating(Record):
    """What one annotator wrote into one row; rating None where it was left empty."""

    item: str
    annotator: str
    rating: str | None
    comment: str = ""


def read_ratings(settings: ImportSettings, key: Key) -> list[Rating]:
    """All rows of all filled sheets.

    Raises:
        ValueError: for a row of another sheet, an illegal rating, or an item rated twice by one annotator.
    """
    known = {item.id for item in key.items}
    found = []
    for annotator, files in settings.by_annotator.items():
        seen: set[str] = set()
        for file in files:
            for rating in _rows(file, annotator, key.choices):
                if rating.item not in known:
                    raise ValueError(f"{file}: item {rating.item!r} is not of the sheets in {settings.sheet}")
                if rating.item in seen:
                    raise ValueError(f"{file}: item {rating.item!r} is there twice for {annotator}: keep one")
                seen.add(rating.item)
                found.append(rating)
    return found


def _rows(file: Path, annotator: str, choices: Sequence[str]) -> Iterator[Rating]:
    legal = {choice.casefold(): choice for choice in choices}
    for number, row in enumerate(read_sheet(file, ("item", "rating")), start=1):
        written = row["rating"].strip()
        rating = legal.get(written.casefold())
        if written and rating is None:
            raise ValueError(f"{file}, row {number}: rating {written!r} is none of {', '.join(choices)}")
        yield Rating(item=row["item"].strip(), annotator=annotator, rating=rating, comment=row.get("comment", ""))


def by_item(ratings: Sequence[Rating]) -> dict[str, dict[str, str]]:
    """Item -> annotator -> rating, empty ones left out."""
    found: dict[str, dict[str, str]] = {}
    for rating in ratings:
        if rating.rating is not None:
            found.setdefault(rating.item, {})[rating.annotator] = rating.rating
    return found


def gold_rows(key: Key, said: Mapping[str, Mapping[str, str]]) -> Iterator[Gold]:
    """The labels for `gold:` of `mr3 audit`: each annotator's, and their majority (None where they are split)."""
    for item in key.items:
        labels: dict[str, str | None] = dict(said.get(item.id, {}))
        if labels:
            labels[CONSENSUS] = majority(labels)
        for annotator, label in labels.items():
            yield _gold(item, annotator, label)


def _gold(item: Item, annotator: str, label: str | None) -> Gold:
    about = {"prompt_id": item.prompt_id, "language": item.language, "annotator": annotator}
    if len(item.response_ids) == 1:
        return GoldLabel(**about, response_id=item.response_ids[0], label=label)
    a, b = item.response_ids
    side = None if label is None else SIDES[cast("Literal['A', 'B', 'tie']", label)]
    return GoldPair(**about, a=a, b=b, label=side)
