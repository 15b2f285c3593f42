"""The numbers of an audit that need no gold: outcomes, scores, orders, position, length, and what each way to combine keeps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from mr3.records import Verdict
from mr3.stats import wilson
from rewards.model import combine, result_of
from rewards.noise import kept_error
from rewards.walk import Labelled, Row, as_verdict

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


class Orders:
    """What the two orders say: flips, position, length, and yield and accuracy of each way to combine."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, prompt: Labelled) -> None:
        """Count one prompt's comparisons, combined anew from its verdicts."""
        chars = {r["response_id"]: r["chars"] for r in prompt.responses}
        for row in prompt.comparisons:
            verdicts = [as_verdict(v) for v in prompt.verdicts_on(row["a"], row["b"])]
            found: Counter[str] = Counter(comparisons=1, flips=int(row["flip"]), failed=int(row["result"] == "failed"))
            found.update(self._position(verdicts))
            for how in ("agree", "mean"):
                result = combine(row["a"], row["b"], verdicts, how, labels=self._labels)
                found.update(self._kept(how, result.result, row["truth"]))
            if row["result"] in ("a", "b") and chars[row["a"]] != chars[row["b"]]:
                longer = "a" if chars[row["a"]] > chars[row["b"]] else "b"
                found.update(unequal=1, longer_wins=int(row["result"] == longer))
            self._counts[prompt.language].update(found)

    def _position(self, verdicts: Sequence[Verdict]) -> Counter[str]:
        found: Counter[str] = Counter()
        for verdict in verdicts:
            result = result_of(verdict, self._labels)
            if result in ("a", "b"):
                found["decided"] += 1
                found["first_shown"] += (result == "a") != verdict.swapped
        return found

    @staticmethod
    def _kept(how: str, result: str, truth: int | None) -> Counter[str]:
        if result not in ("a", "b"):
            return Counter()
        found = Counter({f"{how}_pairs": 1})
        if truth:
            found[f"{how}_checked"] = 1
            found[f"{how}_right"] = int((truth == 1) == (result == "a"))
        elif truth == 0:
            found[f"{how}_equal"] = 1
        return found

    def report(self) -> dict[str, Any]:
        """In all and per language."""
        total: Counter[str] = Counter()
        for counter in self._counts.values():
            total.update(counter)
        return {
            "all": self._of(total),
            "languages": {name: self._of(counter) for name, counter in sorted(self._counts.items())},
        }

    @staticmethod
    def _of(c: Counter[str]) -> dict[str, Any]:
        judged = c["comparisons"] - c["failed"]
        return {
            "comparisons": c["comparisons"],
            "failed": c["failed"],
            "flip_rate": wilson(c["flips"], judged),
            "kept_error_from_flips": kept_error(c["flips"] / judged) if judged else None,
            "first_shown_wins": wilson(c["first_shown"], c["decided"]),
            "longer_wins": wilson(c["longer_wins"], c["unequal"]),
            "combine": {
                how: {
                    "yield": wilson(c[f"{how}_pairs"], c["comparisons"]),
                    "accuracy": wilson(c[f"{how}_right"], c[f"{how}_checked"]),
                    "truly_equal": c[f"{how}_equal"],
                }
                for how in ("agree", "mean")
            },
        }
