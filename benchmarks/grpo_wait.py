"""Wall time of a GRPO step with reward actors by that of a step with a constant reward, alternating in one run.

The demo's policy start under the demo's judge (vLLM in one reward actor): 64 completions a step, a ring of comparisons
in each group of 8, both orders, so up to 128 verdicts. Every other step gets a constant reward and asks nobody; both
kinds compute old and reference log-probabilities, and a gradient. A step's completions are new, so nothing comes from
the store. MR3_WAIT_STEPS: steps of each kind (30); MR3_WAIT_PARTS: parts in which a step is generated (1).
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.registry import Bar, Benchmark, Result, accelerator
from benchmarks.runs import DEMO, demo_judge

CONFIG = Path("configs/nano-policy-grpo/judge.yaml")
_LEFT_OUT = 2
"""First steps of each kind: the first judgement waits for the engine to be warm."""
_BAR, _BAR_GPU = 1.25, 1.10


class Alternating:
    """A source that asks on every other step."""

    def __init__(self, source: Any) -> None:
        self._source, self._step = source, 0
        self.asked: list[bool] = []

    def next_step(self) -> None:
        """A step begins: the other kind."""
        self.asked.append(len(self.asked) % 2 == 0)

    @property
    def made(self) -> tuple[int, int]:
        """As the judge's."""
        made: tuple[int, int] = self._source.made
        return made

    async def measure(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Any:
        """The judge's word, or a half for everybody."""
        from rewards.serving.trl_reward import Measured

        if self.asked[-1]:
            return await self._source.measure(prompts, completions, **columns)
        return Measured([0.5] * len(completions))


def measure(folder: Path, steps: int, parts: int) -> list[dict[str, Any]]:
    """The lines of a run of 2 x `steps` steps, each with `asked`."""
    import json

    from transformers import TrainerCallback, set_seed

    from grpo_experiments.policy.config import PolicyGrpoConfig
    from grpo_experiments.policy.sources import open_source
    from grpo_experiments.policy.training import build_trainer, grpo_arguments
    from mr3.config import load_config
    from mr3.training import use_threads

    os.environ["RUN"] = str(DEMO)
    own = ["--output_dir", str(folder), "--reward.store", str(folder / "store")]
    more = ["--trl.max_steps", str(2 * steps), "--trl.save_strategy", "'no'", "--generation_parts", str(parts)]
    config = load_config(PolicyGrpoConfig, CONFIG, [*own, *more])
    use_threads()
    set_seed(config.seed)
    arguments = grpo_arguments(config, folder)

    class Next(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            alternating.next_step()

    with open_source(config, arguments.max_completion_length) as source:
        alternating = Alternating(source)
        trainer, _, _ = build_trainer(config, folder, arguments, alternating, [Next()])
        trainer.step_log.begin(None)
        trainer.train()
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{**line, "asked": asked} for line, asked in zip(lines, alternating.asked, strict=True)]


def ratio(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Median seconds of both kinds, and their ratio; neighbours in pairs, so that the machine's load cancels."""
    pairs = list(zip(lines[0::2], lines[1::2], strict=True))[_LEFT_OUT:]
    assert all(a["asked"] and not b["asked"] for a, b in pairs), "the kinds alternate"
    with_judge = [a["seconds"]["step"] for a, _ in pairs]
    without = [b["seconds"]["step"] for _, b in pairs]
    return {
        "ratio": statistics.median(a / b for a, b in zip(with_judge, without, strict=True)),
        "with_actors_s": statistics.median(with_judge),
        "constant_s": statistics.median(without),
        "waited_s": statistics.median(a["seconds"]["wait"] for a, _ in pairs),
    }


def _interval(lines: Sequence[dict[str, Any]]) -> list[float]:
    """95%, of the median ratio, by a bootstrap over pairs."""
    import random

    ratios = [a["seconds"]["step"] / b["seconds"]["step"] for a, b in zip(lines[0::2], lines[1::2], strict=True)]
    ratios, rng = ratios[_LEFT_OUT:], random.Random(0)
    drawn = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2_000))
    return [drawn[50], drawn[1_949]]


def run() -> Result:
    """One run, both kinds in turn."""
    demo_judge()
    steps, parts = int(os.environ.get("MR3_WAIT_STEPS", "30")) + _LEFT_OUT, int(os.environ.get("MR3_WAIT_PARTS", "1"))
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(Path(folder) / "grpo", steps, parts)
    value: dict[str, float | None] = dict(ratio(lines))
    value["steps_of_each"] = steps - _LEFT_OUT
    judged = [line["judge"] for line in lines if line["asked"]]
    return Result(
        value,
        n=2 * (steps - _LEFT_OUT),
        interval={"ratio": _interval(lines)},
        bars={"ratio": Bar("at_most", _BAR_GPU if accelerator() else _BAR), "steps_of_each": Bar("at_least", 30)},
        details={
            "parts": parts,
            "verdicts_a_step": statistics.mean(j["verdicts"] for j in judged),
            "judge_tokens_a_step": statistics.mean(j["made_tokens"] for j in judged),
            "seconds": [line["seconds"] for line in lines],
        },
    )


BENCHMARK = Benchmark("grpo-wait", "wall time of a GRPO step with reward actors by one with a constant reward", run)
