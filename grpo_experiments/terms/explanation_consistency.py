"""p_reader(verdict | explanation): a frozen reader recovers the score from the explanation alone.

The reader (`reader:` in the config, by default the start of the run) gets the judge's prompt with input, responses and
rubric blanked, an empty trace, and the sample's explanation; its probability of the score that the sample gave is the
reward. An explanation that argues for another score than it gives, or for none, earns little.
"""

from __future__ import annotations

from typing import ClassVar

from grpo_experiments.contract import Group, Need, Term, Values


class ExplanationConsistency(Term):
    """Pays for explanations that say the score."""

    needs: ClassVar[frozenset[Need]] = frozenset({"reader_probs"})

    def score(self, group: Group) -> Values:
        """A failed verdict or an empty explanation earns 0; None where the reader was not asked."""
        found: Values = []
        for sample in group.samples:
            if not sample.ok or not (sample.parsed.explanation or "").strip():
                found.append(0.0)
            elif sample.reader_probs is None or sample.parsed.score is None:
                found.append(None)
            else:
                found.append(min(1.0, sample.reader_probs[sample.parsed.score]))
        return found


TERM = ExplanationConsistency
