"""The trainer over TRL's own: what a None does, baselines of bundles, re-sampling, the log, and a resume that is exact.

The model is the nano base, and rewards are made up from the text, so a test takes seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerState
from trl import GRPOConfig, GRPOTrainer

from grpo_experiments import shared_prompts
from grpo_experiments.composite import advantages
from grpo_experiments.guards import GuardSettings
from grpo_experiments.measures import LabelReader, tree_of
from grpo_experiments.reward_log import History, RewardLog, read_log
from grpo_experiments.scoring import Completion, Marked, RowGroup
from grpo_experiments.trainer import BundleTrainer
from grpo_experiments.watching import Watch
from mr3.records import stable_hash
from mr3.shared_prefix import Packed, pack
from mr3.training import last_checkpoint, load_model, load_tokenizer, trl_config

BASE = "mr3/nano/base"
Rewards = Callable[[int, int, str], float | None]
"""Row, place in the group and text -> reward."""


def by_text(row: int, place: int, text: str) -> float | None:
    return int(stable_hash(row, text, length=4), 16) % 7 / 7


def mostly(row: int, place: int, text: str) -> float | None:
    """Of one bundle all are right."""
    return 1.0 if row < 2 else by_text(row, place, text)


class MadeUp:
    """A scorer whose rewards are a function of row, place and text. What it was given is kept."""

    terms = ("made_up",)

    def __init__(self, rewards: Rewards) -> None:
        self.rewards = rewards
        self.seen: list[list[tuple[int, int]]] = []

    def measure(self, completions: Sequence[Completion]) -> list[str]:
        """The text is all there is to it."""
        return [c.text for c in completions]

    async def score(self, bundles: Sequence[Sequence[RowGroup]]) -> list[list[list[Marked]]]:
        """Bundle -> group -> completion."""
        self.seen.append([(row, len(texts)) for bundle in bundles for row, texts in bundle])
        return [[self._marks(row, texts) for row, texts in bundle] for bundle in bundles]

    def _marks(self, row: int, texts: Sequence[str]) -> list[Marked]:
        told = [self.rewards(row, k, text) for k, text in enumerate(texts)]
        return [Marked(r, r, {"made_up": r}, {"task": str(row), "twin": f"t{row // 2}"}) for r in told]


class Normalised(MadeUp):
    """The other way round than the reward, to see which is used for what."""

    def _marks(self, row: int, texts: Sequence[str]) -> list[Marked]:
        about = {"task": str(row), "twin": None}
        return [Marked(0.25 + k / 2, 1.0, {"made_up": 1.0}, about, 1.0 - 2 * k) for k in range(len(texts))]


def trainer_of(folder: Path, rewards: Rewards, rows: int = 8, **more: Any) -> BundleTrainer:
    """Twins of rows (0, 1), (2, 3), ... with two samples each, four prompts in a generation."""
    options = {
        "num_generations": 2, "per_device_train_batch_size": 8, "max_completion_length": 6, "learning_rate": 1e-3,
        "max_steps": 4, "logging_steps": 1, "save_steps": 2, "num_generations_eval": 2, "per_device_eval_batch_size": 8,
    } | more.pop("trl", {})  # fmt: skip
    tokenizer = load_tokenizer(BASE)
    scorer, history = MadeUp(rewards), more.pop("history", History())
    log = RewardLog(folder / "rewards", 0, scorer.terms, texts=1)
    trainer = BundleTrainer(
        model=load_model(BASE),
        args=trl_config(GRPOConfig, options, folder / "trainer", 5),
        train_dataset=Dataset.from_list([{"prompt": f"{i} and {i + 1} is", "row": i} for i in range(rows)]),
        eval_dataset=Dataset.from_list([{"prompt": f"held {i}", "row": rows + i} for i in range(4)]),
        processing_class=tokenizer,
        scorer=scorer,
        bundles=[[i, i + 1] for i in range(0, rows, 2)],
        held_out_bundles=[[rows, rows + 1], [rows + 2, rows + 3]],
        reward_log=log,
        history=history,
        **more,
    )
    trainer.add_callback(Watch(history, GuardSettings()))
    return trainer


def generated(trainer: BundleTrainer, rows: Sequence[int] = (0, 1, 2, 3)) -> dict[str, Any]:
    """One generation of these prompts, as training would have it."""
    trainer.model.train()
    return trainer._generate_and_score_completions([dict(trainer.train_dataset[r]) for r in rows for _ in range(2)])


def test_trl_counts_a_none_beside_another_reward_as_zero(tmp_path: Path) -> None:
    """The trap: why there is one composite. If this fails, TRL has changed, and docs/grpo.md is to be read again."""

    def judge(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return [None if i == 0 else 1.0 for i in range(len(completions))]

    def form(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return [1.0] * len(completions)

    options = {"num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 4}
    data = Dataset.from_list([{"prompt": "1 and 2 is"}] * 4)
    arguments = trl_config(GRPOConfig, options, tmp_path, 0)
    trainer = GRPOTrainer(
        model=load_model(BASE), reward_funcs=[judge, form], args=arguments, train_dataset=data,
        processing_class=load_tokenizer(BASE),
    )  # fmt: skip
    trainer.model.train()
    found = trainer._generate_and_score_completions([dict(row) for row in data])["advantages"]
    assert found[0] < -1.0, "what could not be judged is punished"


def test_a_none_has_no_advantage_and_moves_no_other(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path, lambda row, k, text: None if (row, k) == (1, 0) else float(k), trl={"num_generations": 4}, rows=8
    )
    trainer.model.train()
    rows = [dict(trainer.train_dataset[r]) for r in (0, 1) for _ in range(4)]
    found = trainer._generate_and_score_completions(rows)["advantages"].tolist()
    assert found[:4] == pytest.approx(advantages([0.0, 1.0, 2.0, 3.0]), abs=1e-4), "ours are TRL's"
    assert found[4] == 0.0 and found[5:] == pytest.approx(advantages([1.0, 2.0, 3.0]), abs=1e-4)
    assert trainer.history.steps[0]["unmeasured"] == 1


def test_a_baseline_of_the_bundle_compares_twins(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, lambda row, k, text: float(row % 2), by_bundle=True)
    found = generated(trainer)["advantages"].tolist()
    assert found == pytest.approx([*advantages([0.0, 0.0, 1.0, 1.0])] * 2, abs=1e-4)
    group = generated(trainer_of(tmp_path / "g", lambda row, k, text: float(row % 2)))["advantages"].tolist()
    assert group == [0.0] * 8, "within a group there is nothing to compare"


@pytest.mark.parametrize("by_bundle", [True, False])
def test_what_is_sampled_for_the_reward_alone_moves_the_baseline_and_gets_no_gradient(
    tmp_path: Path, by_bundle: bool
) -> None:
    whole = generated(trainer_of(tmp_path / "whole", by_text, by_bundle=by_bundle))["advantages"]
    part = generated(trainer_of(tmp_path / "part", by_text, by_bundle=by_bundle, reward_only=frozenset({1, 3})))
    row_of_place = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    expected = torch.where(row_of_place % 2 == 1, torch.zeros(8), whole)
    assert torch.equal(part["advantages"], expected) and bool((expected != 0).any())


def test_twins_are_scored_together_whatever_the_accumulation(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, by_text, trl={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2})
    trainer.train()
    for batch in trainer.scorer.seen:  # type: ignore[attr-defined]
        rows = [row for row, samples in batch]
        assert all(samples == 2 for _, samples in batch) and len(rows) == 4
        assert all(a % 2 == 0 and b == a + 1 for a, b in zip(rows[::2], rows[1::2], strict=True))


def test_shared_prompts_change_neither_loss_nor_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[int] = []

    def counted(ids: torch.Tensor, *more: Any) -> Packed:
        packed.append(len(ids))
        return pack(ids, *more)

    monkeypatch.setattr(shared_prompts, "pack", counted)
    trainer = trainer_of(tmp_path, by_text)
    trainer.train_dataset = Dataset.from_list([{"prompt": f"{i} " * 40, "row": i} for i in range(8)])
    output = generated(trainer)
    trainer.current_gradient_accumulation_steps = 1
    found = []
    for trainer.share_prompts in (True, False):
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, dict(output))
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in trainer.model.parameters()])))
    assert packed == [8], "the first loss is over packed rows, the second over single ones"
    (loss_a, gradient_a), (loss_b, gradient_b) = found
    assert loss_a == pytest.approx(loss_b, abs=1e-6) and float(gradient_b.abs().max()) > 1e-3
    torch.testing.assert_close(gradient_a, gradient_b, atol=1e-5, rtol=1e-3)


def test_shared_prompts_serve_the_reference_too(tmp_path: Path) -> None:
    """With `beta` above 0 TRL keeps a reference, whose head computes log-probabilities alone."""
    trainer = trainer_of(tmp_path, by_text, trl={"beta": 0.1})
    trainer.train_dataset = Dataset.from_list([{"prompt": f"{i} " * 40, "row": i} for i in range(8)])
    output = generated(trainer)
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    trainer.share_prompts = False
    alone, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.ref_model, ids, mask, output["completion_ids"].size(1)
    )
    seen = output["completion_mask"] == 1
    assert torch.allclose(output["ref_per_token_logps"][seen], alone[seen], atol=1e-4)


def test_prompts_without_a_gradient_are_replaced_and_charged(tmp_path: Path) -> None:
    """Rows 0 to 3 have none; what takes their place has, and the batch that is trained on is TRL's in shape."""
    trainer = trainer_of(
        tmp_path, lambda row, k, text: 1.0 if row < 4 else float(k), rows=24, resample=1, by_bundle=True
    )
    output = generated(trainer, (0, 1, 6, 7))
    assert (output["advantages"] != 0).all()
    assert len({len(output[n]) for n in ("prompt_ids", "completion_ids", "prompt_mask", "completion_mask")}) == 1
    assert int(output["num_items_in_batch"]) == int(output["completion_mask"].sum())
    (step,) = trainer.history.steps
    assert (step["replaced"], step["sets"], step["flat"], step["samples"]) == (1, 3, 1, 12), (
        "all that was sampled counts"
    )
    assert step["moving_tokens"] == step["gradient_tokens"] < step["sampled_tokens"]
    prompts = trainer.processing_class.batch_decode(output["prompt_ids"], skip_special_tokens=True)
    assert not any(p.strip().startswith(("0 and", "1 and")) for p in prompts)


