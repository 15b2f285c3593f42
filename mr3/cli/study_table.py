"""What a study found: every arm against the baseline, paired by item, decided on the interval of the difference.

In: the arms' folders, one per seed, with the items of the compared stage. Out: study.json with all numbers, study.md
for people, study.svg. Only reads artifacts.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pydantic import BaseModel, ConfigDict

from mr3.artifacts import hash_unchanged, write_atomic, write_json
from mr3.items import Item, read_items
from mr3.stats import hierarchical_bootstrap

STUDY = "plan.json"
ALL = "all"
SEEDS_FOR_A_CLAIM = 5
"""From fewer seeds an interval says little about what a seed varies: two draws can't show their spread."""
_WEIGHTS = ("*.safetensors", "*.bin")
Scores = dict[str, dict[str, Item]]
"""Set -> item id -> item."""


class StudyPlan(BaseModel):
    """What is compared with what."""

    model_config = ConfigDict(extra="forbid")

    question: str
    seed_varies: str
    arms: list[str]
    baseline: str
    sets: list[str]
    languages: list[str] = []
    notes: list[str]
    compared: str
    """Name of the compared stage in each arm's folder."""
    stage: str
    """Its command: what its items are read as."""
    seeds: list[int]
    stages: dict[str, list[str]]
    """Arm -> its own stages, later ones behind those that they need."""
    folders: dict[str, list[Path]]
    """Arm -> its folder under each seed."""


def scores_of(stage: str, folder: Path, sets: Sequence[str], languages: Sequence[str] = ()) -> Scores:
    """The items of one finished stage by set; `all` holds every item, where an item has one score in all its sets.

    Raises:
        ValueError: when the folder holds none, or lacks a wanted set, or has no item in the wanted languages.
    """
    found: Scores = defaultdict(dict)
    for item in read_items(stage, folder):
        if not languages or item.language in languages:
            found[item.set][item.id] = item
    missing = [name for name in sets if name not in found]
    if missing or not found:
        among = f" in {', '.join(languages)}" if languages else ""
        raise ValueError(f"{folder} has no set {missing[:1] or ''}{among}; it has {', '.join(sorted(found)) or 'none'}")
    chosen = {name: found[name] for name in (sets or sorted(found))}
    every: dict[str, Item] = {}
    for items in chosen.values():
        if any(name in every and every[name].score != item.score for name, item in items.items()):
            return chosen
        every |= items
    return {ALL: every, **chosen}


def one_model(plan: StudyPlan) -> dict[str, list[list[int]]]:
    """Arm -> groups of seeds whose last trained model has the same weights: they are one observation, not several.

    Only of the arms that train; a model that all seeds share by plan is no stage of an arm.
    """
    found: dict[str, list[list[int]]] = {}
    for arm, folders in plan.folders.items():
        alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for seed, folder in zip(plan.seeds, folders, strict=True):
            files: list[Path] = []
            for stage in plan.stages[arm]:
                model = folder / stage / "model"
                files = sorted(f for pattern in _WEIGHTS for f in model.glob(pattern)) or files
            if files:
                alike[tuple(hash_unchanged(f) for f in files)].append(seed)
        if groups := [seeds for seeds in alike.values() if len(seeds) > 1]:
            found[arm] = groups
    return found


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"value": mean(values), "std": stdev(values) if len(values) > 1 else None, "seeds": list(values)}


