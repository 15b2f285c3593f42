"""The compact LM head gives TRL's numbers and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from mr3.compact_head import use_compact_head

BASE = Path(__file__).parent.parent / "mr3" / "nano" / "base"
FIELDS = ("loss", "log_probs", "entropy", "mean_logits", "is_top1", "label_mask")


def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(5, 3_000, (3, 20))
    labels = ids.masked_fill(torch.rand(3, 20) < 0.6, -100)
    labels[2] = -100
    return {"input_ids": ids, "labels": labels}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("items", [None, 9])
def test_the_same_as_trls_head(temperature: float, items: int | None) -> None:
    found: list[Any] = []
    for compact in (False, True):
        model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
        add_fused_lm_head(model, temperature=temperature, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
        if compact:
            use_compact_head(model, temperature)
        out = model(**batch(), fused_lm_head=True, num_items_in_batch=items)
        out.log_probs.sum().backward()
        found.append((out, model.model.embed_tokens.weight.grad, model(input_ids=batch()["input_ids"]).logits))
    (one, grad, logits), (two, other, same) = found
    for name in FIELDS:
        assert torch.allclose(getattr(one, name).float(), getattr(two, name).float(), atol=2e-4), name
    assert torch.allclose(grad, other, atol=1e-3) and float(grad.abs().max()) > 0.1
    assert torch.equal(logits, same)
    if items is None and temperature == 1.0:
        assert torch.allclose(two.loss, model(**batch()).loss, atol=1e-5)
