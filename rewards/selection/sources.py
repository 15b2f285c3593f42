"""Read label runs: prompt by prompt the responses, and every comparison on a margin scale that all modes share.

Comparisons of pairwise runs are those of the run. Scores of single responses (pointwise, binary) compare all responses
of a prompt, also those that the run's plan left out, or that it did not compare at all (`pair_rule: none`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from mr3.artifacts import metrics_of
from mr3.judging.scale import label_values
from mr3.records import PoolMode
from mr3.rubrics import Rubric
from rewards.model import compare_scores, margins_vary, scored
from rewards.records import Comparison
from rewards.selection.config import LabelSource
from rewards.walk import Labelled, Row, as_verdict, label_settings, scale_of, walk


@dataclass(frozen=True)
class Source:
    """One label run and what its numbers mean."""

    folder: Path
    name: str
    weight: float
    mode: PoolMode
    scale: tuple[str, ...]
    tie_margin: float
    judge: str
    rubric: Rubric
    rubric_hash: str
    seed: int
    prompts: int
    margins_vary: bool

    @property
    def width(self) -> float:
        """Of the scale: the largest difference of two scores."""
        values = label_values(self.scale, self.mode).values()
        return (max(values) - min(values)) or 1.0


def open_source(label: LabelSource) -> Source:
    """What a label run was made with.

    Raises:
        ValueError: when the folder is not a finished `mr3 label` folder, or of a version that kept no texts.
    """
    import pyarrow.parquet as pq

    settings = label_settings(label.folder)
    rubric = Rubric.model_validate(settings["rubric"])
    prompts = label.folder / "prompts.parquet"
    if not prompts.is_file():
        raise ValueError(f"{label.folder} has no prompts.parquet: run `mr3 label` again (judgements are in its store)")
    return Source(
        folder=label.folder,
        name=label.name,
        weight=label.weight,
        mode=settings["mode"],
        scale=scale_of(settings),
        tie_margin=float(settings["tie_margin"]),
        judge=_judge(label.folder),
        rubric=rubric,
        rubric_hash=rubric.content_hash,
        seed=int(settings["seed"]),
        prompts=pq.ParquetFile(prompts).metadata.num_rows,
        margins_vary=margins_vary(
            settings["mode"], settings["samples"], settings["combine"], settings["orders"], _has_odds(label.folder)
        ),
    )


def _judge(folder: Path) -> str:
    """The id of the judge that a run's verdicts name (a hash of its weights, or id@revision)."""
    import pyarrow.parquet as pq

    found: set[str] = set()
    for batch in pq.ParquetFile(folder / "verdicts.parquet").iter_batches(columns=["judge"]):
        found.update(batch.column("judge").unique().to_pylist())
    return ", ".join(sorted(name for name in found if name))


def _has_odds(folder: Path) -> bool:
    """Whether any verdict of the run has an expected score."""
    import pyarrow.parquet as pq

    column = pq.ParquetFile(folder / "verdicts.parquet").iter_batches(columns=["expected"])
    return any(batch.column("expected").null_count < batch.num_rows for batch in column)


def flip_rate(source: Source) -> dict[str, Any] | None:
    """How often the two orders of a pairwise run disagreed; None where it was not measured."""
    rate: dict[str, Any] | None = metrics_of(source.folder).get("flip_rate")
    return rate


def records(source: Source) -> Iterator[Row]:
    """Every prompt of a run as JSON: prompt_id, language, prompt, meta, responses, comparisons."""
    for prompt in walk(source.folder):
        yield {
            "prompt_id": prompt.prompt_id,
            "language": prompt.language,
            "prompt": prompt.prompt,
            "meta": prompt.meta,
            "responses": [{k: r[k] for k in ("response_id", "text", "policy")} for r in prompt.responses],
            "comparisons": [c.model_dump() for c in comparisons(prompt, source)],
        }


def comparisons(prompt: Labelled, source: Source) -> list[Comparison]:
    """All comparisons of one prompt, margins from 0 to 1."""
    if source.mode == "pairwise":
        names = Comparison.model_fields
        return [Comparison.model_validate({k: v for k, v in row.items() if k in names}) for row in prompt.comparisons]
    verdicts: dict[str, list[Row]] = {}
    for row in sorted(prompt.verdicts, key=lambda v: (v["sample"], v["id"])):
        verdicts.setdefault(row["response_ids"][0], []).append(row)
    scores = {k: scored([as_verdict(v) for v in rows], source.scale, source.mode) for k, rows in verdicts.items()}
    ids = {k: tuple(v["id"] for v in rows) for k, rows in verdicts.items()}
    found = [compare_scores(a, b, scores, ids, source.tie_margin) for a, b in combinations(sorted(scores), 2)]
    return [
        c if c.margin is None else c.model_copy(update={"margin": min(1.0, c.margin / source.width)}) for c in found
    ]
