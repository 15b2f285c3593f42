"""TRL's fused LM head for a CPU: scores only the positions that have a label.

TRL 1.16 (`trainer/utils.py`, `add_fused_lm_head`) drops unlabelled positions with Triton only; on other devices it
scores every position of the batch in tiles and once more in the backward pass, which took 55% of an SFT step of the
nano judge, whose completions are a quarter of its tokens. Here the logits of the labelled positions are kept.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput


def use_compact_head(model: PreTrainedModel, temperature: float = 1.0) -> None:
    """Replace what `model(..., labels=labels, fused_lm_head=True)` does, after TRL's trainer has added its own.

    Does nothing on a GPU. The model's head must be a plain linear layer (no soft-capping or scaling of logits: models
    that configure it keep TRL's).
    """
    config = model.config.get_text_config()
    scaled = [getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")]
    if torch.cuda.is_available() or any(scale is not None for scale in scaled):
        return
    before = model.forward

    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        special = kwargs.get("shift_labels") is not None or kwargs.get("output_router_logits")
        if not fused_lm_head or special:
            return before(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        items = kwargs.pop("num_items_in_batch", None)
        hidden_BTD = self.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state
        return _score(hidden_BTD[:, :-1], labels[:, 1:], self.get_output_embeddings(), temperature, items)

    forward.__wrapped__ = before  # type: ignore[attr-defined]  # generate reads the signature
    model.forward = types.MethodType(forward, model)


def _score(hidden_BTD: Any, labels_BT: Any, head: Any, temperature: float, items: Any) -> FusedCausalLMOutput:
    mask_BT = labels_BT != -100
    logits_NV = head(hidden_BTD[mask_BT]).float() / temperature
    logp_NV = logits_NV.log_softmax(-1)
    labels_N = labels_BT[mask_BT]
    chosen_N = logp_NV.gather(-1, labels_N[:, None])[:, 0]

    def spread(values_N: Any) -> Any:
        return torch.zeros(mask_BT.shape, dtype=values_N.dtype).masked_scatter(mask_BT, values_N)

    with torch.no_grad():
        entropy_N = -(logp_NV.exp() * logp_NV).sum(-1)
        mean_N, top_N = logits_NV.mean(-1), logits_NV.argmax(-1) == labels_N
    return FusedCausalLMOutput(
        loss=-chosen_N.sum() / (mask_BT.sum().clamp(min=1) if items is None else items),
        log_probs=spread(chosen_N),
        entropy=spread(entropy_N),
        mean_logits=spread(mean_N),
        is_top1=spread(top_N),
        label_mask=mask_BT,
    )
