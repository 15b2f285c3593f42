"""How well the judge agrees with the annotators of a sheet, and they with each other, per language and stratum."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mr3.stats import Rate, wilson
from mr3.uncertainty import kappa_with_interval
from rewards.annotation.sample import Item, Stratum
from rewards.annotation.sheets import Key
from rewards.auditing.people import between, majority

_Z = 1.959963984540054


def weighted_rate(strata: Iterable[tuple[int, int, int]]) -> Rate:
    """The rate in the population, from a stratified sample.

    Args:
        strata: (population, hits, n) of each; strata without a rated item are left out, and the `share` of the
            population that the others hold is reported.

    Returns:
        A rate with a Wilson interval at Kish's effective sample size: with unequal weights it is wider than n says.
    """
    everything = list(strata)
    known = [(size, hits, n) for size, hits, n in everything if n]
    if not known:
        return {"value": None, "n": 0, "interval": None, "share": 0.0}
    total = sum(size for size, _, _ in known)
    p = sum(size / total * hits / n for size, hits, n in known)
    effective = 1 / sum((size / total) ** 2 / n for size, _, n in known)
    middle = p + _Z**2 / (2 * effective)
    spread = _Z * math.sqrt(max(0.0, p * (1 - p) / effective + _Z**2 / (4 * effective**2)))
    scale = 1 + _Z**2 / effective
    return {
        "value": p,
        "n": sum(n for _, _, n in known),
        "effective_n": round(effective, 2),
        "interval": [max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)],
        "share": total / sum(size for size, _, _ in everything),
    }


def agreement(key: Key, said: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """In all and per language.

    Args:
        said: item -> annotator -> rating.
    """
    languages = sorted({item.language for item in key.items})
    return {
        "of": key.of,
        "choices": list(key.choices),
        "judge_failed": key.failed,
        "annotators": sorted({name for ratings in said.values() for name in ratings}),
        "all": _of(key.items, key.strata, key, said),
        "languages": {
            name: _of(
                [i for i in key.items if i.language == name], [s for s in key.strata if s.language == name], key, said
            )
            for name in languages
        },
    }


def _of(
    items: Sequence[Item], strata: Sequence[Stratum], key: Key, said: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    rated = [i for i in items if said.get(i.id)]
    people = {i.id: majority(said[i.id]) for i in rated}
    pairs = [(i.judge, label) for i in rated if (label := people[i.id]) is not None]
    hits: Counter[tuple[str, str]] = Counter()
    seen: Counter[tuple[str, str]] = Counter()
    for item in rated:
        if people[item.id] is not None:
            seen[item.language, item.stratum] += 1
            hits[item.language, item.stratum] += item.judge == people[item.id]
    named = sorted({name for i in rated for name in said[i.id]})
    return {
        "items": len(items),
        "rated": len(rated),
        "split": sum(label is None for label in people.values()),
        "judge": {
            **_rates(pairs, key),
            "accuracy_weighted": weighted_rate(
                (s.population, hits[s.language, s.name], seen[s.language, s.name]) for s in strata
            ),
        },
        "by_annotator": {
            name: _rates([(i.judge, said[i.id][name]) for i in rated if name in said[i.id]], key) for name in named
        },
        "between_annotators": between(said[i.id] for i in rated),
        "strata": [
            {**s.model_dump(), "accuracy": wilson(hits[s.language, s.name], seen[s.language, s.name])} for s in strata
        ],
    }


def _rates(pairs: Sequence[tuple[str, str]], key: Key) -> dict[str, Any]:
    """The judge against one person, or against what most of them said."""
    judge, people = [j for j, _ in pairs], [p for _, p in pairs]
    cells = Counter(pairs)
    found = {
        "accuracy": wilson(sum(j == p for j, p in pairs), len(pairs)),
        "kappa": kappa_with_interval(judge, people),
        "confusion": {f"people {p}": {f"judge {j}": cells[j, p] for j in key.choices} for p in key.choices},
    }
    if key.of == "pairs":
        decided = [(j, p) for j, p in pairs if "tie" not in (j, p)]
        found["accuracy_decided"] = wilson(sum(j == p for j, p in decided), len(decided))
    return found
