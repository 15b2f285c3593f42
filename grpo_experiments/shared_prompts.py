"""GRPOTrainer that computes a prompt once for all of its completions, where that saves work (mr3/shared_prefix.py)."""

from __future__ import annotations

from typing import Any

import torch
from trl import GRPOTrainer

from mr3.shared_prefix import Work, groups_of, pack, saves, takes_masks


class SharedPromptTrainer(GRPOTrainer):
    """TRL's losses over log-probabilities that are computed with shared prompts.

    Models with images, mixtures of experts and flash attention are left to TRL, batch by batch; so are batches in which
    single rows are cheaper. Set `share_prompts` to False to leave all of them to it.
    """

    share_prompts = True
    _work: Work | None = None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **more: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """(B, K) log-probabilities and entropies of the last K places, as TRL's."""
        size = batch_size or input_ids.size(0)
        bare = self.accelerator.unwrap_model(model)
        if (
            not self.share_prompts
            or compute_aux_loss
            or any(value is not None for value in more.values())
            or not takes_masks(bare)
        ):
            found: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
            found = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss, **more
            )
            return found
        if self._work is None:
            self._work = Work.of(bare)
        logps, entropies = [], []
        for start in range(0, input_ids.size(0), size):
            ids, mask = input_ids[start : start + size], attention_mask[start : start + size]
            groups = groups_of(ids, mask, logits_to_keep)
            if saves(groups, mask, logits_to_keep, self._work):
                own, entropy = self._shared(model, ids, mask, logits_to_keep, groups)
            else:
                own, entropy, _ = super()._get_per_token_logps_and_entropies(
                    model, ids, mask, logits_to_keep, compute_entropy=compute_entropy
                )
            logps.append(own)
            entropies.append(entropy)
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _shared(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, groups: list[list[int]]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        packed = pack(ids, mask, keep, groups, self.accelerator.unwrap_model(model).dtype)
        with self.accelerator.autocast():
            out = model(
                input_ids=packed.input_ids,
                attention_mask=packed.attention_mask,
                position_ids=packed.position_ids,
                labels=packed.labels,
                fused_lm_head=True,
            )
        shape = (ids.size(0), keep)
        # The head that TRL gives the reference (beta above 0) computes no entropy.
        entropy = None if out.entropy is None else packed.spread(out.entropy, shape)
        return packed.spread(out.log_probs, shape), entropy