def test_what_can_not_be_replaced_stays(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, lambda row, k, text: 1.0, resample=2, rows=12)
    output = generated(trainer)
    assert (output["advantages"] == 0).all() and trainer.history.steps[0]["replaced"] == 0


@pytest.mark.parametrize("save", [1, 2])
def test_a_resumed_run_is_the_run(tmp_path: Path, save: int) -> None:
    """Same weights, history and log as a run that was never interrupted: over an epoch's end, and within one."""
    more: dict[str, Any] = {"by_bundle": True, "resample": 1, "trl": {"save_steps": save}, "rows": 12}
    whole = trainer_of(tmp_path / "whole", mostly, **more)
    whole.train()
    assert any(step["replaced"] for step in whole.history.steps)
    first = trainer_of(tmp_path / "cut", mostly, **more)

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    first.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        first.train()
    done = 2
    checkpoint = tmp_path / "cut" / "trainer" / f"checkpoint-{done}"
    second = trainer_of(tmp_path / "cut", mostly, **more, history=History.load(checkpoint))
    assert len(second.history.steps) == done
    second.reward_log.forget_after(done)
    assert {r["step"] for r in read_log(tmp_path / "cut" / "rewards")} == set(range(done))
    second.train(resume_from_checkpoint=str(checkpoint))
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    logs = [list(read_log(tmp_path / name / "rewards")) for name in ("whole", "cut")]
    assert logs[0] == logs[1] and {r["step"] for r in logs[0]} == {0, 1, 2, 3}
    cost = ("cpu_s",)
    kept = [[{k: v for k, v in s.items() if k not in cost} for s in t.history.steps] for t in (whole, second)]
    assert kept[0] == kept[1]
    assert whole.history.summary()["completions"] == len(logs[0]) > 32


