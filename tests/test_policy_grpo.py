"""GRPO of a policy: what is refused, the truth beside the reward, guards, the log, and a run that is cut off."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_experiments.guards import OVER_OPTIMISED, TRUTH_FELL, StepGuard, over_steps
from grpo_experiments.policy.config import BLANK, Log, PolicyGrpoConfig
from grpo_experiments.policy.data import read_rows
from grpo_experiments.policy.log import Record, StepLog
from grpo_experiments.policy.recording import Judged, Recorder
from grpo_experiments.policy.sources import GoldSource, LengthSource
from grpo_experiments.policy.truth import agreement, standing
from mr3.cli.stages import config_model_of
from mr3.config import load_config
from mr3.ground_truth import compare
from rewards.serving.trl_reward import Measured
from tests.rewards_support import check

BASE = "mr3/nano/base"
RUBRIC = {
    "name": "house",
    "criteria": [
        {"name": "correct", "description": "The answer is correct."},
        {"name": "brief", "description": "The response is short."},
    ],
}
CHECKER = "tests.rewards_support:check"
NAMES = ["correct", "brief"]


def write_prompts(file: Path, count: int = 12) -> Path:
    rows = [
        {
            "prompt_id": f"p{i}",
            "prompt": json.dumps([{"role": "user", "content": f"cats: {i}, dogs: 5. How many in total?"}]),
            "language": "en",
            "meta": json.dumps({"answer": i + 5}),
        }
        for i in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def config(folder: Path, **more: Any) -> PolicyGrpoConfig:
    given: dict[str, Any] = {
        "trains": "policy",
        "output_dir": folder / "grpo",
        "model": BASE,
        "prompts": folder / "prompts.parquet",
        "checker": CHECKER,
        "reward": {"kind": "gold", "rubric": RUBRIC},
        "trl": {"num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 8, "max_steps": 4},
    }
    return PolicyGrpoConfig.model_validate(given | more)


JUDGE = {"model": "rubricreward/mR3-Qwen3-4B-en-prompt-en-thinking"}


@pytest.mark.parametrize(
    ("reward", "more", "said"),
    [
        ({"kind": "judge", "rubric": RUBRIC}, {}, "give either `judge`"),
        ({"kind": "judge", "rubric": RUBRIC, "judge": JUDGE, "server": {"url": "http://x"}}, {}, "give either `judge`"),
        ({"kind": "judge", "judge": JUDGE}, {"checker": None}, "give the rubric by which it judges"),
        ({"kind": "gold", "rubric": RUBRIC, "judge": JUDGE}, {}, "asks no judge"),
        ({"kind": "gold", "rubric": RUBRIC}, {"checker": None}, "name the checker"),
        ({"kind": "length"}, {}, "a checker is read by a rubric"),
        ({"kind": "gold", "rubric": RUBRIC, "compare": "reference"}, {}, "give `references`"),
        ({"kind": "gold", "rubric": RUBRIC}, {"trl": {"reward_weights": [1.0]}}, "reward.kind"),
        ({"kind": "gold", "rubric": RUBRIC}, {"trains": "judge"}, "Input should be 'policy'"),
    ],
)
def test_what_can_not_be_trained_is_refused(tmp_path: Path, reward: Any, more: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(tmp_path, reward=reward, **more)


def test_a_config_says_which_trainer_it_is_for(tmp_path: Path) -> None:
    file = tmp_path / "grpo.yaml"
    file.write_text("trains: policy\n")
    assert config_model_of("grpo", file) is PolicyGrpoConfig
    file.write_text("model: x\ntrains: judge\n")
    assert config_model_of("grpo", file).__name__ == "GrpoConfig"


def test_a_judge_without_a_rubric_is_shown_none(tmp_path: Path) -> None:
    given = config(tmp_path, reward={"kind": "judge-without-rubric", "rubric": RUBRIC, "judge": JUDGE})
    assert given.reward.shown_rubric is BLANK and given.reward.rubric is not None
    assert (
        config(tmp_path, reward={"kind": "judge", "rubric": RUBRIC, "judge": JUDGE}).reward.shown_rubric.name == "house"
    )


def test_prompts_are_drawn_by_the_seed_and_not_from_the_head(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.parquet")
    whole = read_rows(config(tmp_path))
    drawn = [[r["prompt_id"] for r in read_rows(config(tmp_path, max_prompts=4, seed=seed))] for seed in (0, 0, 1)]
    assert len(whole) == 12 and whole[3]["prompt"][0]["content"].startswith("cats: 3")
    assert drawn[0] == drawn[1] != drawn[2] and all(len(d) == 4 for d in drawn)
    responses = tmp_path / "responses.parquet"
    pq.write_table(pa.Table.from_pylist([{"prompt_id": f"p{i}", "text": f"t{i}"} for i in range(11)]), responses)
    by_reference = {"kind": "gold", "rubric": RUBRIC, "compare": "reference"}
    with pytest.raises(ValueError, match="no response to 'p11'"):
        read_rows(config(tmp_path, reward=by_reference, references=responses))


CHECKS = st.fixed_dictionaries({name: st.booleans() for name in ("a", "b", "c")})


@given(CHECKS, CHECKS)
def test_the_standing_orders_as_the_rubric_does(one: dict[str, bool], two: dict[str, bool]) -> None:
    names = ["a", "b", "c"]
    x, y = standing(names, one), standing(names, two)
    assert (x > y) - (x < y) == compare(names, one, two) and 0 <= x <= 1
    assert (x == 1) == all(one.values())


def test_agreement_counts_pairs_on_which_both_decide() -> None:
    good, bad = {"correct": True, "brief": True}, {"correct": False, "brief": True}
    checks = {0: good, 1: bad, 2: bad, 3: good}
    groups = [range(4)]
    # Of the judge's own comparisons: right, wrong, undecided by the checker, undecided by the judge, failed.
    compared = [((0, 1), 0.9), ((0, 2), 0.3), ((1, 2), 0.9), ((2, 3), 0.5), ((1, 3), None)]
    assert agreement(NAMES, checks, [None] * 4, groups, compared) == (1, 2)
    # By rewards: 0 > 1 right, 0 > 2 right, 3 < 1 wrong, 3 = 2 undecided; of 0 and 3, and 1 and 2, the truth is a tie.
    assert agreement(NAMES, checks, [0.9, 0.5, 0.2, 0.2], groups, []) == (2, 3)
    assert agreement(NAMES, checks, [0.9, None, None, 0.1], groups, []) == (0, 0)


def test_gold_and_length_rewards(tmp_path: Path) -> None:
    prompts = [[{"role": "user", "content": "2+2?"}]] * 4
    texts: list[Any] = ["4", "5", "the answer is four, that is 4", [{"role": "assistant", "content": None}]]
    columns = {"meta": ['{"answer": 4}'] * 4, "prompt_id": ["p"] * 4}
    found = asyncio.run(GoldSource(check, config(tmp_path)).measure(prompts, texts, **columns))
    assert found.rewards == [1.0, 0.0, 0.5, None] and found.unreadable == 1 and found.tasks == 0
    alone = config(tmp_path, reward={"kind": "gold", "rubric": RUBRIC, "mode": "binary"})
    found = asyncio.run(GoldSource(check, alone).measure(prompts, texts, **columns))
    assert found.rewards == [pytest.approx(v) for v in (1.0, 1 / 3, 2 / 3)] + [None]
    found = asyncio.run(LengthSource(8).measure(prompts, texts, completion_ids=[[1] * n for n in (2, 4, 8, 1)]))
    assert found.rewards == [0.25, 0.5, 1.0, 0.125]


GUARDS = StepGuard(window=4, drop=0.05)


def points(rewards: Sequence[float | None], truths: Sequence[float | None]) -> list[dict[str, Any]]:
    return [{"step": i + 1, "reward": r, "truth": t} for i, (r, t) in enumerate(zip(rewards, truths, strict=True))]


def test_a_run_is_stopped_when_truth_falls_while_reward_rises() -> None:
    up, down = [0.2 + 0.05 * i for i in range(12)], [0.9 - 0.05 * i for i in range(12)]
    found = over_steps(points(up, down), GUARDS, relative=False)
    assert found is not None and found["reason"] == OVER_OPTIMISED and found["against"] == [1, 4]
    assert found["truth_change"] == pytest.approx(-0.4) and found["reward_change"] == pytest.approx(0.4)
    for rewards, truths in ((up, up), (down, down), ([0.5] * 12, down), (up, [0.5] * 12)):
        assert over_steps(points(rewards, truths), GUARDS, relative=False) is None
    # A relative reward can't rise; there the truth decides alone.
    relative = over_steps(points([0.5] * 12, down), GUARDS, relative=True)
    assert relative is not None and relative["reason"] == TRUTH_FELL
    assert over_steps(points(up[:7], down[:7]), GUARDS, relative=False) is None, "too early"
    assert over_steps(points([None] * 12, down), GUARDS, relative=True) is None, "nothing was rewarded"
    noisy = [0.6, 0.2, 0.9, 0.4, 0.7, 0.3, 0.3, 0.6, 0.2, 0.8, 0.1, 0.7]
    assert over_steps(points(up, noisy), GUARDS, relative=False) is None, "by chance"


def record(reward: float, tasks: int = 4, failed: int = 0) -> Record:
    return Record(
        completions=4, rewarded=4, reward=4 * reward, reward_squares=4 * reward**2, checked=4, truth=2.0,
        sampled_tokens=40, tasks=tasks, verdicts=2 * tasks, failed=Counter(truncated=failed),
        samples=[{"prompt_id": "p", "text": "t", "reward": reward, "truth": 0.5}] * 4,
    )  # fmt: skip


def test_processes_are_added_up_and_their_seconds_are_not() -> None:
    a, b = record(0.5), record(1.0)
    a.seconds.update(wait=2.0, judge=1.0)
    b.seconds.update(wait=3.0)
    whole = Record().add(a).add(b)
    assert (whole.completions, whole.reward, whole.tasks) == (8, 6.0, 8)
    assert whole.seconds == {"wait": 3.0, "judge": 1.0} and len(whole.samples) == 8


def play(log: StepLog, begin: int, end: int, save_at: int | None = None, folder: Path | None = None) -> None:
    for step in range(begin, end + 1):
        made = record(step / 100, failed=4 if step >= 9 else 0)
        log.take(made)
        log.write(step, made, kl=0.1)
        if step == save_at and folder is not None:
            log.save(folder, step)


def test_a_log_that_was_cut_off_goes_on_as_if_it_never_was(tmp_path: Path) -> None:
    whole = StepLog(tmp_path / "whole", Log(samples=2), 10, writes=True)
    whole.begin(None)
    play(whole, 1, 10)
    cut, checkpoint = tmp_path / "cut", tmp_path / "checkpoint-6"
    first = StepLog(cut, Log(samples=2), 10, writes=True)
    first.begin(None)
    play(first, 1, 9, save_at=6, folder=checkpoint)
    with (cut / "steps.jsonl").open("a") as out:
        out.write('{"step": 10, "rew')  # killed in the middle of a line
    again = StepLog(cut, Log(samples=2), 10, writes=True)
    again.begin(str(checkpoint))
    play(again, 7, 10)
    for name in ("steps.jsonl", "samples.jsonl"):
        assert (cut / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert again.totals == whole.totals and again.points == whole.points
    assert again.silent_steps == whole.silent_steps == 2
    with pytest.raises(ValueError, match="no checkpoint of this stage"):
        again.begin(str(tmp_path))


@pytest.mark.parametrize("text", ["[Verse 1] Continue this song", "[1, 2, 3]", "[]"])
def test_a_prompt_may_begin_with_a_bracket(tmp_path: Path, text: str) -> None:
    """Only a JSON list of turns is chat turns, for GRPO and for sampling alike."""
    from dpo.sampling import read_prompts

    turns = [{"role": "user", "content": "hello"}]
    rows = [
        {"prompt_id": "text", "prompt": text, "language": "en", "meta": "{}"},
        {"prompt_id": "turns", "prompt": json.dumps(turns), "language": "en", "meta": "{}"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "prompts.parquet")
    wanted = [[{"role": "user", "content": text}], turns]
    assert [row["prompt"] for row in read_rows(config(tmp_path))] == wanted
    assert [prompt.messages for prompt in read_prompts(tmp_path / "prompts.parquet")] == wanted


@pytest.mark.parametrize("first", [0, 1])
def test_a_generation_that_serves_two_steps_leaves_every_second_line(tmp_path: Path, first: int) -> None:
    """Records are counted, not steps: a file of every second record is not empty where the records' steps are odd."""
    log = StepLog(tmp_path, Log(steps=25, sample_steps=10, samples=1), 100, writes=True)
    log.begin(None)
    for step in range(1 + first, 101, 2):
        log.write(step, record(0.5), kl=None)
    counts = [len((tmp_path / name).read_text().splitlines()) for name in ("steps.jsonl", "samples.jsonl")]
    assert counts == [12, 5] and len(log.points) == 12


