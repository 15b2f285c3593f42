"""`mr3 annotate`: blind sheets of labelled pairs (or responses) for people to rate; then agreement with them.

In: a folder that `mr3 label` made. Out, in `output_dir`: `sheets/` to hand out (per language a CSV and an HTML page
that works offline) and key.json, which stays: it says which response is which, and what the judge said.
With `import:` (the sheets' folder and the filled CSVs) instead: agreement.json, ratings.jsonl and gold.jsonl, which
`mr3 audit` reads as `gold:`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mr3.artifacts import StageRun, finished_files, hash_path, stage_run, write_atomic, write_json
from mr3.config import StageConfig
from mr3.stage import stage_main
from rewards.annotation.ratings import ImportSettings
from rewards.annotation.sample import PAIR_CHOICES, Allocation, Of

if TYPE_CHECKING:
    from rewards.annotation.ratings import Rating
    from rewards.annotation.sheets import Key

log = logging.getLogger(__name__)


class AnnotateConfig(StageConfig):
    """Config of `mr3 annotate`."""

    label: Path = Field(description="folder that `mr3 label` made")
    items: Of | None = Field(None, description="pairs or responses; default: pairs of a pairwise run, else responses")
    per_language: int = Field(50, ge=1, description="items in the sheet of each language")
    allocation: Allocation = Field(
        "proportional", description="to what the judge said (decided, tie, flip; labels): by size, or equal shares"
    )
    import_: ImportSettings | None = Field(
        None, alias="import", description="{sheet: FOLDER, files: {annotator: filled.csv}}: read ratings, make no sheet"
    )


def _of(config: AnnotateConfig, settings: dict[str, Any]) -> Of:
    of: Of = config.items or ("pairs" if settings["mode"] == "pairwise" else "responses")
    if of == "responses" and settings["mode"] == "pairwise":
        raise ValueError(f"{config.label} judged pairs, not single responses: set items to pairs")
    return of


def _sheets(config: AnnotateConfig, settings: dict[str, Any], stage: StageRun) -> None:
    from rewards.annotation.sample import Sampler
    from rewards.annotation.sheets import Key, write_sheets
    from rewards.walk import scale_of, walk

    of = _of(config, settings)
    reference = settings["reference"] == "include"
    sampler = Sampler(of, config.per_language, config.allocation, config.seed, reference=reference)
    for prompt in walk(config.label):
        sampler.add(prompt)
    items, design = sampler.sample()
    if not items:
        raise ValueError(f"{config.label} holds no {of} with a verdict: nothing to annotate ({sampler.failed} failed)")
    key = Key(
        of=of,
        choices=PAIR_CHOICES if of == "pairs" else scale_of(settings),
        label_hash=hash_path(config.label / "manifest.json"),
        failed=sampler.failed,
        strata=tuple(design),
        items=tuple(item for item, _ in items),
    )
    files = write_sheets(stage.folder, items, key, settings["rubric"])
    stage.metrics = {
        "of": of,
        "items": len(items),
        "judge_failed": sampler.failed,
        "sheets": [file.name for file in files],
        "strata": [s.model_dump() for s in design],
    }
    log.info("%d items in %d sheets: hand out %s, keep key.json", len(items), len(files), stage.folder / "sheets")


def _read(config: AnnotateConfig, settings: ImportSettings) -> tuple[Key, list[Rating]]:
    from rewards.annotation.ratings import by_item, read_ratings
    from rewards.annotation.sheets import load_key

    key = load_key(settings.sheet)
    if key.label_hash != hash_path(config.label / "manifest.json"):
        raise ValueError(f"the sheets in {settings.sheet} were not made from {config.label}: give that run as label")
    ratings = read_ratings(settings, key)
    if not by_item(ratings):
        raise ValueError("no row of the filled sheets has a rating: fill the column rating, or give the right files")
    return key, ratings


def _import(key: Key, ratings: Sequence[Rating], stage: StageRun) -> None:
    from rewards.annotation.agreement import agreement
    from rewards.annotation.ratings import by_item, gold_rows
    from rewards.auditing.gold import write_gold

    said = by_item(ratings)
    found = agreement(key, said)
    write_atomic(stage.folder / "ratings.jsonl", "".join(f"{r.model_dump_json()}\n" for r in ratings).encode())
    write_gold(stage.folder / "gold.jsonl", gold_rows(key, said))
    write_json(stage.folder / "agreement.json", found)
    stage.metrics = found
    judge = found["all"]["judge"]
    log.info("judge and people agree on %s, kappa %s", _short(judge["accuracy"]), _short(judge["kappa"]))


def _short(rate: dict[str, Any]) -> str:
    if rate["value"] is None:
        return f"nothing ({rate.get('reason', 'n=0')})"
    interval = rate.get("interval")
    span = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{rate['value']:.3f}{span} (n={rate['n']})"


def run(config: AnnotateConfig) -> None:
    """Make sheets, or read filled ones.

    Raises:
        ValueError: for an unfinished label folder, nothing to annotate, or filled sheets that don't fit their key.
    """
    from rewards.annotation.sheets import KEY
    from rewards.walk import label_settings

    settings = label_settings(config.label)
    _of(config, settings)
    inputs = finished_files(config.label)
    filled = None
    if config.import_ is not None:
        filled = _read(config, config.import_)  # mistakes in sheets are told before the folder is taken
        inputs += [config.import_.sheet / KEY, *(f for files in config.import_.by_annotator.values() for f in files)]
    with stage_run("annotate", config, inputs) as stage:
        if stage.finished:
            return
        if filled is None:
            _sheets(config, settings, stage)
        else:
            _import(*filled, stage)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the stage."""
    return stage_main("annotate", AnnotateConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
