"""Proposals without a model: all rubrics that are one edit away, with criteria from a library; seeded draws of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mr3.records import stable_hash
from mr3.refinement.records import Proposal, Situation
from mr3.rubrics import Criterion, Rubric

Kind = Literal["add", "drop", "move", "replace", "reword", "reweight"]
_FACTORS = (0.5, 2.0)


class EditsConfig(BaseModel):
    """Procedural edits. Criteria of one name are wordings of one thing: a rubric holds at most one of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["edits"] = "edits"
    criteria: list[Criterion] = Field(default_factory=list, description="criteria to draw from")
    library: list[str] = Field(
        default_factory=list, description="ids or files of rubrics whose criteria are drawn from"
    )
    edits: tuple[Kind, ...] = Field(
        ("add", "drop", "move", "replace", "reword"),
        min_length=1,
        description="reweight is worth its judgements only where the judge's profile shows weights",
    )
    longest: int = Field(6, ge=1, description="criteria that a rubric may hold")


def _with(rubric: Rubric, criteria: Sequence[Criterion]) -> Rubric:
    return rubric.model_copy(update={"criteria": list(criteria)})


def _adds(now: Sequence[Criterion], pool: Sequence[Criterion]) -> Iterator[tuple[str, list[Criterion]]]:
    names = {c.name for c in now}
    for new in pool:
        if new.name not in names:
            for at in range(len(now) + 1):
                yield f"add {new.name} as {at + 1}", [*now[:at], new, *now[at:]]


def _moves(now: Sequence[Criterion]) -> Iterator[tuple[str, list[Criterion]]]:
    for i, moved in enumerate(now):
        rest = [*now[:i], *now[i + 1 :]]
        for j in range(len(now)):
            if j not in (i, i - 1):  # one place up is the other's one place down
                yield f"move {moved.name} to {j + 1}", [*rest[:j], moved, *rest[j:]]


def _swaps(now: Sequence[Criterion], pool: Sequence[Criterion], same: bool) -> Iterator[tuple[str, list[Criterion]]]:
    """One criterion for another (`same`: for another wording of itself)."""
    names = {c.name for c in now}
    for i, old in enumerate(now):
        for new in pool:
            other_wording = new.name == old.name and new.description != old.description
            if other_wording if same else new.name not in names:
                said = f"reword {old.name}" if same else f"replace {old.name} by {new.name}"
                yield said, [*now[:i], new, *now[i + 1 :]]


def _reweights(now: Sequence[Criterion]) -> Iterator[tuple[str, list[Criterion]]]:
    for i, old in enumerate(now):
        for factor in _FACTORS:
            new = old.model_copy(update={"weight": old.weight * factor})
            yield f"weigh {old.name} {new.weight:g}", [*now[:i], new, *now[i + 1 :]]


def neighbours(rubric: Rubric, pool: Sequence[Criterion], kind: Kind, longest: int) -> list[tuple[str, Rubric]]:
    """All rubrics that are one edit of a kind away, each with the edit in words."""
    now = rubric.criteria
    found: Iterator[tuple[str, list[Criterion]]]
    if kind == "add":
        found = _adds(now, pool) if len(now) < longest else iter(())
    elif kind == "drop":
        found = ((f"drop {c.name}", [*now[:i], *now[i + 1 :]]) for i, c in enumerate(now) if len(now) > 1)
    elif kind == "move":
        found = _moves(now)
    elif kind == "reweight":
        found = _reweights(now)
    else:
        found = _swaps(now, pool, same=kind == "reword")
    return [(said, _with(rubric, criteria)) for said, criteria in found]


class EditProposer:
    """Draws a kind of edit, then an edit of that kind: many places to add something don't crowd out the rest."""

    def __init__(self, config: EditsConfig, pool: Sequence[Criterion], seed: int) -> None:
        self._config, self._pool, self._seed = config, list(pool), seed

    def propose(self, situation: Situation) -> list[Proposal]:
        """At most `wanted` rubrics that were not judged yet; the same for the same seed, round and rubric."""
        current = situation.current
        seed = stable_hash("edits", self._seed, situation.round, current.content_hash)
        rng = random.Random(seed)
        seen = {*situation.known, current.content_hash}
        left: dict[Kind, list[tuple[str, Rubric]]] = {}
        for kind in self._config.edits:
            options = neighbours(current, self._pool, kind, self._config.longest)
            options = [(said, r) for said, r in options if r.content_hash not in seen]
            rng.shuffle(options)
            if options:
                left[kind] = options
        found: list[Proposal] = []
        while left and len(found) < situation.wanted:
            kind = rng.choice(sorted(left))
            said, rubric = left[kind].pop()
            if not left[kind]:
                del left[kind]
            if rubric.content_hash not in seen:
                seen.add(rubric.content_hash)
                found.append(Proposal(edit=said, rubric=rubric, source={"proposer": "edits", "kind": kind}))
        return found
