"""The numbers of an audit that need no gold: outcomes, scores and reasons, in all, per language and per policy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mr3.judging.scale import label_values
from mr3.records import Mode
from mr3.stats import wilson
from mr3.uncertainty import mean_of
from rewards.auditing.breakdown import Breakdown
from rewards.walk import Labelled, Row

NOT_GENERATED = frozenset(("too_long", "engine_failed", "not_judged"))


class Outcomes:
    """Outcomes and scores, by response (single modes) or by verdict (pairwise).

    Args:
        values: score -> its number.
    """

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values
        self.outcomes: Counter[str] = Counter()
        self.scores: Counter[str] = Counter()

    def add(self, verdict: Row) -> None:
        """Count one judgement."""
        self.outcomes[verdict["outcome"]] += 1
        if verdict["score"] is not None:
            self.scores[verdict["score"]] += 1

    def report(self) -> dict[str, Any]:
        """Rates with intervals; the mean score counts a pairwise verdict as 1 for A, a half for a tie."""
        n = self.outcomes.total()
        generated = sum(count for outcome, count in self.outcomes.items() if outcome not in NOT_GENERATED)
        numbers: Counter[float] = Counter()
        for score, count in self.scores.items():
            numbers[self._values[score]] += count
        return {
            "n": n,
            "ok": wilson(self.outcomes["ok"], n),
            "generated": wilson(generated, n),
            "outcomes": dict(sorted(self.outcomes.items())),
            "scores": dict(sorted(self.scores.items())),
            "mean_score": mean_of(numbers),
        }


class Tally:
    """Outcomes and scores per language and policy, and reasons of failures."""

    def __init__(self, labels: Sequence[str], mode: Mode, examples: int = 3) -> None:
        values = label_values(labels, mode)
        self._pairwise = mode == "pairwise"
        self._keep = examples
        self._found = Breakdown(lambda: Outcomes(values))
        self._examples: dict[str, list[dict[str, str | None]]] = defaultdict(list)
        self.prompts = self.responses = self.duplicates = self.cut = 0

    def add(self, prompt: Labelled) -> None:
        """Count one prompt. A response equal to another of its prompt counts with that one's verdict."""
        self.prompts += 1
        self.responses += len(prompt.responses)
        self.duplicates += sum(r["judged_as"] != r["response_id"] for r in prompt.responses)
        self.cut += sum(r["cut"] for r in prompt.responses)
        for verdict in prompt.verdicts:
            self._example(prompt, verdict)
        if self._pairwise:
            self._add_pairs(prompt)
        else:
            self._add_responses(prompt)

    def _count(self, verdict: Row, language: str, policies: Sequence[str]) -> None:
        for part in self._found.of(language, policies):
            part.add(verdict)

    def _add_responses(self, prompt: Labelled) -> None:
        nothing = {"outcome": "not_judged", "score": None}
        for response in prompt.responses:
            for verdict in prompt.verdicts_on(response["judged_as"]) or [nothing]:
                self._count(verdict, prompt.language, [response["policy"]])

    def _add_pairs(self, prompt: Labelled) -> None:
        for verdict in prompt.verdicts:
            self._count(verdict, prompt.language, prompt.authors_of(verdict["response_ids"]))

    def _example(self, prompt: Labelled, verdict: Row) -> None:
        outcome = verdict["outcome"]
        if outcome != "ok" and len(self._examples[outcome]) < self._keep:
            shown = {"prompt_id": prompt.prompt_id, "responses": ", ".join(verdict["response_ids"])}
            self._examples[outcome].append({**shown, "reason": verdict["reason"]})

    def report(self) -> dict[str, Any]:
        """All counts, with what they are counted over."""
        return {
            "prompts": self.prompts,
            "responses": self.responses,
            "duplicate_responses": self.duplicates,
            "cut_responses": self.cut,
            "counted_over": "verdicts" if self._pairwise else "responses (duplicates with their equal's verdict)",
            **self._found.report(),
            "failure_examples": dict(self._examples),
        }
