"""`mr3 nano`: pretrain the nano base from nothing, on a CPU.

Method: next-token prediction on packed rows; Muon for the matrices of the blocks, AdamW for embeddings and norms,
fp32. Later phases have texts whose statements follow a list at their head (copying in an order that is given) and
chats, as any base has read them. The budget is in steps, so a busy machine changes the time and not the model.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mr3.artifacts import stage_run, write_json
from mr3.config import StageConfig
from mr3.stage import stage_main

log = logging.getLogger("mr3.nano")
_LOG_EVERY = 50


class Phase(BaseModel):
    """A stretch of training with its own text, optimizers and linear decay."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(ge=1, description="optimizer steps")
    listed: float = Field(0.0, ge=0, le=1, description="share of texts with statements that begin with their list")
    chat: float = Field(0.0, ge=0, le=1, description="share of dialogues and texts with statements put as a chat")
    rate: float = Field(1.0, gt=0, description="multiplies both learning rates")


class PretrainConfig(StageConfig):
    """The size of the base and of its training."""

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    intermediate_size: int = 384
    phases: list[Phase] = Field(min_length=1)
    batch_rows: int = 8
    row_tokens: int = 320
    muon_lr: float = 0.02
    adam_lr: float = 4e-3
    warmup_steps: int = 100
    threads: int = 1
    save_every: int = Field(500, description="steps between resumable checkpoints")


def _rows(seed: int, phase: Phase, tokenizer: Any, length: int) -> Iterator[list[int]]:
    """Documents joined by the end token and cut into rows of `length` + 1 ids."""
    from mr3.nano.text import TextWorld

    buffer: list[int] = []
    for document in TextWorld(seed, phase.listed, phase.chat).documents():
        buffer += [*tokenizer.encode(document, add_special_tokens=False), tokenizer.pad_token_id]
        while len(buffer) > length:
            yield buffer[: length + 1]
            buffer = buffer[length:]


def new_model(config: PretrainConfig, tokenizer: Any) -> Any:
    """An untrained Qwen3 of the configured size."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from mr3.nano.tokenizer import CONTEXT

    return Qwen3ForCausalLM(
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


def _optimizers(model: Any, config: PretrainConfig, rate: float) -> list[Any]:
    """Muon for the blocks' matrices, AdamW for the rest."""
    import torch

    from mr3.muon import Muon, is_block_matrix

    matrices = [p for n, p in model.named_parameters() if is_block_matrix(n, p)]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    found = [
        Muon(matrices, lr=config.muon_lr * rate),
        torch.optim.AdamW(others, lr=config.adam_lr * rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in found:
        optimizer.param_groups[0]["peak"] = optimizer.param_groups[0]["lr"]
    return found


class _Pretraining:
    """The state of a run: model, phase, step and log; kept in one file between interruptions."""

    def __init__(self, config: PretrainConfig, folder: Path) -> None:
        import torch
        from transformers import set_seed

        from mr3.nano.tokenizer import train_tokenizer

        torch.set_num_threads(config.threads)
        set_seed(config.seed)
        self.config, self.file = config, folder / "state.pt"
        self.tokenizer = train_tokenizer(config.seed)
        self.model = new_model(config, self.tokenizer)
        self.history: list[dict[str, float]] = []
        self.phase, self.step = 0, 0
        self.saved: list[Any] | None = None
        if self.file.is_file():
            state = torch.load(self.file, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.phase, self.step, self.history = state["phase"], state["step"], list(state["history"])
            self.saved = state["optimizers"]
            log.info("resumed in phase %d at step %d", self.phase + 1, self.step)

    def run(self) -> None:
        """All phases that are left."""
        while self.phase < len(self.config.phases):
            self._run_phase(self.config.phases[self.phase])
            self.phase, self.step, self.saved = self.phase + 1, 0, None

    def _run_phase(self, phase: Phase) -> None:
        import torch

        config = self.config
        optimizers = _optimizers(self.model, config, phase.rate)
        for optimizer, saved in zip(optimizers, self.saved or [], strict=False):
            optimizer.load_state_dict(saved)
        rows = _rows(config.seed + 1 + self.phase, phase, self.tokenizer, config.row_tokens)
        for _ in range(self.step * config.batch_rows):
            next(rows)
        clock, total = time.monotonic(), 0.0
        while self.step < phase.steps:
            scale = min(1.0, (self.step + 1) / config.warmup_steps) * (1 - self.step / phase.steps)
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["peak"] * scale
            total += self._update(optimizers, torch.tensor([next(rows) for _ in range(config.batch_rows)]))
            self.step += 1
            if self.step % _LOG_EVERY == 0:
                self._say(phase, total / _LOG_EVERY, time.monotonic() - clock)
                clock, total = time.monotonic(), 0.0
            if self.step % config.save_every == 0:
                self._save(optimizers)

    def _update(self, optimizers: list[Any], batch_BT: Any) -> float:
        """One step on rows of T + 1 ids; returns the loss."""
        import torch
        from torch.nn import functional

        logits_BTV = self.model(input_ids=batch_BT[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(logits_BTV.flatten(0, 1), batch_BT[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _say(self, phase: Phase, loss: float, seconds: float) -> None:
        rate = _LOG_EVERY * self.config.batch_rows * self.config.row_tokens / seconds
        done = {"phase": self.phase + 1, "step": self.step, "loss": round(loss, 4), "tokens_per_s": round(rate)}
        self.history.append(done)
        log.info("phase %d step %d/%d loss %.4f, %.0f tokens/s", self.phase + 1, self.step, phase.steps, loss, rate)

    def _save(self, optimizers: list[Any]) -> None:
        import torch

        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in optimizers],
            "phase": self.phase,
            "step": self.step,
            "history": self.history,
        }
        torch.save(state, self.file.with_suffix(".tmp"))
        self.file.with_suffix(".tmp").replace(self.file)


def run(config: PretrainConfig) -> None:
    """Train, log, save a Hugging Face folder in `output_dir/model`."""
    with stage_run("nano", config) as stage:
        if stage.finished:
            return
        training = _Pretraining(config, stage.folder)
        training.run()
        folder = stage.folder / "model"
        training.model.save_pretrained(folder)
        training.tokenizer.save_pretrained(folder)
        record = {"config": json.loads(config.model_dump_json()), "log": training.history}
        write_json(folder / "pretraining.json", {**record, "command": "mr3 nano --config configs/nano/pretrain.yaml"})
        steps = sum(phase.steps for phase in config.phases)
        stage.metrics.update(
            steps=steps,
            tokens=steps * config.batch_rows * config.row_tokens,
            parameters=sum(p.numel() for p in training.model.parameters()),
            final_loss=training.history[-1]["loss"] if training.history else None,
            vocabulary=len(training.tokenizer),
        )


def main(argv: Sequence[str] | None = None) -> int:
    """`mr3 nano --config configs/nano/pretrain.yaml`."""
    return stage_main("nano", PretrainConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
