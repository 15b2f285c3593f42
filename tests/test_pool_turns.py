"""Multi-turn prompts and system prompts: from the pool into the judge's prompt and into preferences, unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import TypeAdapter

from mr3.prompts.render import render
from mr3.records import Outcome, Verdict
from mr3.rubrics import Criterion, Rubric
from rewards.collect import Collector, PairSettings
from rewards.ingest import ingest_pool, read_part
from rewards.pool import PoolSpec
from rewards.prompt_schedule import judge_prompt, task_id
from rewards.tasks import TaskMaker, TaskSettings

TALK = [
    {"role": "system", "content": "Answer in rhymes.\n# Not a heading"},
    {"role": "user", "content": "Wie heißt der längste Fluss?"},
    {"role": "assistant", "content": "Der Nil <|im_end|>\n  ist's."},
    {"role": "user", "content": "Und  der zweitlängste?\n"},
]
SETTINGS = TaskSettings(rubric=Rubric(name="house", criteria=[Criterion(name="right", description="It is right.")]))


def _rows(tmp_path: Path, columns: dict[str, Any] | None, row: dict[str, Any]) -> list[Any]:
    file = tmp_path / "set.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    spec = TypeAdapter(PoolSpec).validate_python({"path": str(file), "columns": columns})
    done = ingest_pool(spec, tmp_path / "work", tmp_path / "rejected.jsonl")
    return [r for part in done.parts for _, r in read_part(part)]


def _both(tmp_path: Path) -> list[Any]:
    """The same talk in the pool's own form, and as a set's chosen and rejected conversations."""
    answers = ["Der Amazonas.", "Der Rhein."]
    own = {
        "prompt_id": "a",
        "prompt": TALK,
        "language": "de",
        "responses": [{"text": t, "policy": "p"} for t in answers],
    }
    talks = {
        n: [*TALK, {"role": "assistant", "content": t}] for n, t in zip(("chosen", "rejected"), answers, strict=True)
    }
    (tmp_path / "own").mkdir()
    (tmp_path / "set").mkdir()
    columns = {"responses": ["chosen", "rejected"], "language": "=de", "prompt_id": "=a"}
    return _rows(tmp_path / "own", None, own) + _rows(tmp_path / "set", columns, talks)


def test_every_turn_stands_in_the_judges_prompt_in_order(tmp_path: Path) -> None:
    for row in _both(tmp_path):
        asked = next(judge_prompt(row, SETTINGS))
        task = TaskMaker(row, SETTINGS).task("t", asked[0].response_ids)
        shown = render(task, "compact").user
        positions = [
            shown.index(text)
            for text in (
                "<system>\nAnswer in rhymes.\n\\# Not a heading\n</system>",
                "<user>\nWie heißt der längste Fluss?\n</user>",
                "<assistant>\nDer Nil <¦im_end¦>\n  ist's.\n</assistant>",
                "<user>\nUnd  der zweitlängste?\n\n</user>",
                "# Assistant A",
            )
        ]
        assert positions == sorted(positions) and shown.count("<user>") == 2


def test_preferences_hold_the_messages_as_they_were(tmp_path: Path) -> None:
    for number, row in enumerate(_both(tmp_path)):
        asked = next(judge_prompt(row, SETTINGS))
        better = next(r.id for r in row.responses if "Amazonas" in r.text)
        label = "Assistant A" if asked[0].response_ids[0] == better else "Assistant B"
        verdicts = [
            Verdict(id=str(i), task_id=task_id(row.prompt_id, j), outcome=Outcome.OK, score=label, swapped=j.swapped)
            for i, j in enumerate(asked)
        ]
        folder = tmp_path / f"label {number}"
        with Collector(folder, SETTINGS, PairSettings(), None) as collector:
            collector.prompt(row, verdicts)
        (pair,) = pq.read_table(folder / "preferences.parquet").to_pylist()
        assert pair["prompt"] == TALK
        assert pair["chosen"] == [{"role": "assistant", "content": "Der Amazonas."}]
        (prompt,) = pq.read_table(folder / "prompts.parquet").to_pylist()
        assert prompt["prompt"] == TALK


def test_a_single_user_turn_is_judged_as_plain_text(tmp_path: Path) -> None:
    talk = [TALK[1], {"role": "assistant", "content": "Der Nil."}]
    (row,) = _rows(tmp_path, {"responses": ["talk"], "language": "=de"}, {"talk": talk})
    assert row.prompt == TALK[1]["content"] and row.messages == [TALK[1]]
