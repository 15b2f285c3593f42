"""Join label runs by prompt with bounded memory, in an order that only ids and the seed decide.

Prompts are spooled into buckets by a hash of their id; one bucket is in memory at a time. The rows of the runs may
come in any order, and a run may lack prompts that another has. Scratch space: about the size of the texts, per run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mr3.records import stable_hash
from rewards.plans import authors
from rewards.records import Comparison
from rewards.reorder_buffer import ReorderBuffer
from rewards.selection.sources import Source, records
from rewards.selection.votes import Vote, turned
from rewards.tasks import text_hash
from rewards.walk import Row

log = logging.getLogger(__name__)
_SPAN = 1 << 128
BUCKET_PROMPTS = 2048


@dataclass(frozen=True)
class Response:
    """One response; of equal texts only the one with the smallest id is left, and `policy` names all who wrote it."""

    id: str
    text: str
    policy: str


@dataclass(frozen=True)
class Merged:
    """One prompt with what every label run says of its responses.

    `votes` holds, per pair of response ids (smaller first), at most one vote per label run; `sources` is the number of
    runs that have the prompt.
    """

    prompt_id: str
    language: str
    prompt: list[dict[str, str]]
    meta: dict[str, Any]
    responses: dict[str, Response]
    votes: dict[tuple[str, str], list[Vote]]
    sources: int


def merged(sources: Sequence[Source], work: Path, seed: int, bucket_prompts: int = BUCKET_PROMPTS) -> Iterator[Merged]:
    """Every prompt of the label runs, once.

    Args:
        sources: in the order of their names.

    Raises:
        ValueError: when the runs are not of one pool: a prompt, its language or a response differs.
    """
    buckets = max(1, -(-sum(s.prompts for s in sources) // bucket_prompts))
    bucket_span = -(-_SPAN // buckets) * len(sources)
    buffer = ReorderBuffer(work, bucket_span, hold=1024)
    for number, source in enumerate(sources):
        log.info("reading %s: %d prompts", source.folder, source.prompts)
        for record in records(source):
            place = int(stable_hash("order", seed, record["prompt_id"]), 16)
            buffer.add(place * len(sources) + number, json.dumps(record, ensure_ascii=False))
    for bucket in range(buckets):
        found = buffer.take(bucket)
        groups: dict[int, list[tuple[Source, Row]]] = {}
        for index in sorted(found):
            groups.setdefault(index // len(sources), []).append(
                (sources[index % len(sources)], json.loads(found[index]))
            )
        for rows in groups.values():
            yield _join(rows)


def _join(rows: Sequence[tuple[Source, Row]]) -> Merged:
    first_source, first = rows[0]
    for source, row in rows[1:]:
        for what in ("prompt_id", "language", "prompt"):
            if row[what] != first[what]:
                raise ValueError(
                    f"labels {first_source.name!r} and {source.name!r} are not of one pool: prompt "
                    f"{first['prompt_id']!r} has another {what} there; give label runs of the same pool"
                )
    responses, same_as = _responses(rows)
    votes: dict[tuple[str, str], list[Vote]] = {}
    for source, row in rows:
        for comparison in row["comparisons"]:
            vote = _vote(source, Comparison.model_validate(comparison), same_as)
            if vote is not None:
                votes.setdefault((vote.comparison.a, vote.comparison.b), []).append(vote)
    return Merged(
        prompt_id=first["prompt_id"],
        language=first["language"],
        prompt=first["prompt"],
        meta=first["meta"],
        responses=responses,
        votes={pair: votes[pair] for pair in sorted(votes)},
        sources=len(rows),
    )


def _responses(rows: Sequence[tuple[Source, Row]]) -> tuple[dict[str, Response], dict[str, str]]:
    """The distinct responses by id, and for every id that of the response with the same text."""
    found: dict[str, Response] = {}
    for source, row in rows:
        for r in row["responses"]:
            response = Response(r["response_id"], r["text"], r["policy"])
            if found.setdefault(response.id, response) != response:
                raise ValueError(
                    f"labels {source.name!r} and {rows[0][0].name!r} are not of one pool: response {response.id!r} of "
                    f"prompt {row['prompt_id']!r} has another text or policy there; give label runs of the same pool"
                )
    first_with: dict[str, str] = {}
    same_as = {name: first_with.setdefault(text_hash(found[name].text.strip()), name) for name in sorted(found)}
    wrote = authors({name: response.policy for name, response in found.items()}, same_as)
    return {name: replace(found[name], policy=wrote[name]) for name in sorted(wrote)}, same_as


def _vote(source: Source, comparison: Comparison, same_as: dict[str, str]) -> Vote | None:
    """A run's comparison under the ids that are left; None where both have the same text."""
    renamed = comparison.model_copy(update={"a": same_as[comparison.a], "b": same_as[comparison.b]})
    if renamed.a == renamed.b:
        return None
    return Vote(source.name, source.weight, turned(renamed))
