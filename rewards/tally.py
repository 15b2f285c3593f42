"""The numbers of an audit that need no gold: outcomes, scores and reasons, per language and per policy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from mr3.stats import wilson
from rewards.walk import Labelled, Row

NOT_GENERATED = frozenset(("too_long", "engine_failed", "not_judged"))


class Outcomes:
    """Outcomes and scores of one language or policy, by response (single modes) or by verdict (pairwise)."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.scores: Counter[str] = Counter()

    def add(self, verdict: Row) -> None:
        """Count one judgement."""
        self.outcomes[verdict["outcome"]] += 1
        if verdict["score"] is not None:
            self.scores[verdict["score"]] += 1

    def report(self) -> dict[str, Any]:
        """Rates with intervals."""
        n = self.outcomes.total()
        generated = sum(count for outcome, count in self.outcomes.items() if outcome not in NOT_GENERATED)
        return {
            "n": n,
            "ok": wilson(self.outcomes["ok"], n),
            "generated": wilson(generated, n),
            "outcomes": dict(sorted(self.outcomes.items())),
            "scores": dict(sorted(self.scores.items())),
        }


class Tally:
    """Outcomes per language and policy, reasons of failures, and score against length."""

    def __init__(self, pairwise: bool, examples: int = 3) -> None:
        self._pairwise = pairwise
        self._keep = examples
        self._languages: dict[str, Outcomes] = defaultdict(Outcomes)
        self._policies: dict[str, Outcomes] = defaultdict(Outcomes)
        self._all = Outcomes()
        self._examples: dict[str, list[dict[str, str | None]]] = defaultdict(list)
        self._lengths: list[tuple[int, float]] = []
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
        self._all.add(verdict)
        self._languages[language].add(verdict)
        for policy in policies:
            self._policies[policy].add(verdict)

    def _add_responses(self, prompt: Labelled) -> None:
        nothing = {"outcome": "not_judged", "score": None}
        for response in prompt.responses:
            verdicts = prompt.verdicts_on(response["judged_as"]) or [nothing]
            for verdict in verdicts:
                self._count(verdict, prompt.language, [response["policy"]])
                if verdict.get("expected") is not None:
                    self._lengths.append((response["chars"], verdict["expected"]))

    def _add_pairs(self, prompt: Labelled) -> None:
        policies = {r["response_id"]: r["policy"] for r in prompt.responses}
        for verdict in prompt.verdicts:
            self._count(verdict, prompt.language, sorted({policies[i] for i in verdict["response_ids"]}))

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
            "all": self._all.report(),
            "languages": {k: v.report() for k, v in sorted(self._languages.items())},
            "policies": {k: v.report() for k, v in sorted(self._policies.items())},
            "failure_examples": dict(self._examples),
            "score_length_spearman": spearman(self._lengths),
        }


def spearman(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Rank correlation, None with a reason where one side is constant or there are fewer than three."""
    n = len(pairs)
    if n < 3:
        return {"value": None, "n": n, "reason": "fewer than three responses with an expected score"}
    first, second = np.asarray(pairs, dtype=float).T
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return {"value": None, "n": n, "reason": "constant length or score"}
    from scipy.stats import spearmanr

    return {"value": float(spearmanr(first, second).statistic), "n": n}
