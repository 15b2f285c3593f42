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
from mr3.items import ONE_SCORE, Item, read_items
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
    """The items of one finished stage by set, of the wanted sets those that it has.

    `all` holds every item, where the stage's items have one score in all their sets: by its name, so that all arms have
    it or none.

    Raises:
        ValueError: when the folder holds no item in the wanted languages.
    """
    found: Scores = defaultdict(dict)
    for item in read_items(stage, folder):
        if not languages or item.language in languages:
            found[item.set][item.id] = item
    if not found:
        among = f" in {', '.join(languages)}" if languages else ""
        raise ValueError(f"{folder} has no item{among}")
    chosen = {name: found[name] for name in (sets or sorted(found)) if name in found}
    if stage not in ONE_SCORE or not chosen:
        return chosen
    return {ALL: {name: item for items in chosen.values() for name, item in items.items()}, **chosen}


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

    A set that an arm has in no seed has no `accuracy` (not measured). Pairs are items that both arms of a seed have;
    `shared`, `lacking` (the baseline's that the arm has not) and `more` count them over seeds, and seeds in which
    nothing is shared are left out. What an arm lacks was often not measured for a reason, so a difference over a part
    says something about that part alone.
    """
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for arm in (baseline, *runs) for run in runs[arm] for name in run):
        found[name] = {
            arm: _row(name, seeds, None if arm == baseline else runs[baseline]) for arm, seeds in runs.items()
        }
    return found


def _row(name: str, seeds: Sequence[Scores], baseline: Sequence[Scores] | None) -> dict[str, Any]:
    """One arm on one set."""
    measured = [run[name] for run in seeds if run.get(name)]
    first = list(measured[0].values()) if measured else []
    row: dict[str, Any] = {
        "accuracy": _spread([mean(item.score for item in items.values()) for items in measured]) if measured else None,
        "items": len(first),
        "contents": len({item.content for item in first}),
    }
    if baseline is None:
        return row
    both = [(own.get(name, {}), base.get(name, {})) for own, base in zip(seeds, baseline, strict=True)]
    pairs = [[(own[i], base[i]) for i in base if i in own] for own, base in both]
    row["shared"] = sum(map(len, pairs))
    row["lacking"] = sum(len(base.keys() - own.keys()) for own, base in both)
    row["more"] = sum(len(own.keys() - base.keys()) for own, base in both)
    if row["shared"]:
        row["difference"] = hierarchical_bootstrap(
            [[a.score - b.score for a, b in seed] for seed in pairs if seed],
            contents=[[b.content for _, b in seed] for seed in pairs if seed],
        )
    return row


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


def _unpaired(row: Mapping[str, Any]) -> str:
    """What the difference is not over."""
    parts = [f"lacks {row['lacking']}"] * bool(row["lacking"]) + [f"has {row['more']} more"] * bool(row["more"])
    return f"{row['shared']} items shared over all seeds, the arm {' and '.join(parts)}"


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
            score = "not measured"
            if accuracy is not None:
                std = "" if accuracy["std"] is None else f" ({accuracy['std']:.3f})"
                score = f"{accuracy['value']:.3f}{std}"
            shown, said = "", _alike(arm, same) or ""
            if difference is not None:
                low, high = difference["interval"]
                shown = f"{difference['value']:+.3f} [{low:+.3f}, {high:+.3f}]"
                said = conclusion(difference, difference["n"], _alike(arm, same) or _alike(plan.baseline, same))
            if row.get("lacking") or row.get("more"):
                said += ("; " if said else "") + _unpaired(row)
            items = f"{row['items']} ({row['contents']})"
            lines.append(f"| {name} | {arm} | {items} | {score} | {shown} | {said} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in plan.notes)]).rstrip() + "\n"


def write_tables(plan: StudyPlan, folder: Path) -> str:
    """Write study.json, study.md and study.svg; the text of study.md."""
    from mr3.cli.plots import differences

    runs = {
        arm: [scores_of(plan.stage, f / plan.compared, plan.sets, plan.languages) for f in folders]
        for arm, folders in plan.folders.items()
    }
    known = {name for seeds in runs.values() for run in seeds for name in run}
    missing = [name for name in plan.sets if name not in known]
    if missing:
        raise ValueError(
            f"no arm was evaluated on the set {missing[0]!r}: take it out of `sets`, or give the evaluation such a set"
        )
    found, same = compare_arms(runs, plan.baseline), one_model(plan)
    text = markdown(plan, found, same)
    write_json(folder / "study.json", {"plan": plan.model_dump(mode="json"), "one_model": same, "sets": found})
    write_atomic(folder / "study.md", text.encode())
    drawn = differences(found, plan.baseline)
    if drawn is not None:
        write_atomic(folder / "study.svg", base64.b64decode(drawn.split(",", 1)[1]))
    return text
