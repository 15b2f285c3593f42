"""`mr3 nano`: pretrain the nano base from nothing, on a CPU.

Method: next-token prediction on packed rows; Muon for the matrices of the blocks, AdamW for embeddings and norms,
linear decay, fp32. The budget is in steps, so a busy machine changes the time and not the model.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from mr3.artifacts import stage_run, write_json
from mr3.config import StageConfig
from mr3.stage import stage_main

log = logging.getLogger("mr3.nano")


class PretrainConfig(StageConfig):
    """The size of the base and of its training."""

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    intermediate_size: int = 384
    steps: int = Field(6_000, description="optimizer steps")
    batch_rows: int = 8
    row_tokens: int = 320
    muon_lr: float = 0.02
    adam_lr: float = 4e-3
    threads: int = 1
    save_every: int = Field(500, description="steps between resumable checkpoints")


def _rows(seed: int, tokenizer: object, length: int) -> Iterator[list[int]]:
    """Documents joined by the end token and cut into rows of `length` + 1 ids."""
    from mr3.nano.text import TextWorld

    end = tokenizer.pad_token_id  # type: ignore[attr-defined]
    buffer: list[int] = []
    for document in TextWorld(seed).documents():
        buffer += [*tokenizer.encode(document, add_special_tokens=False), end]  # type: ignore[attr-defined]
        while len(buffer) > length:
            yield buffer[: length + 1]
            buffer = buffer[length:]


def run(config: PretrainConfig) -> None:
    """Train, log, save a Hugging Face folder in `output_dir/model`."""
    with stage_run("nano", config) as stage:
        if stage.finished:
            log.info("%s is finished: nothing to do", stage.folder)
            return
        _train(config, stage.folder, stage.metrics)


def _train(config: PretrainConfig, folder: Path, metrics: dict[str, object]) -> None:
    import torch
    from torch.nn import functional
    from transformers import Qwen3Config, Qwen3ForCausalLM, set_seed

    from mr3.nano.muon import Muon
    from mr3.nano.tokenizer import CONTEXT, train_tokenizer

    torch.set_num_threads(config.threads)
    set_seed(config.seed)
    tokenizer = train_tokenizer(config.seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_value_heads,
            head_dim=config.hidden_size // config.heads,
            max_position_embeddings=CONTEXT,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=config.muon_lr),
        torch.optim.AdamW(others, lr=config.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    rows = _rows(config.seed + 1, tokenizer, config.row_tokens)
    history: list[dict[str, float]] = []
    state_file = folder / "state.pt"
    first = 0
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first, history = int(state["step"]), list(state["history"])
        for _ in range(first * config.batch_rows):
            next(rows)
        log.info("resumed at step %d", first)
    clock, total = time.monotonic(), 0.0
    for step in range(first, config.steps):
        scale = min(1.0, (step + 1) / 100) * (1 - step / config.steps)
        for optimizer, rate in zip(optimizers, (config.muon_lr, config.adam_lr), strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
        batch = torch.tensor([next(rows) for _ in range(config.batch_rows)])
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        total += float(loss.detach())
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - clock
            rate = 50 * config.batch_rows * config.row_tokens / seconds
            history.append({"step": step + 1, "loss": round(total / 50, 4), "tokens_per_s": round(rate)})
            log.info("step %d/%d loss %.4f, %.0f tokens/s", step + 1, config.steps, total / 50, rate)
            clock, total = time.monotonic(), 0.0
        if (step + 1) % config.save_every == 0:
            saved_state = {
                "model": model.state_dict(),
                "optimizers": [o.state_dict() for o in optimizers],
                "step": step + 1,
                "history": history,
            }
            torch.save(saved_state, state_file.with_suffix(".tmp"))
            state_file.with_suffix(".tmp").replace(state_file)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_json(folder / "model" / "pretraining.json", {"config": json.loads(config.model_dump_json()), "log": history})
    metrics.update(
        steps=config.steps,
        tokens=config.steps * config.batch_rows * config.row_tokens,
        parameters=sum(p.numel() for p in model.parameters()),
        final_loss=history[-1]["loss"] if history else None,
        vocabulary=len(tokenizer),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 nano --config configs/nano/pretrain.yaml`."""
    return stage_main("nano", PretrainConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
