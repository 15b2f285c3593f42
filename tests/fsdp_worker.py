"""Run by torchrun in two processes: the nano base cut by FSDP2 over gloo makes the steps of the whole one."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from mr3.compact_head import use_compact_head

BASE = "mr3/nano/base"


def made(compact: bool) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if compact:
        use_compact_head(model)
    return model


def main() -> None:
    dist.init_process_group("gloo")
    rank, compact = dist.get_rank(), os.environ["COMPACT"] == "1"
    torch.manual_seed(0)
    ids_BT = torch.randint(5, 3_000, (4, 24))
    labels_BT = ids_BT.masked_fill(torch.arange(24) < 9, -100)
    whole, cut = made(compact), made(compact)
    mesh = init_device_mesh("cpu", (2,))
    for layer in cut.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(cut, mesh=mesh)
    assert all(isinstance(p, DTensor) for p in cut.parameters())
    assert sum(p.to_local().numel() for p in cut.parameters()) < 0.6 * sum(p.numel() for p in whole.parameters())
    mine = slice(2 * rank, 2 * rank + 2)
    for _ in range(2):
        for model, part in ((whole, slice(None)), (cut, mine)):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            loss = model(input_ids=ids_BT[part], labels=labels_BT[part], fused_lm_head=True).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    for one, two in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.allclose(one, two.full_tensor(), atol=1e-5)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