def test_generations_of_one_step_are_one_record() -> None:
    whole = record(0.5)
    whole.seconds.update(wait=2.0)
    more = record(1.0)
    more.seconds.update(wait=3.0, judge=1.0)
    whole.then(more)
    assert (whole.completions, whole.reward, len(whole.samples)) == (8, 6.0, 8)
    assert whole.seconds == {"wait": 5.0, "judge": 1.0}


def test_what_the_guard_found_is_in_the_checkpoint(tmp_path: Path) -> None:
    log = StepLog(tmp_path, Log(), 10, writes=True)
    log.begin(None)
    log.stopped = {"reason": "made up"}
    log.save(tmp_path / "checkpoint-3", 3)
    again = StepLog(tmp_path, Log(), 10, writes=True)
    again.begin(str(tmp_path / "checkpoint-3"))
    assert again.stopped == {"reason": "made up"}


@given(st.integers(1, 400), st.integers(1, 30), st.integers(1, 30))
def test_files_of_a_log_are_bounded(steps: int, most: int, sampled: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = StepLog(Path(folder), Log(steps=most, samples=3, sample_steps=sampled), steps, writes=True)
        log.begin(None)
        for step in range(1, steps + 1):
            log.write(step, record(0.5), kl=None)
        for name, limit in (("steps", most), ("samples", 3 * sampled)):
            file = Path(folder) / f"{name}.jsonl"
            assert not file.is_file() or len(file.read_text().splitlines()) <= limit
        assert len(log.points) <= most


def test_parts_of_a_step_are_joined_at_their_places() -> None:
    one = Measured([0.1, None], tasks=2, failed=Counter(too_long=1), compared=[((0, 1), 0.9)], seconds=3.0)
    two = Measured([0.3, 0.4], tasks=1, flips=1, compared=[((1, 0), None)], seconds=1.0)
    whole = Judged.joined([(0, one), (2, two)], 4)
    assert whole.rewards == [0.1, None, 0.3, 0.4] and whole.compared == [((0, 1), 0.9), ((3, 2), None)]
    assert (whole.tasks, whole.flips, whole.failed, whole.seconds) == (3, 1, {"too_long": 1}, 3.0)


def test_a_record_holds_the_truth_beside_the_reward() -> None:
    rows = [{"prompt": "q", "prompt_id": "p", "meta": '{"answer": 4}'}] * 4
    silent = [{"role": "assistant", "content": None}]
    texts: list[Any] = ["4", "<think>4</think>5", "no answer in many words: 4", silent]
    judged = Measured([0.9, 0.1, None, None], tasks=3, verdicts=6, failed=Counter(truncated=1), unreadable=1)
    made = Recorder("judge", check, NAMES, 2).record(rows, texts, [[1, 2]] * 4, judged, 4)
    assert (made.completions, made.rewarded, made.checked) == (4, 2, 3) and made.reward == pytest.approx(1.0)
    assert made.met == {"correct": 2, "brief": 2} and made.truth == pytest.approx(1 + 1 / 3 + 2 / 3)
    assert (made.agreed, made.decided) == (1, 1) and made.sampled_tokens == 8
    assert [s["text"] for s in made.samples] == ["4", "5"] and made.samples[0]["reward"] == 0.9


def test_the_dry_run_says_what_a_step_asks(tmp_path: Path) -> None:
    from grpo_experiments.policy.dry_run import dry_run, judgements

    write_prompts(tmp_path / "prompts.parquet")
    judge: dict[str, Any] = {"kind": "judge", "rubric": RUBRIC, "judge": JUDGE}
    cases: list[tuple[dict[str, Any], int]] = [
        ({}, 4 * 28 * 2), ({"plan": "circular"}, 4 * 8 * 2), ({"mode": "binary"}, 32), ({"orders": "one"}, 4 * 28),
        ({"samples": 2, "plan": "circular"}, 4 * 8 * 2 * 2),
    ]  # fmt: skip
    for more, wanted in cases:
        assert judgements(config(tmp_path, reward=judge | more), 32, 8) == wanted
    text = dry_run(config(tmp_path))
    assert "8 completions in 2 groups of 4" in text and "no judge" in text and "memory per GPU" in text
    assert not (tmp_path / "grpo").exists()


def test_groups_that_lie_in_two_processes_are_refused(tmp_path: Path) -> None:
    from grpo_experiments.policy.training import grpo_arguments

    spread = {"num_generations": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_steps": 1}
    with pytest.raises(ValueError, match=r"no whole groups|divisible"):
        grpo_arguments(config(tmp_path, trl=spread), tmp_path)


@pytest.mark.slow
def test_a_step_of_several_generations_is_one_line_and_a_stopped_run_stays_stopped(tmp_path: Path) -> None:
    """Four generations a step; then the same command behind a stop by the guard."""
    from grpo_experiments.policy.training import train

    write_prompts(tmp_path / "prompts.parquet")
    options = {
        "num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 8, "max_steps": 2,
        "gradient_accumulation_steps": 4, "steps_per_generation": 1, "save_steps": 2,
    }  # fmt: skip
    folder = tmp_path / "grpo"
    folder.mkdir()
    train(config(tmp_path, trl=options), folder, {})
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [(line["step"], line["completions"]) for line in lines] == [(1, 16), (2, 16)]
    file = folder / "trainer" / "checkpoint-2" / "policy_log.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps(state | {"stopped": {"reason": "made up"}}))
    found: dict[str, Any] = {}
    train(config(tmp_path, trl=options | {"max_steps": 4}), folder, found)
    assert found["steps"] == 2 and found["stopped"] == {"reason": "made up"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_cut_off_ends_as_one_that_is_not(tmp_path: Path) -> None:
    """Weights and log, with a step generated in two parts; the run is ended behind a checkpoint, and started again."""
    from safetensors.torch import load_file
    from transformers import TrainerCallback

    from grpo_experiments.policy.stage import run

    class EndAt(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    more = {
        "generation_parts": 2,
        "trl": {
            "num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 8, "max_steps": 4,
            "gradient_accumulation_steps": 1, "save_steps": 2, "logging_steps": 1, "learning_rate": 1e-3, "beta": 0.01,
        },
    }  # fmt: skip
    found = {}
    for name in ("whole", "cut"):
        folder = tmp_path / name
        folder.mkdir()
        write_prompts(folder / "prompts.parquet")
        given = config(folder, **more)
        if name == "cut":
            with pytest.raises(KeyboardInterrupt):
                run(given, [EndAt()])
        run(given)
        lines = [json.loads(line) for line in (given.output_dir / "steps.jsonl").read_text().splitlines()]
        found[name] = ([{k: v for k, v in line.items() if k != "seconds"} for line in lines], given.output_dir)
    assert [line["step"] for line in found["cut"][0]] == [1, 2, 3, 4]
    assert found["cut"][0] == found["whole"][0]
    one, two = (load_file(found[name][1] / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(bool((one[key] == two[key]).all()) for key in one)
    metrics = json.loads((found["cut"][1] / "metrics.json").read_text())
    assert metrics["resumed_at"] == 2 and metrics["total"]["completions"] == 32 and metrics["stopped"] is None


@pytest.mark.parametrize("name", ["colocate", "server"])
def test_4b_configs_are_read_and_planned(name: str, tmp_path: Path) -> None:
    from grpo_experiments.policy.dry_run import dry_run

    given = load_config(PolicyGrpoConfig, f"configs/qwen3-4b/policy-grpo-{name}.yaml", ["--output_dir", str(tmp_path)])
    assert given.reward.judge is not None and given.reward.judge.sampling["logprobs"] == 20
    assert given.reward.actors.num_gpus == 1 and given.launch is not None
    small = given.model_copy(update={"trl": {**given.trl, "bf16": False, "use_cpu": True}})
    text = dry_run(small)
    assert "verdicts a step" in text and "memory per GPU" in text
    assert ("vLLM on the trainer's GPUs" if name == "colocate" else "a vLLM server at 127.0.0.1:8001") in text
