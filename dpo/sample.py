"""`mr3 sample`: one policy's responses to prompts, into a table and into the generation store.

A later stage that samples the same model over the same prompts with the same settings finds them in that store.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from dpo.sampling import Generation, read_prompts, sample_policy
from mr3.artifacts import stage_run
from mr3.config import StageConfig
from mr3.stage import stage_main

log = logging.getLogger("mr3.sample")


class SampleConfig(StageConfig):
    """A policy and the prompts that it answers."""

    prompts: Path
    model: str = Field(description="folder or hub id of the policy")
    samples: int = Field(1, ge=1, description="responses per prompt")
    generation: Generation = Generation()


def run(config: SampleConfig) -> None:
    """Write `output_dir/responses.parquet`: prompt_id, language, sample, text, finish, output_tokens."""
    with stage_run("sample", config, [config.prompts, config.model]) as stage:
        if stage.finished:
            return
        _sample(config, stage.folder, stage.metrics)


def _sample(config: SampleConfig, folder: Path, metrics: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mr3.inference.session import ray_session

    prompts = read_prompts(config.prompts)
    with ray_session():
        made = sample_policy(config.model, prompts, config.generation, config.samples, config.seed)
    rows = [
        {
            "prompt_id": prompt.id,
            "language": prompt.language,
            "sample": k,
            "text": completion.text.strip(),
            "finish": completion.finish,
            "output_tokens": completion.output_tokens,
        }
        for prompt in prompts
        for k, completion in enumerate(made[prompt.id])
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "responses.parquet")
    metrics.update(
        prompts=len(prompts),
        responses=len(rows),
        per_language=dict(Counter(str(r["language"]) for r in rows)),
        finish=dict(Counter(str(r["finish"]) for r in rows)),
        output_tokens=sum(c.output_tokens for found in made.values() for c in found),
    )
    log.info("%s: %d responses to %d prompts", config.model, len(rows), len(prompts))


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 sample --config FILE`."""
    return stage_main("sample", SampleConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
