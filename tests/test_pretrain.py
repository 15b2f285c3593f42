"""Pretraining the nano base: two phases, and an interrupted run that ends with the very same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from mr3.artifacts import metrics_of
from mr3.nano import pretrain, tokenizer
from mr3.nano.pretrain import Phase, PretrainConfig, run
from mr3.nano.text import TextWorld

BASE = Path(__file__).parent.parent / "mr3" / "nano" / "base"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PretrainConfig:
    monkeypatch.setattr(tokenizer, "train_tokenizer", lambda seed: AutoTokenizer.from_pretrained(BASE))
    monkeypatch.setattr(pretrain, "_LOG_EVERY", 2)
    sizes: dict[str, Any] = {"hidden_size": 32, "layers": 1, "heads": 2, "key_value_heads": 1, "intermediate_size": 32}
    phases = [Phase(steps=4), Phase(steps=4, listed=1.0, rate=0.5)]
    return PretrainConfig(output_dir=tmp_path / "a", phases=phases, row_tokens=48, batch_rows=2, save_every=1, **sizes)


def test_an_interrupted_run_ends_with_the_same_weights(tiny: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tiny)
    other = tiny.model_copy(update={"output_dir": tiny.output_dir.parent / "b"})
    update = pretrain._Pretraining._update
    left = [6]

    def fails(self: Any, optimizers: list[Any], batch: torch.Tensor) -> float:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return update(self, optimizers, batch)

    monkeypatch.setattr(pretrain._Pretraining, "_update", fails)
    with pytest.raises(KeyboardInterrupt):
        run(other)
    monkeypatch.setattr(pretrain._Pretraining, "_update", update)
    run(other)
    one, two = (load_file(c.output_dir / "model" / "model.safetensors") for c in (tiny, other))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert metrics_of(tiny.output_dir)["steps"] == 8 == metrics_of(other.output_dir)["steps"]


def test_listed_texts_speak_of_what_their_list_says() -> None:
    world = TextWorld(5, listed=1.0)
    for _ in range(200):
        lines = world.two_texts().split("\n")
        listed = [line for line in lines if line[1:3] == ". "]
        assert listed == lines[: len(listed)] and 1 <= len(listed) <= 4
        assert [line.split()[0] for line in lines[len(listed) + 3 :]] == [str(i + 1) for i in range(len(listed))]
