"""`mr3 grpo` with `trains: policy`: align a policy with TRL's GRPOTrainer, under the judge's reward.

In: prompts, a policy, and a judge that is asked through Ray reward actors or over HTTP (or, to compare with, the
checkers or the length). Out, in `output_dir`: `model/`, steps.jsonl (reward, ground truth, KL, tokens, judge calls,
seconds of every step), samples.jsonl and metrics.json. Ctrl-C leaves a checkpoint (trl.save_steps) that the same
command goes on from. `--dry-run` prints memory, tokens, calls and time, and trains nothing.
See docs/policy-grpo.md.
On several GPUs: `accelerate launch --config_file FSDP.yaml -m mr3.cli.main grpo --config FILE`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from grpo_experiments.policy.config import PolicyGrpoConfig
from mr3.launch import is_main_process, training_stage
from mr3.stage import stage_main

__all__ = ["PolicyGrpoConfig", "main", "run"]


def run(config: PolicyGrpoConfig, callbacks: Sequence[Any] = ()) -> None:
    """Train and save `output_dir/model`. Of several processes the first alone keeps the records.

    Raises:
        ValueError: for a missing model or file, an unknown option, a judge that can't be run, or one that is silent.
    """
    if config.dry_run:
        if is_main_process():
            from grpo_experiments.policy.dry_run import dry_run

            print(dry_run(config))
        return
    for path, what in ((config.prompts, "prompts"), (config.references, "responses")):
        if path is not None and not path.is_file():
            raise ValueError(f"no {what} at {path}: make them with `mr3 data` or `mr3 sample`")
    if config.launch is not None:
        config.launch.refuse_others("mr3.cli.main grpo")
    judge = config.reward.judge
    inputs: list[str | Path] = [config.prompts, config.model, *([config.references] if config.references else [])]
    inputs += judge.inputs() if judge is not None else []
    training_stage("grpo", config, inputs, partial(_train, config, callbacks))


def _train(config: PolicyGrpoConfig, callbacks: Sequence[Any], folder: Path, metrics: dict[str, Any]) -> None:
    from grpo_experiments.policy.training import train

    train(config, folder, metrics, callbacks)


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 grpo --config FILE [--dry-run]`."""
    words = list(sys.argv[1:] if argv is None else argv)
    words = ["--dry_run=true" if word == "--dry-run" else word for word in words]
    return stage_main("grpo", PolicyGrpoConfig, run, words, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
