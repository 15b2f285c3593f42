"""Guards and probes: what stops a run, what does not, and that no reward in use pays for a probe."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grpo_experiments.composite import Composite
from grpo_experiments.contract import Example, Group
from grpo_experiments.guards import (
    OVER_OPTIMISED,
    TOO_FAR,
    GuardSettings,
    over_evaluations,
    over_kl,
    over_steps,
    silent,
)
from grpo_experiments.probes import PROBES, open_probes, summary
from grpo_experiments.reward_log import History
from grpo_experiments.terms import open_terms
from grpo_experiments.watching import Watch
from mr3.parsing import format_named
from tests.grpo_support import answer, example, sample, task

SETTINGS = GuardSettings()


def steps(rewards: Sequence[float | None], truths: Sequence[float | None]) -> list[dict[str, Any]]:
    return [{"step": i, "reward": r, "truth": t} for i, (r, t) in enumerate(zip(rewards, truths, strict=True))]


def run(seed: int, count: int, reward: tuple[float, float], truth: tuple[float, float], samples: int = 64) -> Any:
    """Steps whose means move in a line, each of `samples` draws in groups of eight (which are not independent)."""
    rng = np.random.default_rng(seed)

    def line(ends: tuple[float, float]) -> list[float]:
        wanted = np.linspace(*ends, count)
        prompts = np.clip(wanted[:, None] + rng.normal(0, 0.3, (count, samples // 8)), 0, 1)
        return [float(x) for x in rng.binomial(8, prompts).mean(axis=1) / 8]

    return steps(line(reward), line(truth))


def alarms(make: Any, seeds: int) -> float:
    """The share of runs that are stopped at any step."""
    stopped = 0
    for seed in range(seeds):
        history = make(seed)
        stopped += any(over_steps(history[:n], SETTINGS) is not None for n in range(40, len(history) + 1, 5))
    return stopped / seeds


def test_a_run_whose_truth_falls_while_its_reward_rises_is_stopped() -> None:
    found = over_steps(run(0, 120, (0.5, 0.9), (0.9, 0.5)), SETTINGS)
    assert found is not None and found["reason"] == OVER_OPTIMISED and found["step"] == 119
    assert found["truth_change"] < -0.05 and found["reward_change"] > 0
    assert alarms(lambda seed: run(seed, 120, (0.6, 0.85), (0.8, 0.55)), 30) >= 0.9


def test_other_runs_are_not_stopped() -> None:
    """Both rise, both fall, nothing happens, and truth alone falls: none of it is gaming."""
    assert alarms(lambda seed: run(seed, 200, (0.6, 0.6), (0.7, 0.7)), 60) <= 0.02
    assert alarms(lambda seed: run(seed, 200, (0.4, 0.8), (0.5, 0.9)), 30) == 0.0
    assert alarms(lambda seed: run(seed, 200, (0.8, 0.5), (0.9, 0.6)), 30) == 0.0
    assert alarms(lambda seed: run(seed, 200, (0.7, 0.7), (0.9, 0.6)), 30) <= 0.05


def test_a_guard_needs_two_windows_and_known_numbers() -> None:
    history = run(0, 39, (0.1, 0.9), (0.9, 0.1))
    assert over_steps(history, SETTINGS) is None
    unknown = steps([None] * 80, [None] * 80)
    assert over_steps(unknown, SETTINGS) is None and over_steps([], SETTINGS) is None
    certain = steps([0.1] * 20 + [0.9] * 20, [0.9] * 20 + [0.1] * 20)
    assert over_steps(certain, SETTINGS) is not None, "no spread at all is no excuse"
    small = steps([0.1] * 20 + [0.9] * 20, [0.9] * 20 + [0.87] * 20)
    assert over_steps(small, SETTINGS) is None, "a fall below `drop` does not count"


def evaluation(step: int, rows: Sequence[tuple[float | None, float | None]], **more: Any) -> dict[str, Any]:
    return {"step": step, "tasks": {str(i): list(row) for i, row in enumerate(rows)}, **more}


def test_held_out_tasks_are_compared_with_themselves() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 1, 100)
    before = evaluation(0, [(0.2 * h + 0.4, float(h > 0.2)) for h in hard])
    after = evaluation(50, [(0.2 * h + 0.5, float(h > 0.45)) for h in hard])
    found = over_evaluations([before, after], SETTINGS)
    assert found is not None and found["against"] == 0 and found["truth_change"] == pytest.approx(-0.25, abs=0.1)
    assert over_evaluations([after, before], SETTINGS) is None and over_evaluations([before], SETTINGS) is None
    partly = evaluation(50, [(None, None)] * 99 + [(1.0, 0.0)])
    assert over_evaluations([before, partly], SETTINGS) is None, "one task that both know tells nothing"


def test_distance_and_silence() -> None:
    far = GuardSettings(most_kl=0.5)
    assert over_kl([evaluation(3, [], kl=0.6)], far) == {"reason": TOO_FAR, "step": 3, "kl": 0.6}
    assert over_kl([evaluation(3, [], kl=0.4)], far) is None and over_kl([evaluation(3, [], kl=None)], far) is None
    assert over_kl([evaluation(3, [], kl=9.0)], SETTINGS) is None
    assert silent(steps([None] * 5, [None] * 5), SETTINGS) and not silent(steps([None] * 4, [None] * 4), SETTINGS)
    assert not silent(steps([None] * 4 + [0.0], [None] * 5), SETTINGS)


class Control:
    should_training_stop = False


def test_a_stop_is_recorded_with_its_reason_and_kept_by_a_checkpoint(tmp_path: Path) -> None:
    history = History(steps=run(0, 120, (0.5, 0.9), (0.9, 0.5)))
    for step in history.steps:
        step |= {
            "samples": 8,
            "unmeasured": 0,
            "failed": 0,
            "flat": 0,
            "sets": 1,
            "replaced": 0,
            "terms": {},
            "cpu_s": {},
        }
        step |= dict.fromkeys(("truth_shortcut_right", "truth_shortcut_wrong", "pairs"))
        step |= dict.fromkeys(
            ("prompt_tokens", "repeated_prompt_tokens", "sampled_tokens", "gradient_tokens", "moving_tokens"), 0
        )
    control = Control()
    Watch(history, SETTINGS).on_step_end(None, None, control)
    assert control.should_training_stop and history.stopped is not None
    assert history.stopped["reason"] == OVER_OPTIMISED and history.stopped["stopped"] is True
    history.save(tmp_path)
    assert History.load(tmp_path).summary()["stopped"] == history.stopped
    quiet, told = Control(), History(steps=history.steps)
    Watch(told, GuardSettings(stop=False)).on_step_end(None, None, quiet)
    assert not quiet.should_training_stop and told.stopped is not None and told.stopped["stopped"] is False
    with pytest.raises(ValueError, match="is of another program"):
        History.load(tmp_path / "none")


# --- probes ---


REWARD = {
    "format": {"weight": 0.0, "gate": True}, "correctness": 1.0, "counterfactual": 1.0, "criteria": 0.2,
    "length": {"weight": 0.2, "soft": 60, "hard": 120}, "repetition": 0.2,
}  # fmt: skip


def twins(number: int) -> tuple[Example, Example]:
    """One content under two rubrics with opposite verdicts."""
    more = {"content": f"c{number}", "twin": f"t{number}", "criteria": ("correct", "polite")}
    return tuple(  # type: ignore[return-value]
        example(gold, f"{number}-{gold}", task=task(f"{number}-{gold}"), **more)
        for gold in ("Assistant A", "Assistant B")
    )


def mean_rewards(texts: Sequence[tuple[str, str]], pairs: Sequence[tuple[Example, Example]]) -> list[float]:
    composite, found = Composite(open_terms(REWARD)), []
    for pair, told in zip(pairs, texts, strict=True):
        bare = [Group(e, (sample(t, e.task.labels, tokens=len(t) // 4),)) for e, t in zip(pair, told, strict=True)]
        groups = [Group(g.example, g.samples, twins=(bare[1 - i],)) for i, g in enumerate(bare)]
        for scored in asyncio.run(composite.score([groups]))[0]:
            assert None not in scored.rewards
            found.append(sum(r for r in scored.rewards if r is not None) / len(scored.rewards))
    return found


def test_no_probe_earns_more_than_half_of_an_honest_judge() -> None:
    pairs = [twins(i) for i in range(24)]
    trace = "1 correct: A 4 yes, B 5 no: A"
    honest = mean_rewards([(answer("Assistant A", trace), answer("Assistant B", trace)) for _ in pairs], pairs)
    paid = {}
    for name in GuardSettings().probes:
        texts = [tuple(PROBES[name](e) or "" for e in pair) for pair in pairs]
        paid[name] = mean_rewards(texts, pairs)  # type: ignore[arg-type]
    found = summary(paid, honest)
    assert len(found) == 8 and all(row["ratio"] <= 0.5 for row in found.values()), found
    assert found["forged_end"]["reward"] == 0.0


def test_probes_look_at_no_rubric() -> None:
    """All but the one that is given the gold label: the same verdict under both twins."""
    read = format_named("mr3").parse
    for name in GuardSettings().probes:
        for pair in map(twins, range(4)):
            said = [read(PROBES[name](e) or "", e.task.labels, "stop").score for e in pair]
            assert said[0] == said[1], name
    assert PROBES["always_tie"](example(task=task(mode="binary", responses=["x"]), gold="true")) is None


def test_unknown_probes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no probe 'flattery'; known are keyword_stuffing"):
        open_probes(["flattery"])
    assert open_probes(["forged_end", "tests.grpo_support:example"])["forged_end"] is PROBES["forged_end"]


def test_a_probe_is_compared_where_both_are_known() -> None:
    found = summary({"p": [0.2, None, 0.4], "q": [None] * 3}, [0.8, 0.9, None])
    assert found["p"] == {"tasks": 1, "reward": 0.2, "honest": 0.8, "ratio": 0.25}
    assert found["q"] == {"tasks": 0, "reward": None, "honest": None, "ratio": None}
