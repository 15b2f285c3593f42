"""`mr3 own-samples`: a judge's own samples on labelled tasks, as the data of what is compared with GRPO.

Out, in `output_dir`:
- `samples.parquet`: every sample, with its outcome and whether it is right;
- `rejection_sft.parquet`: the right ones as rows for `mr3 sft` (rejection sampling: RFT, arXiv 2308.01825), a text once
  per task;
- `labels_sft.parquet`: the same tasks with the gold score and an empty trace, which is all that GRPO is told;
- `preferences.parquet`: right against wrong samples of a task, for `mr3 dpo`.

The samples go through the generation store, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from grpo_experiments.contract import Example
from grpo_experiments.data import Tasks, read_tasks
from mr3.artifacts import stage_run
from mr3.config import StageConfig
from mr3.inference.engine import Completion, EngineConfig, Request, Sampling
from mr3.inference.stream import StreamSettings
from mr3.judge_card import JudgeCard, load_card
from mr3.parsing import CLOSE, Parsed, format_named
from mr3.prompts import Rendered
from mr3.records import Outcome, stable_hash
from mr3.stage import stage_main

log = logging.getLogger("mr3.samples")


class OwnSamplesConfig(StageConfig):
    """A judge, labelled tasks, and how often each is answered."""

    model: str = Field(description="folder or hub id of the judge")
    tasks: Path = Field(description="Parquet as `mr3 grpo` reads it: `task`, `gold`, and `twin` where there are twins")
    max_tasks: int | None = Field(None, gt=0, description="so many tasks at most, drawn by the seed; twins together")
    samples: int = Field(8, gt=0, description="answers per task")
    temperature: float = Field(1.0, gt=0)
    max_output_tokens: int | None = Field(None, gt=0, description="unset: as the judge's card says")
    pairs: int = Field(4, ge=0, description="right against wrong samples of a task, at most; each is used once")
    templates_dir: Path | None = Field(None, description="the user's copy of the published templates")
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM EngineArgs by name")
    host: str | None = Field(None, description="name of a Ray actor that holds the engines, also for later stages")
    store: Path = Path("store/generation")
    stream: StreamSettings = StreamSettings()


@dataclass(frozen=True)
class Prompted:
    """A task as the judge is asked it."""

    example: Example
    rendered: Rendered
    text: str


@dataclass(frozen=True)
class Sampled:
    """One answer, read by the parser of the judge's card."""

    completion: Completion
    parsed: Parsed
    right: bool


def run(config: OwnSamplesConfig) -> None:
    """Write the four tables.

    Raises:
        ValueError: for a missing file or judge, tasks without gold, or where no sample is right.
    """
    with stage_run("own-samples", config, [config.tasks, config.model]) as stage:
        if not stage.finished:
            _run(config, stage.folder, stage.metrics)


def _run(config: OwnSamplesConfig, folder: Path, metrics: dict[str, Any]) -> None:
    from mr3.training import load_tokenizer

    card = load_card(config.model)
    if config.templates_dir is not None:
        card = card.model_copy(update={"templates_dir": config.templates_dir})
    prompted, dropped = _prompted(config, card, load_tokenizer(config.model))
    answers = _generated(config, card, prompted)
    read = [read_samples(card, one, answers[one.example.task.id]) for one in prompted]
    made = tables(prompted, read, config.pairs, config.seed)
    everything = [sample for own in read for sample in own]
    if not made["rejection_sft"]:
        raise ValueError(
            f"not one of {len(everything)} samples is right: there is nothing to train on. Give a judge that can do a "
            "part of the tasks, or a higher temperature or more samples"
        )
    for name, rows in made.items():
        if rows:
            _write(folder / f"{name}.parquet", rows)
    metrics.update(
        tasks=len(prompted),
        dropped=dropped,
        samples=len(everything),
        right=sum(s.right for s in everything) / len(everything),
        outcomes=dict(Counter(str(s.parsed.outcome) for s in everything)),
        tasks_with_a_right_sample=sum(any(s.right for s in own) for own in read) / len(read),
        rows={name: len(rows) for name, rows in made.items()},
        labels=len(prompted),
        prompt_tokens=sum(own[0].completion.prompt_tokens for own in read),
        sampled_tokens=sum(s.completion.output_tokens for s in everything),
    )
    log.info("%d tasks, %d samples, %.3f right", len(prompted), len(everything), metrics["right"])


