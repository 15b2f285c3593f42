"""One job, three ways: our labelling stream, one raw `LLM.generate`, and `LLM.generate` in chunks.

The model is a random Qwen3 of about 30M parameters that writes a log-normal number of tokens per request (64 to 512,
`ignore_eos`), the same for a prompt on every side, so that a batch has a long tail as judges' traces do. All sides have
the same engine arguments and prompts, and take turns. Starting an engine is timed on no side: each warms up, and
the clock runs from there. Our side starts with pool rows and ends with stored verdicts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.workload import RUBRIC, base_judge, write_pool
from mr3.inference.engine import Sampling
from mr3.judging.config import JudgeConfig
from mr3.judging.judge import Judge, Prepared
from rewards.tasks import TaskSettings
from rewards.worker import LabelWorker

SEQUENCES = 64
CHUNK = 2 * int(1.1 * SEQUENCES)
_MEDIAN, _SIGMA, _LEAST, _MOST = 150.0, 0.6, 64, 512
ENGINE = {"max_num_seqs": SEQUENCES, "kv_cache_memory_bytes": 1 << 30}


def length_of(identity: str) -> int:
    """Tokens that a request writes: log-normal, drawn by its id."""
    from scipy.stats import norm

    drawn = (int(identity[:8], 16) + 0.5) / 2**32
    return int(min(_MOST, max(_LEAST, _MEDIAN * 2.718281828 ** (_SIGMA * norm.ppf(drawn)))))


class LongTailJudge(Judge):
    """A judge whose answers have the lengths of `length_of`."""

    def _sampling_of(self, identity: str) -> Sampling:
        return self.card.sampling.model_copy(update={"max_tokens": length_of(identity), "ignore_eos": True})


class TimedWorker(LabelWorker):
    """The real worker; it warms its engine and writes down when it was ready."""

    def __init__(self, *, ready: str, **arguments: Any) -> None:
        import asyncio

        super().__init__(**arguments)
        self._ready_file, self._warm = Path(ready), asyncio.Lock()

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        async with self._warm:
            if not self._ready_file.exists():
                await self.cached.judge.engine.generate(warm_requests())
                self._ready_file.write_text(str(time.time()))
        return await super().__call__(batch)


class LongTailWorker(TimedWorker):
    """That worker with the judge whose answers have given lengths."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        inner = self.cached.judge
        self.cached.judge = LongTailJudge(inner.card, inner._chat._tokenizer, inner.engine, inner.judge_id)


def warm_requests() -> list[Any]:
    """A short batch before the clock starts."""
    from mr3.inference.engine import Request

    sampling = Sampling(max_tokens=8, ignore_eos=True)
    return [Request(id=f"warm-{i}", prompt_ids=[5 + i, 6, 7, 8], sampling=sampling) for i in range(8)]


def random_model(folder: Path) -> Path:
    """The base's tokenizer with random weights of about 30M parameters."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM, set_seed

    base_judge(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    set_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    card = json.loads((folder / "judge.json").read_text())
    card |= {"max_output_tokens": _MOST, "sampling": {**card["sampling"], "max_tokens": _MOST}}
    (folder / "judge.json").write_text(json.dumps(card))
    return folder


@dataclass
class Job:
    """The pool, the judge and how they are labelled."""

    root: Path
    pool: Path
    judge: JudgeConfig
    tasks: TaskSettings = field(
        default_factory=lambda: TaskSettings.model_validate({"rubric": RUBRIC, "plan": "circular"})
    )
    long_tail: bool = True

    def prepared(self) -> list[Prepared]:
        """Every judgement, in the order in which the stream asks for them."""
        from transformers import AutoTokenizer

        from mr3.judging.judge import JudgeItem
        from rewards.pool import Placed, read_pool
        from rewards.prompt_schedule import judge_prompt, task_id
        from rewards.tasks import TaskMaker

        tokenizer = AutoTokenizer.from_pretrained(self.judge.model)
        judge = Judge(self.judge.card, tokenizer, None, self.judge.identity())  # type: ignore[arg-type]
        found = []
        for placed in read_pool(str(self.pool)):
            assert isinstance(placed, Placed)
            maker = TaskMaker(placed.row, self.tasks)
            for j in next(judge_prompt(placed.row, self.tasks)):
                task = maker.task(task_id(placed.row.prompt_id, j), j.response_ids)
                found.append(judge.prepare(JudgeItem(task=task, swapped=j.swapped, sample=j.sample)))
        return found


def small_job(root: Path, prompts: int, responses: int = 4) -> Job:
    """A pool of short prompts for the random model."""
    model = random_model(root / "model")
    judge = JudgeConfig(model=str(model), engine=ENGINE)
    return Job(root, write_pool(root / "pool.jsonl", prompts, responses), judge)


def ours(job: Job, host: bool = False) -> float:
    """Verdicts per second of the stream, from the warm engine to the last result."""
    from mr3.inference.session import ray_session
    from mr3.inference.stream import StreamSettings
    from mr3.judging.run import Work, judge_groups
    from rewards.ingest import ingest
    from rewards.pool import read_pool

    name = f"run-{time.monotonic_ns()}"
    pool = ingest(read_pool(str(job.pool)), job.root / name / "pool", job.root / name / "rejected.jsonl")
    ready = job.root / name / "ready"
    arguments = {"tasks": job.tasks.model_dump(mode="json"), "ready": str(ready)}
    work = Work(LongTailWorker if job.long_tail else TimedWorker, arguments)
    judge = job.judge.model_copy(update={"host": "throughput" if host else None})
    here = str(Path.cwd())
    os.environ["PYTHONPATH"] = here
    verdicts = 0
    with ray_session():
        for _, payload in judge_groups(pool.folder, judge, job.root / name / "store", StreamSettings(), work):
            verdicts += payload.count('"outcome"')
        end = time.time()
    return verdicts / (end - float(ready.read_text()))


def raw(job: Job, prepared: Sequence[Prepared], chunk: int | None = None) -> float:
    """Verdicts per second of `LLM.generate` over the same prompts: all at once, or so many at a time."""
    from transformers import AutoTokenizer

    from mr3.inference.vllm_engine import engine_arguments

    tokenizer = AutoTokenizer.from_pretrained(job.judge.model)
    limit = job.judge.card.sampling.max_tokens
    call = {
        "engine": engine_arguments(job.judge.engine_config()),
        "prompts": tokenizer([p.prompt for p in prepared], add_special_tokens=False).input_ids,
        "sampling": {"temperature": 0.0, "ignore_eos": job.long_tail},
        "max_tokens": [length_of(p.id) if job.long_tail else limit for p in prepared],
        "chunk": chunk,
    }
    file = job.root / "raw.json"
    file.write_text(json.dumps(call))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.raw_vllm", str(file)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return len(prepared) / found["seconds"]
