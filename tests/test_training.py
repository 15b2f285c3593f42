"""What the TRL stages share: curves that survive a resume, precision, and the process that keeps the records."""

from __future__ import annotations

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from mr3.hub import open_tokenizer
from mr3.training import PlainProgress, is_main_process, load_model, load_tokenizer, mean_loss, require_sharding

BASE = "mr3/nano/base"


def test_the_mean_of_a_curve_is_the_mean_over_steps() -> None:
    per_step = [4.0, 2.0, 3.0, 1.0, 5.0]
    curve = [
        {"step": 2.0, "loss": sum(per_step[:2]) / 2},
        {"step": 4.0, "loss": sum(per_step[2:4]) / 2},
        {"step": 5.0, "loss": per_step[4]},
    ]
    assert mean_loss(curve) == pytest.approx(sum(per_step) / 5)


def test_a_resumed_curve_begins_where_the_first_run_did(tmp_path_factory: pytest.TempPathFactory) -> None:
    arguments = TrainingArguments(str(tmp_path_factory.mktemp("out")), use_cpu=True)
    progress, state = PlainProgress("t"), TrainerState(global_step=20, max_steps=30)
    state.log_history = [
        {"loss": 3.0, "epoch": 0.5, "step": 10},
        {"eval_loss": 1.0, "step": 10},
        {"loss": 2.0, "epoch": 1.0, "step": 20, "note": "text"},
    ]
    progress.on_train_begin(arguments, state, TrainerControl())
    state.global_step = 30
    progress.on_log(arguments, state, TrainerControl(), logs={"loss": 1.0, "epoch": 1.5})
    progress.on_log(arguments, state, TrainerControl(), logs={"train_runtime": 1.0})
    assert progress.curve == [
        {"step": 10.0, "loss": 3.0, "epoch": 0.5},
        {"step": 20.0, "loss": 2.0, "epoch": 1.0},
        {"step": 30.0, "loss": 1.0, "epoch": 1.5},
    ]


@pytest.mark.parametrize(("asked", "got"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_weights_precision_is_what_was_asked_for(asked: str, got: torch.dtype) -> None:
    model = load_model(BASE, dtype=asked, attention="eager")
    assert {p.dtype for p in model.parameters()} == {got} and model.config._attn_implementation == "eager"


def test_the_first_process_keeps_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_main_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_main_process()


def test_sharding_that_would_be_left_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    require_sharding()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="torchrun --nproc-per-node"):
        require_sharding()


def test_a_model_that_can_not_be_had_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (load_tokenizer, load_model, open_tokenizer):
        with pytest.raises(ValueError, match=r"can't load nobody/no-such-model: .* HF_HUB_OFFLINE=1"):
            load("nobody/no-such-model")
