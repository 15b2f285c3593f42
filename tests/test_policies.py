"""Policies: the off-policy share, label smoothing from flips, wins by checkers, options of the trainers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trl import DPOConfig

from dpo.policy_eval import by_checkers, win_points
from dpo.pool import PoolConfig, cap_own
from dpo.sampling import Prompt, read_prompts, request_seed
from dpo.train import smoothing_from_flips
from mr3.config import build_config
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
