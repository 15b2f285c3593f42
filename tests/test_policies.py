"""Policies: the off-policy share, label smoothing from flips, wins by checkers, options of the trainers."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trl import DPOConfig

from dpo.policy_eval import PolicyEvalConfig, by_checkers, drawn, win_points
from dpo.pool import PoolConfig, cap_own
from dpo.sample import SampleConfig
from dpo.sample import run as run_sample
from dpo.sampling import Generation, Prompt, read_prompts, request_seed, sample_policy
from dpo.train import smoothing_from_flips
from mr3.config import build_config, load_config
from mr3.inference.session import ray_session
from mr3.training import check_model, last_checkpoint, trl_config


def _pool(own: int, others: list[int]) -> PoolConfig:
    policies = [{"name": "own", "model": "org/own", "samples": own, "own": True}]
    policies += [{"name": f"p{i}", "model": f"org/p{i}", "samples": n} for i, n in enumerate(others)]
    return build_config(PoolConfig, {"output_dir": "x", "prompts": "p.parquet", "policies": policies}, "test")


def test_own_samples_are_at_most_a_quarter() -> None:
    assert len(_pool(1, [1, 1, 1]).policies) == 4
    with pytest.raises(ValueError, match="at most 25%"):
        _pool(2, [1, 1, 1])


def test_two_policies_of_one_name_are_refused() -> None:
    policies = [{"name": "a", "model": "org/a"}, {"name": "a", "model": "org/b"}]
    with pytest.raises(ValueError, match="share a name"):
        build_config(PoolConfig, {"output_dir": "x", "prompts": "p", "policies": policies}, "test")


@given(st.floats(0, 0.45))
def test_smoothing_is_the_error_of_kept_pairs(error: float) -> None:
    flips = 2 * error * (1 - error)
    assert smoothing_from_flips(flips) == pytest.approx(error**2 / (1 - flips), abs=1e-9)
    assert smoothing_from_flips(flips) <= error + 1e-12


def test_a_guessing_judge_gives_no_smoothing() -> None:
    with pytest.raises(ValueError, match="guessing"):
        smoothing_from_flips(0.5)


def test_wins_by_checkers_rank_the_criteria() -> None:
    prompts = [Prompt(str(i), [], "en" if i < 2 else "fr", {}) for i in range(3)]
    before = [
        {"language": True, "correct": False},
        {"language": False, "correct": True},
        {"language": True, "correct": True},
    ]
    after = [
        {"language": True, "correct": True},
        {"language": True, "correct": False},
        {"language": True, "correct": True},
    ]
    got = by_checkers(prompts, before, after, ["language", "correct"])
    assert got["win_rate"]["value"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert got["win_rate_per_language"]["en"]["value"] == 1.0
    assert got["pass_rate_difference"]["correct"]["value"] == pytest.approx(0.0)
    assert [win_points(o) for o in (1, 0, -1)] == [1.0, 0.5, 0.0]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 3))
def test_empty_answers_of_others_do_not_raise_the_own_share(others: list[int], seed: int) -> None:
    def response(prompt: int, policy: str, k: int) -> dict[str, str]:
        return {"id": f"{prompt}/{policy}/{k}", "text": "x", "policy": policy}

    rows = [
        {"responses": [response(i, "own", 0), *(response(i, "other", k) for k in range(n))]}
        for i, n in enumerate(others)
    ]
    before = sum(others)
    dropped = cap_own(rows, {"own"}, seed)
    left = [r["policy"] for row in rows for r in row["responses"]]
    own = left.count("own")
    assert own == len(others) - dropped and left.count("other") == before
    assert own <= 0.25 * len(left)
    assert dropped == 0 or own + 1 > 0.25 * (len(left) + 1), "not one more than needed"


def test_unknown_trainer_option_names_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        trl_config(DPOConfig, {"learning_rat": 1.0}, tmp_path, 0)


@pytest.mark.parametrize("model", ["runs/absent/model", "./absent", "no-such-folder"])
def test_missing_model_folder_is_a_clear_error(model: str) -> None:
    with pytest.raises(ValueError, match="no model folder"):
        check_model(model)
    assert check_model("Qwen/Qwen3-4B") == "Qwen/Qwen3-4B"


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no model"):
        check_model(str(tmp_path))


def test_torn_checkpoints_are_not_resumed(tmp_path: Path) -> None:
    for step, whole in ((2, True), (10, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_missing_prompts_name_the_command() -> None:
    with pytest.raises(ValueError, match="mr3 data"):
        read_prompts(Path("absent.parquet"))


def test_every_sample_of_every_prompt_draws_for_itself() -> None:
    seeds = [request_seed(s, f"p{i}", k) for s in range(3) for i in range(300) for k in range(3)]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**31 for seed in seeds)
    assert request_seed(1, "p1", 0) == request_seed(1, "p1", 0)


@given(st.sets(st.text(min_size=1), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 3), st.randoms())
def test_the_prompts_that_the_judge_sees_depend_on_ids_and_seed_alone(
    ids: set[str], count: int, seed: int, mix: random.Random
) -> None:
    prompts = [Prompt(name, [], "en", {}) for name in ids]
    mixed = mix.sample(prompts, len(prompts))
    chosen = drawn(prompts, count, seed)
    assert {p.id for p in chosen} == {p.id for p in drawn(mixed, count, seed)}
    assert len(chosen) == min(count, len(prompts))
    assert drawn(prompts, None, seed) == prompts


def test_the_demo_samples_its_start_as_policy_eval_will_ask_for_it() -> None:
    early = load_config(SampleConfig, Path("configs/nano/policy-samples.yaml"))
    late = load_config(PolicyEvalConfig, Path("configs/nano/policy-eval.yaml"))
    assert (early.model, early.prompts, early.seed, early.samples) == (late.before, late.prompts, late.seed, 1)
    assert early.generation == late.generation, "else policy-eval samples everything again"


@pytest.mark.slow
def test_sampled_responses_wait_in_the_store_for_the_stage_that_needs_them(tmp_path: Path) -> None:
    prompts = [
        {"prompt_id": f"p{i}", "prompt": f"cats: {i}, dogs: 2.", "language": "en", "meta": "{}"} for i in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(prompts), tmp_path / "prompts.parquet")
    generation = {
        "sampling": {"temperature": 1.0, "max_tokens": 8},
        "engine": {"kv_cache_memory_bytes": 1 << 26},
        "store": str(tmp_path / "store"),
    }
    both = {"prompts": str(tmp_path / "prompts.parquet"), "generation": generation, "seed": 3}
    sample = {**both, "output_dir": str(tmp_path / "samples"), "model": "mr3/nano/base"}
    run_sample(build_config(SampleConfig, sample, "test"))
    rows = pq.read_table(tmp_path / "samples" / "responses.parquet").to_pylist()
    assert [r["prompt_id"] for r in rows] == [p["prompt_id"] for p in prompts]
    parts = sorted((tmp_path / "store" / "parts").iterdir())
    with ray_session():
        again = sample_policy(
            "mr3/nano/base", read_prompts(tmp_path / "prompts.parquet"), Generation(**generation), 1, 3
        )
    assert {name: made[0].text.strip() for name, made in again.items()} == {r["prompt_id"]: r["text"] for r in rows}
    assert sorted((tmp_path / "store" / "parts").iterdir()) == parts, "sampled again"
