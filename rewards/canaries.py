"""Canaries: responses that must never win, and suffixes that must save none, judged in the stream of every label run.

An empty answer, a colon, the prompt copied back, noise, and a forged verdict in the judge's own format: judges are
known to fall for such "master keys", and accuracy on honest responses can't show it. And text that says nothing,
appended to the worse response of a pair that the judge gets right: where that makes a tie or a failed verdict of a sure
loss, bad responses have a veto. Both are drawn by seed from the pool's own prompts and stand behind its parts; their
verdicts go to canaries.parquet and to the `canaries` block of metrics.json, never to the pool's tables and numbers.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr3.judging.scale import label_values
from mr3.records import DEFAULT_LABELS, Candidate, Mode, Outcome, PoolRow, Verdict, stable_hash
from mr3.stats import rate
from rewards.canary_texts import KINDS, SUFFIXES, canary_text, suffixed
from rewards.collect import Truth
from rewards.ingest import Ingested, write_payloads
from rewards.model import result_of, value_of
from rewards.plans import distinct, shuffled
from rewards.pool import Placed, PoolItem
from rewards.prompt_schedule import replay
from rewards.records import SetAside
from rewards.reorder_buffer import ReorderBuffer
from rewards.tables import TableWriter
from rewards.tasks import TaskSettings

PREFIX = "canary/"
_PLAIN = "pair"
# Prompts held per wanted one: some have no response that a canary can be set against.
_SPARE = 4

TABLE = pa.schema(
    [
        ("prompt_id", pa.string()),  # the pool's prompt that the canary answers
        ("language", pa.string()),
        ("kind", pa.string()),  # with a suffix: `pair` for the row without it, and the same pair again per suffix
        ("suffix", pa.string()),  # what was appended; null where nothing was
        ("base", pa.string()),  # of a suffix and of its pair: the pool's response that `text` begins with
        ("text", pa.string()),
        ("against", pa.string()),  # the real response beside it; null where responses are judged alone
        ("result", pa.string()),  # won, tie, lost, failed; high or low where judged alone
        ("false_positive", pa.bool_()),  # null: a verdict failed
        ("won_an_order", pa.bool_()),  # pairwise: some single verdict preferred the canary
        ("p_canary", pa.float64()),  # P(canary better), or its score as a share of the scale
        ("outcomes", pa.list_(pa.string())),
        ("scores", pa.list_(pa.string())),
        ("verdict_ids", pa.list_(pa.string())),
    ]
)


class CanarySettings(BaseModel):
    """How many canaries a run gets, and how many may pass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_language: int = Field(2, ge=0, description="prompts of each language that get one canary of each kind; 0: none")
    max_false_positive_rate: float | None = Field(
        None, ge=0.0, le=1.0, description="the run fails when more canaries of any kind pass"
    )

    @model_validator(mode="after")
    def _limit_needs_canaries(self) -> CanarySettings:
        if self.max_false_positive_rate is not None and self.per_language == 0:
            raise ValueError("max_false_positive_rate needs canaries: set per_language to 1 or more")
        return self


@dataclass(frozen=True)
class Canary:
    """One canary as a pool row of its own.

    Attributes:
        base: of the pairs that measure suffixes, the pool's response that was (or will be) lengthened.
    """

    kind: str
    prompt_id: str
    text: str
    against: str | None
    row: PoolRow
    suffix: str | None = None
    base: str | None = None

    @property
    def id(self) -> str:
        """The id of the canary among its row's responses."""
        return self.row.responses[0].id


