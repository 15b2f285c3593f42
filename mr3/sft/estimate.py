"""What a training run will need, from a model's numbers: memory per GPU, FLOPs, time. Pure arithmetic.

Formulas (they are printed with the result)
- states: fp32 weights, gradients and two Adam moments, 4 bytes each, for every trained parameter (bf16 mixed precision:
  FSDP2 keeps fp32 weights and casts); 2 bytes for a frozen one; all cut in as many pieces as there are GPUs.
- gathered: FSDP holds two layers (this one and the next) and embeddings and head whole in bf16.
- activations, bf16, per token of one forward pass on one GPU: with checkpointing one hidden state per layer and one
  layer in full, without it all layers in full. A Qwen3 layer in full: 6 hidden, 4 query, 6 key-value, 4 MLP widths
  (norms, projections, rotated and normalised copies, gate, up, their product; no attention matrix).
- head: TRL's fused head works in tiles of 32,768 logits or more; it is left out.
- FLOPs: 6 per token and parameter that multiplies (all but the input embedding), and for attention 6 x layers x query
  width x tokens seen on average (half a row's length). Recomputing for checkpointing is not counted: MFU is of the
  model's own FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """A model's numbers. `parameters`: all; `embedding`: of the input embedding; `tied`: it is the head as well."""

    parameters: int
    embedding: int
    tied: bool
    layers: int
    hidden: int
    query: int
    key_value: int
    mlp: int

    @property
    def multiplied(self) -> int:
        """Parameters in a matrix product for every token."""
        return self.parameters if self.tied else self.parameters - self.embedding

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        outer = self.embedding * (1 if self.tied else 2)
        return (self.parameters - outer) // self.layers


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


def memory(shape: Shape, trained: int, gpus: int, tokens: int, checkpointing: bool) -> Memory:
    """Bytes per GPU; `trained` parameters of `shape.parameters`, `tokens` in one forward pass."""
    frozen = shape.parameters - trained if trained < shape.parameters else 0
    full = 2 * (6 * shape.hidden + 4 * shape.query + 6 * shape.key_value + 4 * shape.mlp)
    kept = shape.layers * 2 * shape.hidden + full if checkpointing else shape.layers * full
    outer = shape.embedding * (1 if shape.tied else 2)
    return Memory(
        weights=(4 * trained + 2 * frozen) // gpus,
        gradients=4 * trained // gpus,
        optimizer=8 * trained // gpus,
        gathered=2 * (2 * shape.layer + outer) if gpus > 1 else 0,
        activations=tokens * kept,
    )


def flops(shape: Shape, lengths: Sequence[int]) -> float:
    """Forward and backward over rows of these lengths, each attending to itself only."""
    tokens = sum(lengths)
    attention = 6 * shape.layers * shape.query * sum(n * n for n in lengths)
    return 6.0 * shape.multiplied * tokens + attention


def hours(total_flops: float, gpus: int, peak_tflops: float, mfu: float) -> float:
    """Wall time at that utilisation."""
    return total_flops / (gpus * peak_tflops * 1e12 * mfu) / 3600