def compare_arms(runs: Mapping[str, Sequence[Scores]], baseline: str) -> dict[str, Any]:
    """Per set and arm the mean score over seeds (`accuracy`), and the difference from the baseline on the same items.

    Raises:
        ValueError: when two arms of one seed were evaluated on different items: then they are not pairs.
    """
    found: dict[str, Any] = {}
    for name in runs[baseline][0]:
        found[name] = {}
        for arm, seeds in runs.items():
            if any(name not in run for run in seeds):
                raise ValueError(
                    f"arm {arm!r} was not evaluated on {name!r}: give every arm the same evaluation config"
                )
            first = seeds[0][name].values()
            row: dict[str, Any] = {
                "accuracy": _spread([mean(item.score for item in run[name].values()) for run in seeds]),
                "items": len(first),
                "contents": len({item.content for item in first}),
            }
            if arm != baseline:
                pairs = [_pairs(own[name], base[name]) for own, base in zip(seeds, runs[baseline], strict=True)]
                row["difference"] = hierarchical_bootstrap(
                    [[a.score - b.score for a, b in seed] for seed in pairs],
                    contents=[[b.content for _, b in seed] for seed in pairs],
                )
            found[name][arm] = row
    return found


def _pairs(own: Mapping[str, Item], base: Mapping[str, Item]) -> list[tuple[Item, Item]]:
    if own.keys() != base.keys():
        raise ValueError("the arms were evaluated on different items: give every arm the same evaluation config")
    return [(own[i], base[i]) for i in base]


def conclusion(difference: Mapping[str, Any], seeds: int, alike: str | None = None) -> str:
    """In words, decided on the interval of the difference alone; from too few seeds nothing is concluded.

    Args:
        alike: which of the seeds are one model.
    """
    if alike is not None:
        return f"{alike}: no claim"
    if seeds < SEEDS_FOR_A_CLAIM:
        return f"fewer than {SEEDS_FOR_A_CLAIM} seeds: no claim"
    low, high = difference["interval"]
    return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


def _alike(arm: str, same: Mapping[str, Sequence[Sequence[int]]]) -> str | None:
    if arm not in same:
        return None
    groups = (" and ".join(map(str, group)) for group in same[arm])
    return "; ".join(f"seeds {group} of {arm} are one model" for group in groups)


def markdown(plan: StudyPlan, found: Mapping[str, Any], same: Mapping[str, Sequence[Sequence[int]]]) -> str:
    """The table for people."""
    seeds = len(plan.seeds)
    lines = [
        f"# {plan.question}",
        "",
        f"{seeds} seed(s); a seed varies {plan.seed_varies}. Differences are from {plan.baseline}, paired by item, "
        "with 95% intervals of a bootstrap over seeds and contents (items about the same thing are drawn together).",
        "",
        "| set | arm | items (contents) | score (std over seeds) | difference | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, arms in found.items():
        for arm, row in arms.items():
            accuracy, difference = row["accuracy"], row.get("difference")
            std = "" if accuracy["std"] is None else f" ({accuracy['std']:.3f})"
            shown, said = "", _alike(arm, same) or ""
            if difference is not None:
                low, high = difference["interval"]
                shown = f"{difference['value']:+.3f} [{low:+.3f}, {high:+.3f}]"
                said = conclusion(difference, seeds, _alike(arm, same) or _alike(plan.baseline, same))
            items = f"{row['items']} ({row['contents']})"
            lines.append(f"| {name} | {arm} | {items} | {accuracy['value']:.3f}{std} | {shown} | {said} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in plan.notes)]).rstrip() + "\n"


def write_tables(plan: StudyPlan, folder: Path) -> str:
    """Write study.json, study.md and study.svg; the text of study.md."""
    from mr3.cli.plots import differences

    runs = {
        arm: [scores_of(plan.stage, f / plan.compared, plan.sets, plan.languages) for f in folders]
        for arm, folders in plan.folders.items()
    }
    found, same = compare_arms(runs, plan.baseline), one_model(plan)
    text = markdown(plan, found, same)
    write_json(folder / "study.json", {"plan": plan.model_dump(mode="json"), "one_model": same, "sets": found})
    write_atomic(folder / "study.md", text.encode())
    drawn = differences(found, plan.baseline)
    if drawn is not None:
        write_atomic(folder / "study.svg", base64.b64decode(drawn.split(",", 1)[1]))
    return text