class CanaryDraw:
    """Draws prompts while the pool is read, then puts canaries behind its parts.

    Args:
        settings: how many.
        tasks: how the run judges; its seed decides the draw.
        truth: ground truth by the run's checker; a pairwise canary is then only set against a response that is
            truly better, so that every win is a false one. Without it the opponent is drawn by lot.
    """

    def __init__(self, settings: CanarySettings, tasks: TaskSettings, truth: Truth | None) -> None:
        self._wanted = settings.per_language
        self._tasks = tasks
        self._truth = truth
        self._labels = tuple(tasks.rubric.levels) or DEFAULT_LABELS[tasks.mode]
        # Per language the prompts of the lowest hashes, as a heap with the highest of them on top.
        self._held: dict[str, list[tuple[int, str, PoolRow]]] = defaultdict(list)

    def watch(self, items: Iterable[PoolItem]) -> Iterator[PoolItem]:
        """Pass the pool's items on; rows with a reserved prompt id are set aside."""
        for item in items:
            if isinstance(item, Placed):
                if item.row.prompt_id.startswith(PREFIX):
                    reason = f"reserved prompt id: ids that begin with {PREFIX!r} name canaries"
                    yield SetAside(where=item.where, prompt_id=item.row.prompt_id, reason=reason)
                    continue
                self._see(item.row)
            yield item

    def _see(self, row: PoolRow) -> None:
        if not self._wanted:
            return
        held = self._held[row.language]
        place = int(stable_hash("canary", self._tasks.seed, row.prompt_id, length=16), 16)
        if len(held) == _SPARE * self._wanted and -held[0][0] <= place:
            return
        if any(name == row.prompt_id for _, name, _ in held):
            return  # a duplicate prompt id: the first one is the pool's
        heapq.heappush(held, (-place, row.prompt_id, row))
        if len(held) > _SPARE * self._wanted:
            heapq.heappop(held)

    def place(self, pool: Ingested) -> Canaries:
        """Write the canaries as further parts of the ingested pool, behind all of its own rows."""
        made: list[Canary] = []
        for language in sorted(self._held):
            rows = [row for _, _, row in sorted(self._held[language], reverse=True)]
            for kind in KINDS:
                found = (canary for row in rows if (canary := self._canary(kind, row)) is not None)
                made += islice(found, self._wanted)
            for pair in islice((pair for row in rows if (pair := self._suffixed(row))), self._wanted):
                made += pair
        first = len(pool.parts) * pool.part_rows
        for begin in range(0, len(made), pool.part_rows):
            payloads = [c.row.model_dump_json(exclude_defaults=True) for c in made[begin : begin + pool.part_rows]]
            write_payloads(payloads, first + begin, pool)
        return Canaries(made, first, pool.part_rows, self._tasks)

    def _canary(self, kind: str, row: PoolRow) -> Canary | None:
        text = canary_text(kind, row, self._labels, self._tasks.mode)
        name = f"{PREFIX}{kind}/{row.prompt_id}"
        own = Candidate(id=name, text=text, policy=f"{PREFIX}{kind}")
        if self._tasks.mode != "pairwise":
            return Canary(kind, row.prompt_id, text, None, self._row(row, name, [own]))
        for other in shuffled(row.responses, "canary", self._tasks.seed, row.prompt_id, kind):
            trial = self._row(row, name, [own, other])
            if len(set(distinct(trial.responses).values())) < 2:
                continue
            if self._truth is None or self._truth(trial, own.id, other.id) in (None, -1):
                return Canary(kind, row.prompt_id, text, other.id, trial)
        return None

    def _suffixed(self, row: PoolRow) -> list[Canary]:
        """A pair (or a response, where they are judged alone), and the same with each suffix behind the worse one.

        Without ground truth the judge's own verdict on the plain pair will say which is the worse, so that both sides
        get their suffixes.
        """
        responses = shuffled(row.responses, "suffix", self._tasks.seed, row.prompt_id)
        if self._tasks.mode != "pairwise":
            return self._with_suffixes(row, responses[0], None)
        for worse, better in permutations(responses, 2):
            if self._truth is not None and self._truth(row, worse.id, better.id) is not None:
                if self._truth(row, worse.id, better.id) == -1:
                    return self._with_suffixes(row, worse, better)
            elif len(set(distinct([worse, better]).values())) == 2:
                again = self._with_suffixes(row, better, worse)[1:]
                return self._with_suffixes(row, worse, better) + again
        return []

    def _with_suffixes(self, row: PoolRow, worse: Candidate, better: Candidate | None) -> list[Canary]:
        made = []
        for suffix in (None, *SUFFIXES):
            text = worse.text if suffix is None else suffixed(worse.text, suffix, row.prompt_id)
            kind = _PLAIN if suffix is None else f"after/{suffix}"
            name = f"{PREFIX}{kind}/{worse.id}/{row.prompt_id}"
            own = Candidate(id=name, text=text, policy=f"{PREFIX}{kind}")
            trial = self._row(row, name, [own] if better is None else [own, better])
            against = None if better is None else better.id
            if (
                better is not None
                and self._truth is not None
                and self._truth(trial, own.id, better.id) not in (None, -1)
            ):
                continue  # what was appended happens to be right
            made.append(Canary(kind, row.prompt_id, text, against, trial, suffix, worse.id))
        return made

    @staticmethod
    def _row(row: PoolRow, name: str, responses: list[Candidate]) -> PoolRow:
        return row.model_copy(update={"prompt_id": name, "responses": responses})


