"""1 less the share of the trace that is a loop, or that stood in it before, whichever is more.

In characters, so that it means the same in every script (mr3.evaluation.traces.repetition). A text without a closed
trace is looked at whole.
"""

from __future__ import annotations

from grpo_experiments.contract import Group, Term, Values
from mr3.evaluation.traces.repetition import loop_share, repeated_share


class Repetition(Term):
    """Pays for traces that do not run in a loop."""

    def score(self, group: Group) -> Values:
        """Always measured."""
        texts = [s.trace or s.text for s in group.samples]
        return [1.0 - max(loop_share(text), repeated_share(text) or 0.0) for text in texts]


TERM = Repetition
