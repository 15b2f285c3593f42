"""What heuristics that read no rubric score on pairwise tasks: a judge that is not far above them judges nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mr3.evaluation.tasks import EvalTask
from mr3.judging.scale import label_values
from mr3.records import Task
from mr3.stats import Rate, rate


def sides(labels: Sequence[str]) -> tuple[str, str, str | None] | None:
    """The labels for A better, B better and neither (`Tie` first); None where no single label means a side."""
    values = label_values(labels, "pairwise")
    a, b, even = ([label for label in labels if values[label] == value] for value in (1.0, 0.0, 0.5))
    if len(a) != 1 or len(b) != 1:
        return None
    return a[0], b[0], even[0] if even else None


def longer(task: Task) -> str | None:
    """The longer response in characters wins; equal lengths are a tie (None where the scale has none)."""
    found = sides(task.labels)
    assert found is not None, "callers leave out scales without sides"
    a, b, tie = found
    lengths = [len(text) for text in task.responses]
    return tie if lengths[0] == lengths[1] else a if lengths[0] > lengths[1] else b


def always_a(task: Task) -> str | None:
    """The first response wins."""
    found = sides(task.labels)
    assert found is not None, "callers leave out scales without sides"
    return found[0]


HEURISTICS: dict[str, Callable[[Task], str | None]] = {"longer": longer, "always_a": always_a}


def baselines(tasks: Sequence[EvalTask]) -> dict[str, Rate]:
    """Accuracy of each heuristic over the pairwise tasks; of `first_criterion` where the data brings its labels."""
    pairs = [t for t in tasks if t.task.mode == "pairwise" and sides(t.task.labels) is not None]
    if not pairs:
        return {}
    contents = [t.content for t in pairs]
    found = {name: rate((guess(t.task) == t.gold for t in pairs), contents) for name, guess in HEURISTICS.items()}
    told = [t for t in pairs if t.first_criterion is not None]
    if told:
        found["first_criterion"] = rate((t.first_criterion == t.gold for t in told), [t.content for t in told])
    return found
