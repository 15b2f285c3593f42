"""The group reward: completions of one prompt judged against each other, and each one's score from its comparisons.

    r_i = mean over the measured comparisons {i, j} of P(i better than j)

P is the mean over both orders (and all samples) of the judge's own P(A better): the expected score where it keeps
logprobs, else 1, 0.5 or 0. A comparison of which an order failed is not measured and counts for neither side; a
completion without any measured comparison has no reward. Under `all_pairs` with every comparison measured the rewards
of a group have the mean 1/2: they rank a group, and say nothing of how good it is. (NeMo-Gym's `genrm_compare` does
the same with a ring of comparisons.)

Equal texts are judged once, and share their score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from mr3.records import stable_hash
from rewards.plans import plan_pairs

Pair = tuple[int, int]


def groups_of(prompts: Sequence[Any], size: int | None = None) -> list[range]:
    """The places of each group: `size` neighbours, or else neighbours with equal prompts (as TRL lays them).

    Raises:
        ValueError: when the completions are no whole groups, as where a group is spread over several processes.
    """
    if size is not None:
        if size < 2 or len(prompts) % size:
            raise ValueError(
                f"{len(prompts)} completions are no whole groups of {size}: set per_device_train_batch_size x "
                "steps_per_generation to a multiple of num_generations, so that a group lies in one process"
            )
        return [range(i, i + size) for i in range(0, len(prompts), size)]
    found, begin = [], 0
    for _, same in groupby(prompts, key=lambda prompt: stable_hash(prompt)):
        count = sum(1 for _ in same)
        found.append(range(begin, begin + count))
        begin += count
    return found


def same_as(texts: Mapping[int, str]) -> dict[int, int]:
    """Place -> the first place with the same text (blanks at the ends ignored)."""
    first: dict[str, int] = {}
    return {place: first.setdefault(text.strip(), place) for place, text in texts.items()}


def group_pairs(texts: Mapping[int, str], plan: str, seed: int, prompt_id: str) -> list[Pair]:
    """Which completions of one prompt are compared, the one that is shown first in front.

    The pairs, and who is A, are those that `mr3 label` takes for the same responses, seed and prompt id.

    Args:
        texts: place -> text; of equal ones the first is compared.
        plan: `all_pairs` (n(n-1)/2 comparisons) or `circular` (n of them, each completion in two).
    """
    once = {str(place): texts[place].strip() for place in dict.fromkeys(same_as(texts).values())}
    if len(once) < 2:
        return []
    return [(int(a), int(b)) for a, b in plan_pairs(plan, once, seed, prompt_id)]


def group_scores(texts: Mapping[int, str], compared: Iterable[tuple[Pair, float | None]]) -> dict[int, float | None]:
    """The reward of each place; None where none of its comparisons was measured.

    Args:
        compared: pairs of places, with P(first better), or None where the comparison failed.
    """
    points: dict[int, list[float]] = {}
    for (a, b), p in compared:
        if p is None:
            continue
        assert 0 <= p <= 1, "P(better) is a probability"
        points.setdefault(a, []).append(p)
        points.setdefault(b, []).append(1 - p)
    means = {place: sum(found) / len(found) for place, found in points.items()}
    return {place: means.get(first) for place, first in same_as(texts).items()}
