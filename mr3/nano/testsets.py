"""The judge's evaluation sets: what each asks, and which split and languages it is drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mr3.nano.packs import UNSEEN_LANGUAGES
from mr3.nano.tasks import JudgeTask, Recipe, TaskMaker
from mr3.nano.verdicts import score
from mr3.records import Mode
from mr3.rubrics import Criterion, Rubric

_SPLIT = "judge_test"
_MODES: tuple[Mode, ...] = ("pairwise", "pointwise", "binary")
HIDDEN = Rubric(name="hidden", criteria=[Criterion(name="hidden", description="The response is good.")])


def _row(made: JudgeTask, name: str, index: int, group: str | None = None) -> dict[str, Any]:
    first = None
    if made.task.mode == "pairwise":
        first = score("pairwise", made.question, made.names[:1], made.task.responses)
    task = made.task.model_copy(update={"id": f"{name}-{index}"})
    return {
        "id": task.id,
        "task": task.model_dump_json(),
        "gold": made.label,
        "sets": [name],
        "content": made.question.content.key,
        "language": task.language,
        "mode": task.mode,
        "group": group,
        "first_criterion": first,
    }


def _mixed(name: str, recipe: Recipe, rows: int, seed: int) -> Iterator[dict[str, Any]]:
    maker = TaskMaker(recipe, seed)
    for i in range(rows):
        yield _row(maker.task(_MODES[i % 3]), name, i)


def _pairwise(name: str, recipe: Recipe, rows: int, seed: int) -> Iterator[dict[str, Any]]:
    maker = TaskMaker(recipe, seed)
    for i in range(rows):
        yield _row(maker.task("pairwise"), name, i)


def _held_out_criterion(rows: int, seed: int) -> Iterator[dict[str, Any]]:
    maker = TaskMaker(Recipe(_SPLIT, criterion="sure"), seed)
    for i in range(rows):
        yield _row(maker.task("pairwise"), "unseen_criterion", i)


def _hidden(rows: int, seed: int) -> Iterator[dict[str, Any]]:
    """The tasks of the pairwise set, with nothing of the rubric to see."""
    maker = TaskMaker(Recipe(_SPLIT), seed)
    for i in range(rows):
        made = maker.task("pairwise")
        blind = made.task.model_copy(update={"rubric": HIDDEN})
        yield _row(JudgeTask(blind, made.question, made.names, made.label, made.completion), "rubric_hidden", i)


def _flips(rows: int, seed: int) -> Iterator[dict[str, Any]]:
    maker = TaskMaker(Recipe(_SPLIT), seed)
    for i in range(rows // 2):
        for j, made in enumerate(maker.flip_pair()):
            yield _row(made, "rubric_flip", 2 * i + j, f"flip-{i}")


def gold_rows(made: Iterable[JudgeTask], name: str) -> list[dict[str, Any]]:
    """Tasks with gold labels in the evaluation format, as one set."""
    return [_row(one, name, i) for i, one in enumerate(made)]


def build_sets(rows: int, seed: int) -> list[dict[str, Any]]:
    """All sets as rows of the evaluation format."""
    found: list[dict[str, Any]] = []
    for k, mode in enumerate(_MODES):
        maker = TaskMaker(Recipe(_SPLIT), seed + k)
        found += [_row(maker.task(mode), mode, i) for i in range(rows)]
    own = Recipe(_SPLIT, languages=UNSEEN_LANGUAGES, own_rubric=1.0)
    found += _mixed("unseen", Recipe(_SPLIT, languages=UNSEEN_LANGUAGES), rows, seed + 10)
    found += _mixed("unseen_own_rubric", own, rows // 2, seed + 11)
    found += _mixed("unseen_rubric", Recipe(_SPLIT, held_out_rubric=True), rows, seed + 12)
    found += _held_out_criterion(rows // 2, seed + 13)
    found += _pairwise("unseen_family", Recipe(_SPLIT, families=("difference",)), rows // 2, seed + 14)
    found += _hidden(rows, seed)
    found += _flips(rows, seed + 15)
    found += _pairwise("damaged", Recipe(_SPLIT, garbled=1.0), rows // 2, seed + 16)
    return found