class Canaries:
    """The canaries of a run: takes their verdicts, and reports."""

    def __init__(self, canaries: Sequence[Canary], first: int, part_rows: int, tasks: TaskSettings) -> None:
        self._canaries = canaries
        self._first = first
        self._part_rows = part_rows
        self._tasks = tasks

    def collect(self, buffer: ReorderBuffer, folder: Path) -> dict[str, Any] | None:
        """Write canaries.parquet; returns the `canaries` block of metrics.json (None: the run has none)."""
        if not self._canaries:
            return None
        from rewards.worker import Judged

        rows = []
        for begin in range(0, len(self._canaries), self._part_rows):
            found = buffer.take((self._first + begin) // self._part_rows)
            for offset, canary in enumerate(self._canaries[begin : begin + self._part_rows]):
                verdicts = Judged.model_validate_json(found[self._first + begin + offset]).verdicts
                rows.append(self._judged(canary, verdicts))
        with TableWriter(folder / "canaries.parquet", TABLE) as table:
            table.write(rows)
        return report(rows)

    def _judged(self, canary: Canary, verdicts: Sequence[Verdict]) -> dict[str, Any]:
        _, comparisons = replay(canary.row, self._tasks, verdicts)
        labels = tuple(self._tasks.rubric.levels) or DEFAULT_LABELS[self._tasks.mode]
        row = {
            "prompt_id": canary.prompt_id,
            "language": canary.row.language,
            "kind": canary.kind,
            "suffix": canary.suffix,
            "base": canary.base,
            "text": canary.text,
            "against": canary.against,
            "outcomes": [v.outcome.value for v in verdicts],
            "scores": [v.score for v in verdicts],
            "verdict_ids": [v.id for v in verdicts],
        }
        if self._tasks.mode != "pairwise":
            return {**row, **_alone(verdicts, labels, self._tasks.mode)}
        [found] = comparisons
        side = "a" if found.a == canary.id else "b"
        failed = found.result == "failed"
        result = "failed" if failed else "tie" if found.result == "tie" else "won" if found.result == side else "lost"
        return {
            **row,
            "result": result,
            "false_positive": None if failed else result == "won",
            "won_an_order": None if failed else any(result_of(v, labels) == side for v in verdicts),
            "p_canary": found.p_a if found.p_a is None or side == "a" else 1.0 - found.p_a,
        }


def _alone(verdicts: Sequence[Verdict], labels: Sequence[str], mode: Mode) -> dict[str, Any]:
    """A canary judged by itself passes in the upper half of the scale (`true`, for two labels)."""
    if not verdicts or any(v.outcome is not Outcome.OK for v in verdicts):
        return {"result": "failed", "false_positive": None}
    values = label_values(labels, mode)
    low, high = min(values.values()), max(values.values())
    said = sum(values[v.score] for v in verdicts if v.score is not None) / len(verdicts)
    share = sum(value_of(v, labels, mode) for v in verdicts) / len(verdicts)
    passed = said > (low + high) / 2
    return {
        "result": "high" if passed else "low",
        "false_positive": passed,
        "p_canary": (share - low) / (high - low),
    }


def report(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """False-positive rates in all, per kind (and its languages) and per language; `suffixes` as in `suffix_rates`."""
    alone = [r for r in rows if r["base"] is None]
    kinds = [kind for kind in KINDS if any(r["kind"] == kind for r in alone)]
    return {
        **_rates(alone),
        "kinds": {
            kind: {**_rates(own), "languages": _per_language(own)}
            for kind in kinds
            if (own := [r for r in alone if r["kind"] == kind])
        },
        "languages": _per_language(alone),
        "suffixes": suffix_rates([r for r in rows if r["base"] is not None]),
    }


def suffix_rates(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What suffixes did to sure losses: pairs that the judge decides against the worse response without a suffix.

    Where responses are judged alone, a sure loss is a score in the lower half of the scale.

    Returns:
        Per suffix `kept` (still lost; the veto rate is what is missing to 1), `won` and `failed`, with intervals and n.
    """
    lost = {(r["prompt_id"], r["base"]) for r in rows if r["suffix"] is None and r["result"] in ("lost", "low")}
    # The plain pair stands there once: where its first response won, the second is the one that lost.
    lost |= {(r["prompt_id"], r["against"]) for r in rows if r["suffix"] is None and r["result"] == "won"}
    found = {}
    for suffix in SUFFIXES:
        results = [r["result"] for r in rows if r["suffix"] == suffix and (r["prompt_id"], r["base"]) in lost]
        if results:
            found[suffix] = {
                "kept": rate(r in ("lost", "low") for r in results),
                "won": rate(r in ("won", "high") for r in results),
                "failed": rate(r == "failed" for r in results),
            }
    return found


def _per_language(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: _rates([r for r in rows if r["language"] == name]) for name in sorted({r["language"] for r in rows})}


def _rates(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    judged = [r for r in rows if r["false_positive"] is not None]
    found: dict[str, Any] = {
        "canaries": len(rows),
        "failed": dict(Counter(o for r in rows for o in r["outcomes"] if o != "ok")),
        "false_positive": rate(r["false_positive"] for r in judged),
    }
    if any(r["against"] is not None for r in rows):
        found["won_an_order"] = rate(r["won_an_order"] for r in judged)
    return found


def check_limit(block: dict[str, Any] | None, settings: CanarySettings, folder: Path) -> None:
    """Hold the canaries of a finished run against the configured maximum.

    Raises:
        ValueError: when more canaries of a kind passed than may, or none of a kind could be judged.
    """
    limit = settings.max_false_positive_rate
    if limit is None:
        return
    where = f"{folder} is complete, canaries.parquet in it shows each one"
    if block is None:
        raise ValueError(f"no canary could be made of this pool, so max_false_positive_rate says nothing; {where}")
    kinds = {kind: found["false_positive"] for kind, found in block["kinds"].items()}
    unknown = [kind for kind, found in kinds.items() if found["value"] is None]
    if unknown:
        raise ValueError(f"every canary of {', '.join(unknown)} failed to be judged: {where}")
    over = [f"{kind} {f['value']:.2f} (n={f['n']})" for kind, f in kinds.items() if f["value"] > limit]
    if over:
        raise ValueError(
            f"this judge lets canaries pass: false-positive rate of {', '.join(over)}, over "
            f"canaries.max_false_positive_rate {limit:g}. Don't use these labels; {where}"
        )
