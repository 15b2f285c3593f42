"""Proposals of a teacher model: it reads the present rubric and some of the judge's mistakes on the development set."""

from __future__ import annotations

import random
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mr3.records import stable_hash
from mr3.refinement.records import Proposal, ProposalOutcome, Situation
from mr3.rubrics.asking import ask_for_better
from mr3.rubrics.reply import parse_reply
from mr3.rubrics.teacher import Question, Teacher, TeacherConfig


class TeacherProposals(BaseModel):
    """A teacher as proposer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["teacher"] = "teacher"
    teacher: TeacherConfig
    shown: int = Field(8, ge=1, description="mistakes that one question shows")
    sizes: tuple[int, int] = Field((1, 6), description="fewest and most criteria asked for")


class TeacherProposer:
    """Asks as often as proposals are wanted, each time with another draw of mistakes."""

    def __init__(self, config: TeacherProposals, teacher: Teacher, seed: int) -> None:
        self._config, self._teacher, self._seed = config, teacher, seed

    def questions(self, situation: Situation) -> list[Question]:
        """One question per wanted proposal; none where the judge made no mistake."""
        if not situation.mistakes:
            return []
        found = []
        mode = situation.mistakes[0].task.mode
        for i in range(situation.wanted):
            key = stable_hash("improve", self._seed, situation.round, i, situation.current.content_hash)
            rng = random.Random(key)
            drawn = rng.sample(list(situation.mistakes), min(self._config.shown, len(situation.mistakes)))
            cases = [(m.task, m.gold, m.said, m.explanation) for m in drawn]
            found.append(Question(key, ask_for_better(situation.current, mode, cases, self._config.sizes)))
        return found

    def propose(self, situation: Situation) -> list[Proposal]:
        """One proposal per answer; an answer that is no rubric is a proposal with an outcome and a reason."""
        questions = self.questions(situation)
        if not questions:
            return []
        answers = self._teacher.ask(questions)
        current, found = situation.current, []
        for question in questions:
            completion = answers[question.id][0]
            mode, labels = situation.mistakes[0].task.mode, tuple(current.levels)
            reply = parse_reply(completion.text, completion.finish, mode, labels, current.name, current.language)
            found.append(
                Proposal(
                    edit="rewritten by the teacher",
                    outcome=ProposalOutcome(reply.outcome.value),
                    rubric=reply.rubric,
                    reason=completion.error or reply.reason if reply.rubric is None else None,
                    source={"proposer": "teacher", "request": question.id, **self._config.teacher.provenance()},
                )
            )
        return found
