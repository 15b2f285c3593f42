"""Labelled comparisons under a true house rubric of the nano world: gold comes from the checkers, never from a judge.

A rubric that is refined on them must find out what the house wants; the tasks' own rubric says nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from mr3.nano.packs import CRITERIA, TRAIN_LANGUAGES
from mr3.nano.responses import Mix, write_response
from mr3.nano.tasks import Recipe, TaskMaker
from mr3.nano.testsets import HIDDEN
from mr3.nano.verdicts import gold
from mr3.refinement.records import Labelled

SPLIT = "judge_test"


def house_tasks(
    house: Sequence[str], rows: int, seed: int, languages: Sequence[str] = TRAIN_LANGUAGES
) -> list[Labelled]:
    """Comparisons whose gold follows `house`, criteria in order.

    Both responses are drawn freely, so that also criteria outside the house rubric differ between them: a rubric that
    names those is wrong on some of the tasks. Ties under the house rubric are kept as they fall.

    Args:
        house: names of the criteria that decide, first ones first.
        rows: number of tasks.

    Raises:
        ValueError: for a criterion that the checkers don't know.
    """
    unknown = sorted(set(house) - set(CRITERIA))
    if unknown or not house:
        raise ValueError(f"house: no criterion {', '.join(unknown) or 'is named'}; choose of {', '.join(CRITERIA)}")
    maker = TaskMaker(Recipe(SPLIT, languages=languages), seed)
    found: list[Labelled] = []
    for _ in range(rows):
        question = maker.question()
        texts = [write_response(question, Mix(language=0.6).sample(maker.rng), maker.rng) for _ in range(2)]
        made = maker.build("pairwise", question, tuple(house), HIDDEN, texts)
        task = made.task.model_copy(update={"id": f"house-{seed}-{len(found)}"})
        found.append(Labelled(task, gold("pairwise", question, house, texts)[0], question.content.key))
    return found
