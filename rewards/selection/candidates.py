"""Pairs that passed all that can be said of one prompt, on disk until it is known how many of each language fit.

Rows stand in the order of the merge, so those of one prompt are neighbours, whatever order the inputs had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.records import stable_hash
from rewards.pairs import pair_of
from rewards.rows import pair_row
from rewards.selection.config import PairsConfig
from rewards.selection.draw import Draw, Numbers, count
from rewards.selection.funnel import Funnel
from rewards.selection.merge import Merged
from rewards.selection.sources import Source
from rewards.selection.votes import Decision
from rewards.tables import PREFERENCES
from rewards.walk import Row

_ALL = "*"
PAIRS = PREFERENCES.append(pa.field("labels", pa.list_(pa.string()))).append(pa.field("agreement", pa.float64()))
"""What `mr3 label` writes, the label runs that favour the chosen response, and their share of the weight."""
CANDIDATES = PAIRS.append(pa.field("lot", pa.uint64())).append(pa.field("heldout", pa.bool_()))


def held_out(prompt: Merged, config: PairsConfig) -> bool:
    """Whether a prompt is set apart, by what it says (or by its meta's `heldout_by`): other seeds split the same.

    Raises:
        ValueError: when the meta of the prompt has no such key.
    """
    if not config.heldout_share:
        return False
    content: object = [prompt.language, prompt.prompt]
    if config.heldout_by is not None:
        if config.heldout_by not in prompt.meta:
            known = ", ".join(sorted(prompt.meta)) or "none"
            raise ValueError(
                f"heldout_by is {config.heldout_by!r}, but prompt {prompt.prompt_id!r} has no such meta: {known}"
            )
        content = prompt.meta[config.heldout_by]
    return int(stable_hash("heldout", content, length=16), 16) < config.heldout_share * (1 << 64)


def candidate_row(prompt: Merged, decision: Decision, sources: Mapping[str, Source], seed: int, heldout: bool) -> Row:
    """One pair with where it comes from."""
    pair = pair_of(decision.comparison)
    chosen, rejected = prompt.responses[pair.chosen], prompt.responses[pair.rejected]
    runs = [sources[name] for name in decision.labels]
    return {
        **pair_row(prompt.prompt_id, prompt.language, prompt.prompt, chosen, rejected, pair),
        "judge": ", ".join(dict.fromkeys(run.judge for run in runs)),
        "rubric_hash": ", ".join(dict.fromkeys(run.rubric_hash for run in runs)),
        "labels": list(decision.labels),
        "agreement": decision.share,
        "lot": int(
            stable_hash("draw", seed, prompt.prompt_id, chosen.text.strip(), rejected.text.strip(), length=16), 16
        ),
        "heldout": heldout,
    }


def _lots(file: Path) -> Numbers:
    """The lots of the candidates by language."""

    def stream() -> Iterator[tuple[str, int]]:
        for batch in pq.ParquetFile(file).iter_batches(columns=["language", "lot"]):
            yield from zip(batch["language"].to_pylist(), batch["lot"].to_pylist(), strict=True)

    return stream


class Quotas:
    """Which candidates fit the balance of languages and the number of pairs in all."""

    def __init__(self, file: Path, config: PairsConfig) -> None:
        """Read the candidates' lots.

        Raises:
            ValueError: when not one pair of each language fits into `max_pairs`.
        """
        stream = _lots(file)
        counts = count(stream)
        self.per_language = _quota(config, counts)
        balance = {} if self.per_language is None else dict.fromkeys(counts, self.per_language)
        first = Draw(stream, balance)
        self._equal_shares = config.balance == "smallest"
        limits = _limits(config, counts)

        def left() -> Iterator[tuple[str, int]]:
            takes = first.taker()
            for language, lot in stream():
                if takes(language, lot):
                    yield self._group(language), lot

        self._balance = first.taker()
        self._total = Draw(left, limits).taker()

    def _group(self, language: str) -> str:
        """Of what `max_pairs` draws: of each language for itself where they are kept equal, else of all."""
        return language if self._equal_shares else _ALL

    def reason(self, language: str, lot: int) -> str | None:
        """The step that drops a candidate (`balance` or `max_pairs`), or None; ask once for each, in their order."""
        if not self._balance(language, lot):
            return "balance"
        return None if self._total(self._group(language), lot) else "max_pairs"


def _limits(config: PairsConfig, counts: Counter[str]) -> dict[str, int]:
    if config.max_pairs is None:
        return {}
    if config.balance != "smallest":
        return {_ALL: config.max_pairs}
    each = config.max_pairs // max(1, len(counts))
    if not each:
        raise ValueError(f"max_pairs is {config.max_pairs} for {len(counts)} languages in balance: allow one of each")
    return dict.fromkeys(counts, each)


def _quota(config: PairsConfig, counts: Counter[str]) -> int | None:
    if config.balance == "smallest":
        return min(counts.values(), default=0)
    return config.balance


def fitting(file: Path, quotas: Quotas, config: PairsConfig, funnel: Funnel) -> Iterator[Sequence[Row]]:
    """The pairs of each prompt that fit; the last steps of the funnel are counted when all were taken."""
    came: Counter[str] = Counter()
    dropped: dict[str, Counter[str]] = {"balance": Counter(), "max_pairs": Counter()}

    def rows() -> Iterator[Row]:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=2048):
            for row in batch.to_pylist():
                came[row["language"]] += 1
                reason = quotas.reason(row["language"], row["lot"])
                if reason is None:
                    yield row
                else:
                    dropped[reason][row["language"]] += 1

    for _, group in groupby(rows(), key=lambda row: row["prompt_id"]):
        yield list(group)
    for step, wanted in (("balance", config.balance), ("max_pairs", config.max_pairs)):
        if wanted is not None:
            for language in funnel.languages:
                funnel.add(step, language, came[language], {"over_quota": dropped[step][language]})
                came[language] -= dropped[step][language]
