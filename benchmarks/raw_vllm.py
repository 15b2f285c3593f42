"""The floor that our machinery is measured against: `LLM.generate` over everything, or in chunks, and nothing else.

`python -m benchmarks.raw_vllm JOB.json` with `{"engine": {...}, "prompts": [[ids]], "sampling": {...}}`, `max_tokens`
(one number for each prompt) and `chunk` (prompts per call; null: all in one); prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

_WARM = 32


def hit_rate(llm: Any) -> float | None:
    """Share of prompt tokens that the prefix cache answered, where the engine keeps statistics."""
    found = {m.name: getattr(m, "value", None) for m in llm.get_metrics()}
    queries = found.get("vllm:prefix_cache_queries")
    hits = found.get("vllm:prefix_cache_hits")
    return hits / queries if queries and hits is not None else None


def measure(job: dict[str, Any]) -> dict[str, float | None]:
    """Seconds and tokens of the calls, after a short one that warms the engine."""
    from mr3.inference.vllm_engine import prepare_environment

    prepare_environment()
    from vllm import LLM, SamplingParams

    llm = LLM(**job["engine"])
    prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]
    each = [SamplingParams(**job["sampling"], max_tokens=n) for n in job["max_tokens"]]
    warm = [{"prompt_token_ids": [5 + i, 6, 7]} for i in range(_WARM)]
    llm.generate(warm, SamplingParams(temperature=0.0, max_tokens=8), use_tqdm=False)
    llm.reset_prefix_cache()
    size = job.get("chunk") or len(prompts)
    begun, outputs = time.monotonic(), []
    for start in range(0, len(prompts), size):
        outputs += llm.generate(prompts[start : start + size], each[start : start + size], use_tqdm=False)
    seconds = time.monotonic() - begun
    tokens = sum(len(o.outputs[0].token_ids) for o in outputs)
    stats = None if job["engine"].get("disable_log_stats", True) else hit_rate(llm)
    return {"seconds": seconds, "output_tokens": tokens, "prefix_hit_rate": stats}


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(Path(sys.argv[1]).read_text()))))
