"""The method: propose, judge the development set, accept on the second set, and measure on the third, once.

The rule. In each round the rubric with the best mean on the development set, if it is better there than the present
one, is judged on the second set. It is accepted when the lower end of the interval of its paired difference to the
present rubric on that set is above the margin. The intervals of all rounds together hold with the stated confidence
(each at 1 - (1 - confidence) / rounds), because the second set is asked again and again. Refused rubrics are not tried
again. The third set plays no part in any of this.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from mr3.refinement.history import History, Judged, Round
from mr3.refinement.records import (
    Labelled,
    Panel,
    Proposal,
    ProposalOutcome,
    Proposer,
    Scores,
    Sets,
    Situation,
    difference,
)
from mr3.rubrics import Rubric
from mr3.rubrics.checks import mode_problems
from mr3.rubrics.loading import text_problems

log = logging.getLogger("mr3.refinement")


class Rule(BaseModel):
    """When the search ends, and when a rubric is accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(6, ge=1, description="at most so many rounds")
    candidates: int = Field(8, ge=1, description="proposals that are judged per round")
    patience: int = Field(2, ge=1, description="the search ends after so many rounds in a row without an acceptance")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of all acceptances together")
    margin: float = Field(0.0, ge=0, lt=1, description="gain on the second set that must be exceeded")

    @property
    def per_round(self) -> float:
        """The confidence of one round's interval."""
        return 1 - (1 - self.confidence) / self.rounds


@dataclass
class _Search:
    """What is known so far: the present rubric, what was judged, what was refused."""

    current: Rubric
    judged: dict[str, tuple[Rubric, float]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    rounds: int = 0
    stale: int = 0

    def take(self, row: Round) -> None:
        """Learn from a round, of this run or of the one that it goes on from."""
        for judged in row.proposals:
            if judged.hash is not None and judged.develop is not None and judged.proposal.rubric is not None:
                self.judged[judged.hash] = (judged.proposal.rubric, judged.develop)
        if row.chosen is not None and not row.accepted:
            self.refused.add(row.chosen)
        self.current, self.rounds = row.rubric, row.round
        self.stale = 0 if row.accepted else self.stale + 1


def _usable(proposal: Proposal, start: Rubric, items: Sequence[Labelled], known: frozenset[str]) -> Proposal:
    """The proposal, or why it can't be judged: labels must stay those of the gold, texts must be a rubric's."""
    rubric = proposal.rubric
    if proposal.outcome is not ProposalOutcome.OK or rubric is None:
        return proposal
    problems = text_problems(rubric)
    problems += [p for mode in sorted({i.task.mode for i in items}) for p in mode_problems(rubric, mode)]
    if list(rubric.levels) != list(start.levels):
        problems.append(f"levels {', '.join(rubric.levels) or 'none'}: must stay {', '.join(start.levels) or 'none'}")
    if problems:
        said = {"outcome": ProposalOutcome.INVALID, "reason": "; ".join(problems)}
        return proposal.model_copy(update=said)
    if rubric.content_hash in known:
        return proposal.model_copy(update={"outcome": ProposalOutcome.KNOWN, "reason": "was judged already"})
    return proposal


def _judge_proposals(
    proposals: Sequence[Proposal], panel: Panel, search: _Search, start: Rubric, items: Sequence[Labelled]
) -> tuple[list[Judged], Scores]:
    """Each proposal with its development mean, and the scores of the present rubric."""
    rows: list[Judged] = []
    known = frozenset({*search.judged, search.current.content_hash})
    for proposal in proposals:
        checked = _usable(proposal, start, items, known)
        rubric = checked.rubric if checked.outcome is ProposalOutcome.OK else None
        rows.append(Judged(proposal=checked, hash=rubric.content_hash if rubric else None))
        known |= {rubric.content_hash} if rubric else set()
    open_rows = [row for row in rows if row.hash is not None]
    rubrics = [row.proposal.rubric for row in open_rows if row.proposal.rubric is not None]
    scores = panel.scores([search.current, *rubrics], items)
    for row, found in zip(open_rows, scores[1:], strict=True):
        row.develop = found.mean()
    return rows, scores[0]


def _best(search: _Search, rows: Sequence[Judged], above: float) -> tuple[str, Rubric, float] | None:
    """The best rubric judged so far that was not refused and beats the present one; shorter ones win ties."""
    all_judged = dict(search.judged)
    for row in rows:
        if row.hash is not None and row.develop is not None and row.proposal.rubric is not None:
            all_judged[row.hash] = (row.proposal.rubric, row.develop)
    open_ones = [(h, r, m) for h, (r, m) in all_judged.items() if h not in search.refused and m > above]
    return min(open_ones, key=lambda x: (-x[2], len(x[1].criteria), x[0]), default=None)


def _round(search: _Search, start: Rubric, sets: Sets, panel: Panel, proposer: Proposer, rule: Rule) -> Round:
    number, develop = search.rounds + 1, sets["develop"]
    now = panel.scores([search.current], develop)[0]
    known = frozenset({*search.judged, search.current.content_hash})
    situation = Situation(search.current, number, rule.candidates, known, now.mistakes)
    rows, now = _judge_proposals(proposer.propose(situation), panel, search, start, develop)
    row = Round(
        round=number,
        before=search.current.content_hash,
        develop=now.mean(),
        proposals=rows,
        why="no proposal is better on the development set",
        rubric=search.current,
    )
    best = _best(search, rows, now.mean())
    if best is None:
        return row
    row.chosen, rubric, row.chosen_develop = best
    before, after = panel.scores([search.current, rubric], sets["accept"])
    row.difference = difference(after, before, rule.per_round)
    low = row.difference["interval"][0]
    row.accepted = low > rule.margin
    sign = "above" if row.accepted else "not above"
    row.why = f"lower end {low:+.4f} of the {rule.per_round:.4f} interval on the second set is {sign} {rule.margin:g}"
    if row.accepted:
        row.rubric = rubric
    return row


def refine(start: Rubric, sets: Sets, panel: Panel, proposer: Proposer, rule: Rule, history: History) -> list[Round]:
    """Run the rounds that the history lacks; returns all of them. The last one's `rubric` is the refined rubric.

    Raises:
        ValueError: when the history is of another start.
    """
    search, rows = _Search(start), history.read()
    for row in rows:
        if row.before != search.current.content_hash or row.round != search.rounds + 1:
            raise ValueError(
                f"{history.path} does not go on from this rubric (round {row.round}): delete it, or the folder"
            )
        search.take(row)
    if rows:
        log.info("going on after round %d", search.rounds)
    while search.rounds < rule.rounds and search.stale < rule.patience:
        row = _round(search, start, sets, panel, proposer, rule)
        history.add(row)
        search.take(row)
        rows.append(row)
        log.info(
            "round %d: develop %.3f, %d proposals, %s: %s",
            row.round,
            row.develop,
            len(row.proposals),
            "accepted" if row.accepted else "kept the rubric",
            row.why,
        )
    return rows