class Ends(TrainerCallback):
    """Cuts a run off at the beginning of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_resumed_run_does_not_evaluate_its_checkpoint_again(tmp_path: Path) -> None:
    """With `eval_on_start`: the evaluation of the checkpoint's step stands, in the history and in its file."""
    more: dict[str, Any] = {"trl": {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True}}
    whole = trainer_of(tmp_path / "whole", by_text, **more)
    whole.train()
    first = trainer_of(tmp_path / "cut", by_text, **more)
    first.add_callback(Ends(3))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    checkpoint = tmp_path / "cut" / "trainer" / "checkpoint-2"
    second = trainer_of(tmp_path / "cut", by_text, **more, history=History.load(checkpoint))
    second.reward_log.forget_after(2)
    second.train(resume_from_checkpoint=str(checkpoint))
    assert [e["step"] for e in whole.history.evaluations] == [0, 2, 4]
    assert second.history.evaluations == whole.history.evaluations
    logs = [list(read_log(tmp_path / name / "rewards", "eval")) for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_a_run_that_a_guard_has_stopped_is_not_trained_on(tmp_path: Path) -> None:
    """It was killed before the stage was finished: the same command only finishes it, within an epoch or at its end."""
    for rows, name in ((8, "end"), (12, "within")):
        trainer_of(tmp_path / name, by_text, rows=rows, trl={"max_steps": 2}).train()
        checkpoint = tmp_path / name / "trainer" / "checkpoint-2"
        history = History.load(checkpoint)
        history.stopped = {"reason": "made up", "step": 1, "stopped": True}
        again = trainer_of(tmp_path / name, by_text, rows=rows, history=history, trl={"max_steps": 8})
        assert again.train(resume_from_checkpoint=str(checkpoint)).global_step == 2 == len(history.steps)
        saved = load_model(str(checkpoint))
        for a, b in zip(again.model.parameters(), saved.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_checkpoint_that_counts_as_whole_has_its_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right behind the file by which it counts, when older checkpoints are removed next."""

    def killed(state: TrainerState, path: str) -> None:
        Path(path).write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainerState, "save_to_json", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path, by_text).train()
    checkpoint = last_checkpoint(tmp_path / "trainer")
    assert checkpoint is not None and len(History.load(Path(checkpoint)).steps) == 2


def test_normalised_values_make_the_advantages_and_the_reward_is_what_is_shown(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, by_text, by_bundle=True)
    trainer.scorer = Normalised(by_text)
    output = generated(trainer)
    (step,) = trainer.history.steps
    rows = list(read_log(tmp_path / "rewards"))
    assert step["reward"] == pytest.approx(0.5) and [r["reward"] for r in rows] == [0.25, 0.75] * 4
    assert [r["reward_normalised"] for r in rows] == [1.0, -1.0] * 4
    assert trainer._metrics["train"]["reward"] == [pytest.approx(0.5)]
    assert step["flat"] == 0 and ((output["advantages"] > 0).tolist() == [True, False] * 4)


def test_the_log_is_bounded_and_complete(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, lambda row, k, text: None if k else 0.5, trl={"max_steps": 2})
    marks: list[float] = []

    class Marks(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            marks.append(time.process_time())

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            marks.append(time.process_time())

    trainer.add_callback(Marks())
    trainer.train()
    spent = marks[1] - marks[0]
    rows = list(read_log(tmp_path / "rewards"))
    assert len(rows) == 16 and sum(r["text"] is not None for r in rows) == 2, "one text a generation"
    assert {r["reward"] for r in rows} == {None, 0.5} and {r["term_made_up"] for r in rows} == {None, 0.5}
    assert not any(hasattr(trainer.reward_log, name) for name in ("seen", "rows")), "nothing grows in memory"
    found = trainer.history.summary()
    assert found["terms"] == {"made_up": {"mean": 0.5, "none": 0.5}} and found["groups_without_variance"] == 1.0
    counts = found["token_counts"]
    assert counts["repeated_prompt_tokens"] == 2 * counts["prompt_tokens"] > 0
    assert counts["sampled_tokens"] == counts["gradient_tokens"] <= 16 * 6 and counts["moving_tokens"] == 0
    assert set(found["cpu_s"]) >= {"generation", "rewards", "training"} and json.dumps(found)
    assert sum(found["cpu_s"].values()) == pytest.approx(spent, abs=0.05), "all is counted, and no second twice"


def test_truth_and_terms_stand_beside_the_reward(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, by_text, trl={"max_steps": 2})
    trainer.train()
    logged = [line for line in trainer.state.log_history if "reward" in line]
    assert len(logged) == 2
    assert all(line["truth"] == pytest.approx(line["reward"]) and "terms/made_up/none" in line for line in logged)


def test_a_run_without_rewards_stops_with_a_reason(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, lambda row, k, text: None, trl={"max_steps": 9})
    with pytest.raises(ValueError, match="not one completion had a reward in 5 generations in a row"):
        trainer.train()


def test_an_evaluation_sees_every_held_out_task_and_trains_none(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, by_text, trl={"max_steps": 1})
    trainer.train()
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.evaluate()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    (line,) = trainer.history.evaluations
    assert set(line["tasks"]) == {"8", "9", "10", "11"} and line["reward"] == line["truth"]
    assert not {r["row"] for r in read_log(tmp_path / "rewards")} & {8, 9, 10, 11}
    assert {r["row"] for r in read_log(tmp_path / "rewards", "eval")} == {8, 9, 10, 11}


@pytest.mark.slow
def test_what_is_rewarded_is_learned(tmp_path: Path) -> None:
    """The reward is the share of digits: 25 steps of 64 short samples raise it, and the reward log says so."""
    trainer = trainer_of(
        tmp_path, lambda row, k, text: sum(c.isdigit() for c in text) / (len(text) or 1), rows=32,
        trl={"num_generations": 8, "per_device_train_batch_size": 64, "max_steps": 25, "max_completion_length": 12,
             "learning_rate": 1e-3, "lr_scheduler_type": "constant", "save_strategy": "no", "num_generations_eval": 2},
    )  # fmt: skip
    trainer.train()
    rewards = [step["reward"] for step in trainer.history.steps]
    assert rewards[0] < 0.15 and sum(rewards[-5:]) / 5 > 0.3, rewards


def test_a_scorer_that_fails_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    def gone(row: int, place: int, text: str) -> float | None:
        raise ValueError("the judge is gone: start it again")

    with pytest.raises(ValueError, match="the judge is gone"):
        trainer_of(tmp_path, gone).train()


# --- label probabilities ---


def naive(model: Any, tokenizer: Any, text: str, labels: Sequence[str]) -> dict[str, float]:
    """Every label by a pass of its own, token by token, up to the token that tells it from the others."""
    found = {}
    tree = tree_of(tokenizer, text, tuple(labels))
    for label, path in tree.paths.items():
        ids, total = list(tree.context), 0.0
        for token in path:
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -1]
            total += float(logits.log_softmax(-1)[token])
            ids.append(token)
        found[label] = float(torch.tensor(total).exp())
    return found


@pytest.mark.parametrize(
    "labels",
    [
        ("Assistant A", "Assistant B", "Tie"),
        ("1", "2", "3", "4", "5"),
        ("1", "10"),
        ("true", "false"),
        ("A > B", "B > A"),
    ],
)
def test_label_probabilities_are_those_of_single_passes(labels: tuple[str, ...]) -> None:
    model, tokenizer = load_model(BASE).eval(), load_tokenizer(BASE)
    texts = ['{"score": "', 'A much longer text before it. {"explanation": "because", "score": "', None]
    told = LabelReader(lambda: model, tokenizer, batch=2).read(texts, [labels] * 3)
    assert told[2] is None
    for text, found in zip(texts[:2], told, strict=False):
        assert text is not None and found is not None
        assert found == pytest.approx(naive(model, tokenizer, text, labels), rel=1e-3, abs=1e-9)
        assert sum(found.values()) <= 1 + 1e-5


def test_paths_of_labels_part_where_their_tokens_do() -> None:
    tokenizer = load_tokenizer(BASE)
    tree = tree_of(tokenizer, '{"score": "', ("Assistant A", "Assistant B", "Tie"))
    whole = tokenizer('{"score": "Assistant B"', add_special_tokens=False)["input_ids"]
    path = tree.paths["Assistant B"]
    assert whole[: len(tree.context) + len(path)] == tree.context + path
    assert len({tuple(p) for p in tree.paths.values()}) == 3
    assert len(tree.rows()) == 1, "one row holds both places where labels part"


def test_sequence_log_probabilities_are_those_of_one_pass_each(tmp_path: Path) -> None:
    from grpo_experiments.judge import sequence_logps

    trainer = trainer_of(tmp_path, by_text)
    tokenizer: Any = trainer.processing_class
    prompts, ids = ["1 and 2 is", "a longer prompt, 7 and 8 is"], [[5, 6, 7], [9]]
    found = sequence_logps(trainer, tokenizer, prompts, ids)
    for prompt, row, told in zip(prompts, ids, found, strict=True):
        context = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logp = trainer.model(torch.tensor([context + row])).logits[0].log_softmax(-1)
        wanted = sum(float(logp[len(context) - 1 + k, token]) for k, token in enumerate(row))
        assert told == pytest.approx(wanted, rel=1e-3)
    assert sequence_logps(trainer, tokenizer, [], []) == []
