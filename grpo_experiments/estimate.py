"""What a GRPO run will need, from a model's numbers: memory per GPU, time of a step by part. Pure arithmetic.

Formulas (they are printed with the result; training's are those of mr3/sft/estimate.py)
- generation, prefill: 2 FLOPs per prompt token and parameter that multiplies, each prompt once (its samples share it).
- generation, decoding: bound by memory. A step of all sequences of an engine reads the weights (2 bytes each, over its
  GPUs) and every sequence's keys and values (4 bytes per layer and key-value width: two of 2 bytes, for prompt and half
  the completion). Steps = mean completion tokens; the longest sample of a batch makes that an underestimate.
- passes without gradient: 2 FLOPs per token and parameter for old log-probabilities (with vLLM, or where a generation
  serves several steps), the reference (beta > 0, 2 bytes per parameter more), each of label_probs, blank_probs and
  reader_probs (a prompt and a completion), rubric_gain (two of them).
- training: 6 FLOPs per token and parameter over prompt and completion of every sample (TRL packs no groups, so a prompt
  goes through the model with each of its samples), and attention.
- memory: states, gathered layers and activations as in SFT; with vLLM in the same GPUs its share of the memory on top,
  which sleep mode gives back while the model trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mr3.sft.estimate import GIB, Memory, Shape, flops, memory

_KV_BYTES = 4


@dataclass(frozen=True)
class Plan:
    """One generation and what is done with it, in all processes.

    Args:
        prompts: token counts of the prompts of one generation.
        samples: per prompt.
        completion: mean tokens of a completion, of at most `longest`.
        steps: optimizer steps that one generation serves; `iterations`: how often each sample is trained on.
        passes: forward passes without gradient over prompt and completion of every sample.
        in_place: share of a GPU's memory that an engine in the training GPUs holds (None: elsewhere or none).
        sleeps: that engine gives its memory back while the model trains.
    """

    prompts: Sequence[int]
    samples: int
    completion: float
    longest: int
    steps: float
    iterations: int
    passes: int
    gpus: int
    engine_gpus: int
    in_place: float | None = None
    sleeps: bool = False


@dataclass(frozen=True)
class Seconds:
    """Of one generation with its optimizer steps."""

    generation: float
    measuring: float
    training: float

    @property
    def total(self) -> float:
        """One after the other, as TRL does them."""
        return self.generation + self.measuring + self.training


def seconds(shape: Shape, plan: Plan, peak_tflops: float, mfu: float, bandwidth_gbs: float) -> Seconds:
    """Time of one generation, on GPUs of that peak (dense bf16, TFLOP/s) and memory bandwidth (GB/s)."""
    rate = peak_tflops * 1e12 * mfu
    prefill = 2.0 * shape.multiplied * sum(plan.prompts) / (plan.engine_gpus * rate)
    held = (
        sum(p + plan.completion / 2 for p in plan.prompts) * plan.samples * shape.layers * shape.key_value * _KV_BYTES
    )
    read = 2.0 * shape.parameters + held / plan.engine_gpus
    decode = plan.completion * read / (bandwidth_gbs * 1e9)
    lengths = [round(p + plan.completion) for p in plan.prompts] * plan.samples
    whole = flops(shape, lengths)
    return Seconds(
        generation=prefill + decode,
        measuring=plan.passes * whole / 3 / (plan.gpus * rate),
        training=plan.iterations * whole / (plan.gpus * rate),
    )


def memory_of(
    shape: Shape, trained: int, plan: Plan, per_pass: int, checkpointing: bool, frozen: int, gpu_gib: float
) -> tuple[Memory, int, int]:
    """Bytes per GPU for training, for frozen models beside it, and for the engine meanwhile.

    Args:
        per_pass: tokens of one forward pass on one GPU.
        frozen: whole models beside the trained one (a reference is cut over the GPUs, a reader is not).
    """
    states = memory(shape, trained, plan.gpus, per_pass, checkpointing)
    engine = 0 if plan.in_place is None or plan.sleeps else round(plan.in_place * gpu_gib * GIB)
    return states, frozen * 2 * shape.parameters, engine
