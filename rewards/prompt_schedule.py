"""All judgements of one prompt, in rounds: the same generator asks in the stream and checks the answers afterwards.

It yields what to judge next, is sent the verdicts in the same order, and returns the comparisons. So plans that go on
from results (knockout, votes that stop when they are decided) can be replayed from stored verdicts, and every
judgement that was planned is accounted for.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

from mr3.records import DEFAULT_LABELS, PoolRow, Verdict
from rewards.model import combine, compare_scores, scored, wants_sample
from rewards.plans import PLANS, Board, Round, Winners, distinct
from rewards.records import Comparison
from rewards.tasks import TaskSettings

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One judgement of a prompt: the responses (A first), whether they are shown exchanged, and which sample it is."""

    response_ids: tuple[str, ...]
    swapped: bool = False
    sample: int = 0


Judging = Generator[list[Judgement], Sequence[Verdict], list[Comparison]]
Asking = Generator[list[Judgement], Sequence[Verdict], None]


def judge_prompt(row: PoolRow, settings: TaskSettings) -> Judging:
    """The judgements of one prompt; identical responses are judged once."""
    judged_as = distinct(row.responses)
    texts = {r.id: r.text.strip() for r in row.responses if judged_as[r.id] == r.id}
    ids = list(texts)
    board = Board.of(texts, settings.seed, row.prompt_id)
    labels = tuple(settings.rubric.levels) or DEFAULT_LABELS[settings.mode]
    if settings.mode == "pairwise":
        return (yield from _Pairwise(settings, board, labels).run())
    taken: dict[str, list[Verdict]] = {i: [] for i in ids}
    wanted = [Judgement((i,), sample=sample) for i in ids for sample in range(settings.samples)]
    for judgement, verdict in zip(wanted, (yield wanted), strict=True):
        taken[judgement.response_ids[0]].append(verdict)
    return _by_scores(settings, board, taken, labels)


class _Pairwise:
    """Plays a plan with the judge as the referee."""

    def __init__(self, settings: TaskSettings, board: Board, labels: Sequence[str]) -> None:
        self._settings, self._board, self._labels = settings, board, labels
        self._taken: dict[Pair, list[Verdict]] = {}
        self._found: dict[Pair, Comparison] = {}

    def run(self) -> Judging:
        plan = PLANS[self._settings.plan](len(self._board.slots))
        step = next(plan, None)
        while step is not None:
            slots = self._board.capped(step.pairs, self._settings.comparisons_per_prompt)
            pairs = [self._board.shown(a, b) for a, b in slots]
            yield from self._ask(pairs, self._orders(step))
            for pair in pairs:
                how = self._settings
                self._found[pair] = combine(*pair, self._taken[pair], how.combine, how.tie_margin, self._labels)
            winners = [self._found[pair].winner for pair in pairs]
            step = _advance(plan, [None if w is None else self._board.slots.index(w) for w in winners])
        return list(self._found.values())

    def _orders(self, step: Round) -> tuple[bool, ...]:
        orders = self._settings.orders
        return (False, True) if orders == "both" or (orders == "final" and step.decisive) else (False,)

    def _ask(self, pairs: Sequence[Pair], orders: Sequence[bool]) -> Asking:
        """Votes, one sample a round, until each is decided. Shown first together: their prompts share a prefix."""
        for sample in range(self._settings.samples):
            open_ = [(pair, swapped) for pair in pairs for swapped in orders if self._is_open(pair, swapped, sample)]
            wanted = [Judgement(pair, swapped, sample) for pair, swapped in open_]
            wanted.sort(key=lambda j: j.response_ids[j.swapped])
            if wanted:
                for judgement, verdict in zip(wanted, (yield wanted), strict=True):
                    self._taken.setdefault(_pair(judgement), []).append(verdict)

    def _is_open(self, pair: Pair, swapped: bool, sample: int) -> bool:
        taken = [v for v in self._taken.get(pair, ()) if v.swapped is swapped]
        return wants_sample(taken, sample, self._settings.samples, self._settings.combine, self._labels)


def _pair(judgement: Judgement) -> Pair:
    a, b = judgement.response_ids
    return a, b


def _advance(plan: Generator[Round, Winners, None], winners: Winners) -> Round | None:
    try:
        return plan.send(winners)
    except StopIteration:
        return None


def _by_scores(
    settings: TaskSettings, board: Board, taken: dict[str, list[Verdict]], labels: Sequence[str]
) -> list[Comparison]:
    """The plan's comparisons, from the responses' own scores."""
    scores = {i: scored(verdicts, labels, settings.mode) for i, verdicts in taken.items()}
    ids = {i: tuple(v.id for v in verdicts) for i, verdicts in taken.items()}
    found: dict[Pair, Comparison] = {}
    plan = PLANS[settings.plan](len(board.slots))
    step = next(plan, None)
    while step is not None:
        pairs = [board.shown(a, b) for a, b in board.capped(step.pairs, settings.comparisons_per_prompt)]
        for pair in pairs:
            found[pair] = compare_scores(*pair, scores, ids, settings.tie_margin)
        winners = [found[pair].winner for pair in pairs]
        step = _advance(plan, [None if w is None else board.slots.index(w) for w in winners])
    return list(found.values())


def replay(
    row: PoolRow, settings: TaskSettings, verdicts: Iterable[Verdict]
) -> tuple[list[Judgement], list[Comparison]]:
    """What was asked about a prompt, given all its verdicts in the order in which they were asked for.

    A missing, surplus or exchanged verdict is a bug of the stream.
    """
    given = iter(verdicts)
    asked: list[Judgement] = []
    judging = judge_prompt(row, settings)
    try:
        wanted = next(judging)
        while True:
            answers = [next(given, None) for _ in wanted]
            for judgement, verdict in zip(wanted, answers, strict=True):
                assert verdict is not None, f"{row.prompt_id}: a planned judgement came back without a verdict"
                known = (verdict.task_id, verdict.swapped, verdict.sample)
                assert known == (task_id(row.prompt_id, judgement), judgement.swapped, judgement.sample), known
            asked += wanted
            wanted = judging.send([v for v in answers if v is not None])
    except StopIteration as end:
        assert next(given, None) is None, f"{row.prompt_id}: a verdict came back that was not planned"
        comparisons: list[Comparison] = end.value
        return asked, comparisons


def task_id(prompt_id: str, judgement: Judgement) -> str:
    """The name of a judgement's task."""
    return "\t".join((prompt_id, *judgement.response_ids))
