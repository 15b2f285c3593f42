"""1 up to `soft` tokens, falling in a line to 0 at `hard` (the soft overlong punishment of DAPO, arXiv 2503.14476).

Nothing is paid for being longer or shorter than the other samples: a bonus for length in a judge's reward buys
verbosity, and one for brevity buys empty traces. What was cut off earns 0.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from grpo_experiments.contract import Group, Term, Values


class Length(Term):
    """Pays for staying within the budget."""

    soft: int = Field(gt=0)
    hard: int = Field(gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.hard <= self.soft:
            raise ValueError(f"hard ({self.hard}) must be more tokens than soft ({self.soft})")
        return self

    def score(self, group: Group) -> Values:
        """By the number of sampled tokens."""
        return [
            0.0 if s.finish == "length" else min(1.0, max(0.0, (self.hard - s.tokens) / (self.hard - self.soft)))
            for s in group.samples
        ]


TERM = Length
