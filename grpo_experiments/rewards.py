"""Reward terms for training the judge, combined into one composite reward.

One function and not several: TRL counts a `None` beside another reward as 0 in the sum, so only a single composite
leaves a failed row out of its group (TRL 1.16, `GRPOTrainer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mr3.parsing import parse
from mr3.records import Outcome

Term = Callable[[str, Mapping[str, Any]], float | None]


def correctness(text: str, row: Mapping[str, Any]) -> float:
    """The paper's arm: 1 for the right final score, else 0.

    A verdict that can't be parsed is the trained judge's own failure, so it earns 0 like a wrong one.
    """
    parsed = parse(text, row["labels"], "stop")
    return float(parsed.outcome is Outcome.OK and parsed.score == row["gold"])


def parsable(text: str, row: Mapping[str, Any]) -> float:
    """1 for any legal verdict."""
    return float(parse(text, row["labels"], "stop").outcome is Outcome.OK)


TERMS: dict[str, Term] = {"correctness": correctness, "parsable": parsable}


def composite(weights: Mapping[str, float]) -> Callable[..., list[float | None]]:
    """A TRL reward function: the weighted mean of the named terms; None where any of them is None.

    Raises:
        ValueError: for an unknown term or weights that do not sum to more than 0.
    """
    unknown = sorted(set(weights) - set(TERMS))
    if unknown:
        raise ValueError(f"unknown reward term {unknown[0]!r}: choose from {', '.join(TERMS)}")
    total = sum(weights.values())
    if total <= 0:
        raise ValueError("the weights of the reward terms must sum to more than 0")

    def reward(completions: Sequence[Any], **columns: Sequence[Any]) -> list[float | None]:
        rewards: list[float | None] = []
        for i, completion in enumerate(completions):
            text = completion if isinstance(completion, str) else completion[-1]["content"]
            row = {"gold": columns["gold"][i], "labels": columns["labels"][i]}
            parts = {name: TERMS[name](text, row) for name in weights}
            if any(p is None for p in parts.values()):
                rewards.append(None)
            else:
                rewards.append(sum(weights[n] * (p or 0.0) for n, p in parts.items()) / total)
        return rewards

    reward.__name__ = "+".join(weights)
    return reward


def zero_variance_share(rewards: Sequence[float | None], group: int) -> float:
    """The share of groups of `group` consecutive rewards that are all equal, and so give no gradient."""
    assert group > 1 and len(rewards) % group == 0, "rewards come in whole groups"
    groups = [rewards[i : i + group] for i in range(0, len(rewards), group)]
    return sum(len(set(g)) == 1 for g in groups) / len(groups) if groups else 0.0
