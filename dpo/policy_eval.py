"""`mr3 policy-eval`: is the trained policy better? By checkers first, by the judge beside them, per language."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from dpo.sampling import Generation, Prompt, read_prompts, sample_policy
from mr3.artifacts import stage_run
from mr3.config import StageConfig
from mr3.ground_truth import compare, load_checker
from mr3.inference.stream import StreamSettings
from mr3.items import Item, write_items
from mr3.judging.config import JudgeConfig
from mr3.records import Task, stable_hash
from mr3.rubrics import Rubric
from mr3.stage import stage_main

log = logging.getLogger("mr3.policy_eval")
Checks = dict[str, bool]
WINS = "wins"
"""The set of items that are wins of the new policy; those of its checks are `passes.CRITERION`."""


class PolicyEvalConfig(StageConfig):
    """Two policies on the same held-out prompts."""

    prompts: Path
    before: str = Field(description="model that DPO started from")
    after: str = Field(description="model that DPO made")
    checker: str = Field(description="ground truth: package.module:function")
    rubric: Rubric = Field(description="the house rubric; criteria named as the checker names them")
    generation: Generation = Generation()
    judge: JudgeConfig | None = Field(None, description="the judge's own opinion, reported beside the checkers'")
    judge_prompts: int | None = Field(None, ge=1, description="ask the judge about so many prompts, drawn by the seed")
    store: Path = Path("store/verdicts")
    stream: StreamSettings = StreamSettings()


def win_points(outcome: int) -> float:
    """1 for a win, 0 for a loss, a half for a tie."""
    return (outcome + 1) / 2


def interval_of_mean(values: Sequence[float], contents: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Mean with a bootstrap interval over contents (ties make the values three-valued, so not Wilson's)."""
    from mr3.stats import paired_bootstrap

    return paired_bootstrap(list(values), [0.0] * len(values), seed=seed, contents=contents)


def by_checkers(
    prompts: Sequence[Prompt], before: Sequence[Checks], after: Sequence[Checks], criteria: Sequence[str]
) -> dict[str, Any]:
    """Win rate in all and per language; pass rates and their paired differences."""
    from mr3.stats import paired_bootstrap, rate

    points = [win_points(compare(criteria, b, a)) for a, b in zip(before, after, strict=True)]
    contents = [p.content for p in prompts]
    per_language = {}
    for code in sorted({p.language for p in prompts}):
        inside = [(x, p.content) for x, p in zip(points, prompts, strict=True) if p.language == code]
        per_language[code] = interval_of_mean([x for x, _ in inside], [content for _, content in inside])
    names = sorted(before[0])
    return {
        "win_rate": interval_of_mean(points, contents),
        "win_rate_per_language": per_language,
        "pass_rate_before": {n: rate((c[n] for c in before), contents) for n in names},
        "pass_rate_after": {n: rate((c[n] for c in after), contents) for n in names},
        "pass_rate_difference": {
            n: paired_bootstrap([float(c[n]) for c in after], [float(c[n]) for c in before], contents=contents)
            for n in names
        },
    }


def items_of(prompts: Sequence[Prompt], truth: Mapping[str, int], after: Sequence[Checks]) -> list[Item]:
    """What a study compares: wins over `before` by checkers, and what `after` passes, a set for each."""
    found = [Item(p.id, p.content, WINS, p.language, win_points(truth[p.id])) for p in prompts]
    for prompt, checks in zip(prompts, after, strict=True):
        found += [
            Item(prompt.id, prompt.content, f"passes.{name}", prompt.language, float(is_met))
            for name, is_met in sorted(checks.items())
        ]
    return found


def drawn(prompts: Sequence[Prompt], count: int | None, seed: int) -> list[Prompt]:
    """`count` of the prompts by a hash of their ids (all where None), in their order."""
    if count is None or count >= len(prompts):
        return list(prompts)
    chosen = set(sorted((p.id for p in prompts), key=lambda name: stable_hash("judged", seed, name))[:count])
    return [p for p in prompts if p.id in chosen]


def by_judge(
    config: PolicyEvalConfig,
    judge: JudgeConfig,
    prompts: Sequence[Prompt],
    before: Mapping[str, str],
    after: Mapping[str, str],
    truth: Mapping[str, int],
) -> dict[str, Any]:
    """The judge's win rate for `after` (both orders must agree, else a tie) and its agreement with the truth."""
    from mr3.judging.run import group_row, judge_groups
    from mr3.stats import rate

    groups = []
    for prompt in prompts:
        task = Task(
            id=prompt.id,
            mode="pairwise",
            input=prompt.messages[-1]["content"],
            responses=[after[prompt.id], before[prompt.id]],
            rubric=config.rubric,
            language=prompt.language,
        ).model_dump(mode="json")
        groups.append(group_row(prompt.id, [{"task": task, "swapped": s} for s in (False, True)]))
    opinion: dict[str, int] = {}
    failed = 0
    for name, payload in judge_groups(groups, judge, config.store, config.stream):
        scores = [v["score"] for v in json.loads(payload)["verdicts"]]
        failed += None in scores
        if None not in scores:
            opinion[name] = {"Assistant A": 1, "Assistant B": -1}.get(scores[0], 0) if scores[0] == scores[1] else 0
    decided = [n for n, x in opinion.items() if x != 0 and truth[n] != 0]
    content = {p.id: p.content for p in prompts}
    every = [content[n] for n in opinion]
    return {
        "judge_win_rate": interval_of_mean([win_points(x) for x in opinion.values()], every),
        "judge_truth_agreement": rate((opinion[n] == truth[n] for n in decided), [content[n] for n in decided]),
        "judge_truth_agreement_with_ties": rate((x == truth[n] for n, x in opinion.items()), every),
        "judge_failed": failed,
    }


def run(config: PolicyEvalConfig) -> None:
    """Write responses.parquet, items.parquet and the metrics."""
    judge = config.judge.inputs() if config.judge is not None else []
    with stage_run("policy-eval", config, [config.prompts, config.before, config.after, *judge]) as stage:
        if stage.finished:
            return
        _evaluate(config, stage.folder, stage.metrics)


def _evaluate(config: PolicyEvalConfig, folder: Path, metrics: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mr3.inference.session import ray_session

    prompts = read_prompts(config.prompts)
    checker = load_checker(config.checker)
    criteria = [c.name for c in config.rubric.criteria]
    with ray_session():
        texts: list[dict[str, str]] = []
        for model in (config.before, config.after):
            made = sample_policy(model, prompts, config.generation, 1, config.seed)
            texts.append({name: completions[0].text.strip() for name, completions in made.items()})
            log.info("%s: %d responses", model, len(made))
        checks = [[checker(p.meta, side[p.id]) for p in prompts] for side in texts]
        metrics.update(by_checkers(prompts, checks[0], checks[1], criteria))
        truth = {p.id: compare(criteria, b, a) for p, a, b in zip(prompts, checks[0], checks[1], strict=True)}
        if config.judge is not None:
            asked = drawn(prompts, config.judge_prompts, config.seed)
            metrics.update(by_judge(config, config.judge, asked, texts[0], texts[1], truth))
    rows = [
        {
            "prompt_id": p.id,
            "content": p.content,
            "language": p.language,
            "before": texts[0][p.id],
            "after": texts[1][p.id],
            "truth": truth[p.id],
        }
        for p in prompts
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "responses.parquet")
    write_items(folder, items_of(prompts, truth, checks[1]))
    log.info("win rate by checkers: %s", metrics["win_rate"])


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 policy-eval --config FILE`."""
    return stage_main("policy-eval", PolicyEvalConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
