"""Dynamic sampling: bundles whose rewards give no gradient are replaced (DAPO, arXiv 2503.14476; TRL has none).

Pure functions over places in a batch and TRL's tensors; `trainer.BundleTrainer` calls them round by round. A bundle
goes when none of its sets has any variance, and its place is taken by another of the same size that has some. Sampled
tokens of both are charged. Training then sees more of the tasks that are neither too easy nor too hard: the mean reward
of a step is reported over all that was sampled, not over what was kept.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from trl.trainer.utils import pad

from grpo_experiments.composite import no_variance

_LEFT = ("prompt_ids", "prompt_mask")
_SHARED = ("num_items_in_batch",)
Places = list[int]


def sort_out(
    bundles: Sequence[Sequence[Places]], rewards: Sequence[float | None], by_bundle: bool, own: range
) -> tuple[list[Places], list[Places]]:
    """The bundles of this process with and without a gradient, as places in the gathered batch.

    Args:
        bundles: places by bundle and group, of all processes.
        own: the places of this process.

    Raises:
        ValueError: where a bundle is split between processes.
    """
    moving: list[Places] = []
    flat: list[Places] = []
    for bundle in bundles:
        places = [i for group in bundle for i in group]
        inside = [i in own for i in places]
        if not any(inside):
            continue
        if not all(inside):
            raise ValueError(
                "resample needs whole bundles in every process: make trl.per_device_train_batch_size times "
                "steps_per_generation a multiple of num_generations times the largest bundle"
            )
        sets = [places] if by_bundle else bundle
        still = all(no_variance([rewards[i] for i in together]) for together in sets)
        (flat if still else moving).append(places)
    return moving, flat


def draw(
    bundles: Sequence[Sequence[int]], used: set[int], counts: Mapping[int, int], processes: int, seed: str
) -> list[list[Sequence[int]]] | None:
    """Other bundles for every process, `counts[size]` of each size, by the seed alone; None where there are too few."""
    found: list[list[Sequence[int]]] = [[] for _ in range(processes)]
    rng = random.Random(seed)
    for size, count in sorted(counts.items()):
        free = [b for b in bundles if len(b) == size and not used & set(b)]
        if len(free) < count * processes:
            return None
        drawn = rng.sample(free, count * processes)
        for process in range(processes):
            found[process] += drawn[process::processes]
    return found


def matched(flat: Sequence[Places], moving: Sequence[Places]) -> list[tuple[Places, Places]]:
    """Each bundle without a gradient with one that has some, of the same size, as long as there are any."""
    waiting: dict[int, list[Places]] = {}
    for places in moving:
        waiting.setdefault(len(places), []).append(places)
    return [(old, waiting[len(old)].pop(0)) for old in flat if waiting.get(len(old))]


def merged(
    output: Mapping[str, Any], other: Mapping[str, Any], swaps: Sequence[tuple[Places, Places]], pad_id: int
) -> dict[str, Any]:
    """`output` with rows of `other` in place of its own, both padded to the wider of the two.

    Args:
        swaps: pairs of (rows of `output`, rows of `other`), of equal length.
    """
    old, new = [i for o, _ in swaps for i in o], [i for _, n in swaps for i in n]
    found: dict[str, Any] = dict(output)
    if not swaps:
        return found
    for name, value in output.items():
        if name in _SHARED or not isinstance(value, torch.Tensor) or value.dim() == 0:
            continue
        fresh = other[name]
        if value.dim() > 1:
            fill = pad_id if name.endswith("_ids") else 0
            both = pad([*value, *fresh], padding_value=fill, padding_side="left" if name in _LEFT else "right")
            value, fresh = both[: len(value)], both[len(value) :]
        value = value.clone()
        value[old] = fresh[new]
        found[name] = value
    return found
