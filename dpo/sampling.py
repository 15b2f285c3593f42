"""Sample responses from a policy: prompts rendered by its own chat template, through the generation stream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from mr3.inference.engine import Completion, EngineConfig, Request, Sampling
from mr3.inference.stream import StreamSettings
from mr3.records import content_of, stable_hash
from rewards.pools.rows import decoded_prompt


class Generation(BaseModel):
    """How a policy is sampled."""

    model_config = ConfigDict(extra="forbid")

    sampling: Sampling = Sampling(temperature=1.0, max_tokens=64)
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM EngineArgs by name")
    max_model_len: int = 512
    host: str | None = Field(None, description="name of a Ray actor that holds the engines, also for later stages")
    thinking: bool = Field(False, description="`enable_thinking` of Qwen3-like chat templates")
    store: Path = Path("store/generation")
    stream: StreamSettings = StreamSettings()


@dataclass(frozen=True)
class Prompt:
    """One row of a prompts file."""

    id: str
    messages: list[dict[str, str]]
    language: str
    meta: dict[str, Any]

    @property
    def content(self) -> str:
        """What it is about: `content` of the meta (the same facts in several languages), else a hash of its text."""
        return str(self.meta.get("content") or content_of(self.messages))


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a Parquet file with prompt_id, prompt, language, meta.

    Raises:
        ValueError: for a missing or empty file.
    """
    if not path.is_file():
        raise ValueError(f"no prompts at {path}: make them with `mr3 data`, or give another path")
    found = []
    for row in pq.read_table(path).to_pylist():
        given = decoded_prompt(row["prompt"])
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
        found.append(Prompt(row["prompt_id"], messages, row["language"], json.loads(row.get("meta") or "{}")))
    if not found:
        raise ValueError(f"{path} holds no prompts")
    return found


def request_seed(seed: int, prompt_id: str, sample: int) -> int:
    """A seed for each sample of each prompt.

    One seed for all would give every prompt the same random draws: a policy that is polite half of the time would be
    polite to all of a language's prompts or to none.
    """
    return int(stable_hash("sample", seed, prompt_id, sample)[:7], 16)


def sample_policy(
    model: str, prompts: Sequence[Prompt], settings: Generation, samples: int, seed: int
) -> dict[str, list[Completion]]:
    """`samples` completions per prompt id. Runs inside a Ray session; the store makes it resumable."""
    from mr3.inference.generate_worker import generate_groups
    from mr3.training import load_tokenizer

    tokenizer = load_tokenizer(model)
    requests = {}
    for prompt in prompts:
        text = tokenizer.apply_chat_template(
            prompt.messages, tokenize=False, add_generation_prompt=True, enable_thinking=settings.thinking
        )
        requests[prompt.id] = [
            Request(
                id=f"{prompt.id}#{k}",
                prompt=str(text),
                sampling=settings.sampling.model_copy(update={"seed": request_seed(seed, prompt.id, k)}),
            )
            for k in range(samples)
        ]
    engine = EngineConfig(
        model=model, engine=settings.engine, max_model_len=settings.max_model_len, seeded=True, host=settings.host
    )
    return generate_groups(requests, engine, settings.store, settings.stream)
