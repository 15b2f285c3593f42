"""The floor that our machinery is measured against: one `LLM.generate` over everything, nothing else.

`python -m benchmarks.raw_vllm JOB.json` with `{"engine": {...}, "prompts": [[ids]], "sampling": {...}}`; prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

_WARM = 32


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Seconds and tokens of one call, after a short one that warms the engine."""
    from mr3.inference.vllm_engine import prepare_environment

    prepare_environment()
    from vllm import LLM, SamplingParams

    llm = LLM(**job["engine"])
    sampling = SamplingParams(**job["sampling"])
    prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]
    llm.generate(prompts[:_WARM], sampling, use_tqdm=False)
    llm.reset_prefix_cache()
    begun = time.monotonic()
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    seconds = time.monotonic() - begun
    return {"seconds": seconds, "output_tokens": sum(len(o.outputs[0].token_ids) for o in outputs)}


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(Path(sys.argv[1]).read_text()))))