def tables(
    prompted: Sequence[Prompted], read: Sequence[Sequence[Sampled]], pairs: int, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """The four tables by name. `read`: the samples of each task; `pairs`: most of a task."""
    rng = random.Random(f"pairs-{seed}")
    both = list(zip(prompted, read, strict=True))
    return {
        "samples": [row for one, own in both for row in _sample_rows(one, own)],
        "rejection_sft": [row for one, own in both for row in _right_rows(one, own)],
        "labels_sft": [_label_row(one) for one in prompted],
        "preferences": [row for one, own in both for row in _pairs(one, own, pairs, rng)],
    }


def _prompted(config: OwnSamplesConfig, card: JudgeCard, tokenizer: Any) -> tuple[list[Prompted], dict[str, int]]:
    from mr3.judging.chat import ChatPrompt

    render, chat = card.renderer(), ChatPrompt(tokenizer)
    known: dict[str, Prompted] = {}

    def fits(example: Example) -> bool:
        if example.gold is None:
            raise ValueError(f"task {example.task.id!r} of {config.tasks} has no gold score: samples can't be right")
        rendered = render(example.task)
        known[example.task.id] = Prompted(example, rendered, chat.text(rendered))
        return len(chat.ids([known[example.task.id].text])[0]) <= card.max_prompt_tokens

    tasks: Tasks = read_tasks(
        config.tasks, None, max_tasks=config.max_tasks, held_out_tasks=0, both_orders=False, seed=config.seed, fits=fits
    )
    chosen = [known[example.task.id] for bundle in tasks.train for example in bundle if not example.reward_only]
    return chosen, dict(tasks.dropped)


def _generated(config: OwnSamplesConfig, card: JudgeCard, prompted: Sequence[Prompted]) -> dict[str, list[Completion]]:
    """Completions by task id. The store makes it resumable."""
    from mr3.inference.generate_worker import generate_groups
    from mr3.inference.session import ray_session

    longest = config.max_output_tokens or card.max_output_tokens
    engine = EngineConfig(
        model=config.model,
        engine=config.engine,
        max_model_len=card.max_prompt_tokens + longest,
        seeded=True,
        host=config.host,
    )
    requests = {
        one.example.task.id: [
            Request(
                id=f"{one.example.task.id}#{k}",
                prompt=one.text,
                sampling=Sampling(
                    temperature=config.temperature,
                    max_tokens=longest,
                    # Of its own for each: one seed for all would make the draws of all tasks the same.
                    seed=int(stable_hash("own-sample", config.seed, one.example.task.id, k)[:7], 16),
                ),
            )
            for k in range(config.samples)
        ]
        for one in prompted
    }
    with ray_session():
        return generate_groups(requests, engine, config.store, config.stream)


def read_samples(card: JudgeCard, one: Prompted, completions: Sequence[Completion]) -> list[Sampled]:
    """The answers to one task by the parser of the judge's card; what was cut off has no verdict."""
    task, found = one.example.task, []
    for completion in completions:
        finish = "stop" if completion.finish == "stop" else "length"
        parsed = format_named(card.format).parse(completion.text, task.labels, finish)
        right = parsed.outcome is Outcome.OK and parsed.score == one.example.gold
        found.append(Sampled(completion, parsed, right))
    return found


def _answer(one: Prompted, text: str) -> dict[str, Any]:
    """A row for `mr3 sft`: the assistant's turn with what the prompt made it begin with."""
    turn = {"role": "assistant", "content": one.rendered.assistant_prefix + text}
    task = one.example.task
    return {
        "id": task.id,
        "language": task.language,
        "mode": task.mode,
        "prompt": one.rendered.messages,
        "completion": [turn],
    }


def _right_rows(one: Prompted, own: Sequence[Sampled]) -> list[dict[str, Any]]:
    return [_answer(one, text) for text in dict.fromkeys(s.completion.text for s in own if s.right)]


def _label_row(one: Prompted) -> dict[str, Any]:
    verdict = json.dumps({"explanation": "", "score": one.example.gold}, ensure_ascii=False)
    return _answer(one, f"\n{CLOSE}\n{verdict}")


def _pairs(one: Prompted, own: Sequence[Sampled], most: int, rng: random.Random) -> list[dict[str, Any]]:
    """Right against wrong, as plain text behind the whole prompt: token for token what the judge is asked and wrote."""
    answered = [s for s in own if s.completion.finish in ("stop", "length")]  # else it is the engine's failure
    right, wrong = ([s.completion.text for s in answered if s.right is side] for side in (True, False))
    rng.shuffle(right)
    rng.shuffle(wrong)
    return [{"prompt": one.text, "chosen": a, "rejected": b} for a, b in list(zip(right, wrong, strict=False))[:most]]


def _sample_rows(one: Prompted, own: Sequence[Sampled]) -> list[dict[str, Any]]:
    return [
        {
            "task_id": one.example.task.id,
            "sample": k,
            "text": s.completion.text,
            "finish": s.completion.finish,
            "outcome": str(s.parsed.outcome),
            "score": s.parsed.score,
            "gold": one.example.gold,
            "right": s.right,
            "output_tokens": s.completion.output_tokens,
        }
        for k, s in enumerate(own)
    ]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 own-samples --config FILE`."""
    return stage_main("own-samples", OwnSamplesConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
