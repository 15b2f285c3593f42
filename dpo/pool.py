"""`mr3 pool`: sample several policies over the same prompts into an off-policy pool."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dpo.sampling import Generation, Prompt, read_prompts, sample_policy
from mr3.artifacts import require_folder, stage_run
from mr3.config import StageConfig
from mr3.records import stable_hash
from mr3.stage import stage_main

log = logging.getLogger("mr3.pool")
OWN_SHARE = 0.25


class Policy(BaseModel):
    """One checkpoint to sample from."""

    model_config = ConfigDict(extra="forbid")

    name: str
    model: str
    samples: int = Field(1, ge=1, description="responses per prompt")
    own: bool = Field(False, description="this is the policy that will be trained")


class PoolConfig(StageConfig):
    """Which policies answer which prompts."""

    prompts: Path
    policies: list[Policy] = Field(min_length=1)
    generation: Generation = Generation()

    @model_validator(mode="after")
    def _off_policy(self) -> PoolConfig:
        names = [p.name for p in self.policies]
        if len(set(names)) != len(names):
            raise ValueError("two policies share a name: give each its own")
        total = sum(p.samples for p in self.policies)
        own = sum(p.samples for p in self.policies if p.own)
        if own > OWN_SHARE * total:
            raise ValueError(
                f"the trained policy supplies {own} of {total} responses a prompt; an off-policy pool takes at most "
                f"{OWN_SHARE:.0%}: add other policies or lower its samples"
            )
        return self


def _row(prompt: Prompt, answers: dict[str, list[Any]]) -> dict[str, Any]:
    responses = [
        {"id": f"{prompt.id}/{name}/{k}", "text": completion.text.strip(), "policy": name}
        for name, completions in answers.items()
        for k, completion in enumerate(completions)
        if completion.finish in ("stop", "length") and completion.text.strip()
    ]
    return {
        "prompt_id": prompt.id,
        "prompt": json.dumps(prompt.messages, ensure_ascii=False),
        "language": prompt.language,
        "responses": responses,
        "reference": None,
        "meta": json.dumps(prompt.meta, ensure_ascii=False),
    }


def cap_own(rows: list[dict[str, Any]], own: Collection[str], seed: int) -> int:
    """Take the trained policy's responses out, by a hash, until they are at most OWN_SHARE; returns how many went.

    The config keeps to the share, but other policies' empty answers are no responses.
    """
    ids = [r["id"] for row in rows for r in row["responses"] if r["policy"] in own]
    total = sum(len(row["responses"]) for row in rows)
    surplus = max(0, math.ceil((len(ids) - OWN_SHARE * total) / (1 - OWN_SHARE)))
    gone = set(sorted(ids, key=lambda i: stable_hash("own", seed, i))[:surplus])
    for row in rows:
        row["responses"] = [r for r in row["responses"] if r["id"] not in gone]
    return surplus


def run(config: PoolConfig) -> None:
    """Write `output_dir/pool.parquet`."""
    for policy in config.policies:
        if policy.model.startswith((".", "/", "runs")):
            require_folder(policy.model, f"model of policy {policy.name!r}", "mr3 sft")
    with stage_run("pool", config, [config.prompts, *(p.model for p in config.policies)]) as stage:
        if stage.finished:
            return
        _sample(config, stage.folder, stage.metrics)


def _sample(config: PoolConfig, folder: Path, metrics: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mr3.inference.session import ray_session

    prompts = read_prompts(config.prompts)
    answers: dict[str, dict[str, list[Any]]] = {p.id: {} for p in prompts}
    begun, tokens = time.monotonic(), 0
    with ray_session():
        for i, policy in enumerate(config.policies):
            made = sample_policy(policy.model, prompts, config.generation, policy.samples, config.seed * 100 + i)
            for prompt_id, completions in made.items():
                answers[prompt_id][policy.name] = completions
                tokens += sum(c.output_tokens for c in completions)
            log.info("policy %s: %d prompts answered", policy.name, len(made))
    seconds = time.monotonic() - begun
    rows = [_row(p, answers[p.id]) for p in prompts]
    own_names = {p.name for p in config.policies if p.own}
    own_dropped = cap_own(rows, own_names, config.seed)
    kept = [r for r in rows if r["responses"]]
    schema = pa.schema(
        [
            ("prompt_id", pa.string()),
            ("prompt", pa.string()),
            ("language", pa.string()),
            ("responses", pa.list_(pa.struct([("id", pa.string()), ("text", pa.string()), ("policy", pa.string())]))),
            ("reference", pa.string()),
            ("meta", pa.string()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(kept, schema=schema), folder / "pool.parquet")
    per_policy = Counter(x["policy"] for r in kept for x in r["responses"])
    total = sum(per_policy.values())
    own = sum(per_policy[name] for name in own_names)
    metrics.update(
        prompts=len(prompts),
        prompts_without_response=len(rows) - len(kept),
        responses=total,
        per_policy=dict(per_policy),
        per_language=dict(Counter(r["language"] for r in kept for _ in r["responses"])),
        own_share=own / total if total else None,
        own_dropped=own_dropped,
        output_tokens=tokens,
        tokens_per_s=round(tokens / seconds),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 pool --config FILE`."""
    return stage_main("pool", PoolConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
