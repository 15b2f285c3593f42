"""The order of prompts: whole bundles in one generation batch, each prompt as often as it has samples.

TRL's `RepeatSampler` shuffles prompts one by one, so twins would meet by chance. Here bundles are shuffled and packed:
a generation batch is filled with whole bundles (the next one that fits goes in), and one that can't be filled is left
out, as TRL leaves out the last. accelerate gives process p of P the p-th part of a generation batch, so a bundle may be
split between processes; rewards are computed on gathered samples.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence


def _fills(waiting: Mapping[int, Sequence[int]], gap: int, taken: int = 0) -> bool:
    """Whether bundles that wait (lengths -> which ones), one of length `taken` less, can fill a gap exactly."""
    reachable = 1  # bit n: n rows can be had
    for length, line in waiting.items():
        left, step = len(line) - (length == taken), 1
        while left > 0:
            step = min(step, left)
            reachable |= reachable << (length * step)
            left, step = left - step, 2 * step
    return bool(reachable >> gap & 1)


def packed(bundles: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Rows in batches of exactly `size`, bundles whole; the next one goes in after which a batch can still be filled.

    Raises:
        ValueError: for a bundle that is larger than a batch, or where no batch can be filled.
    """
    largest = max((len(b) for b in bundles), default=0)
    if largest > size:
        raise ValueError(
            f"{largest} prompts belong together (twins, orders), and a generation batch holds {size}: raise "
            "trl.per_device_train_batch_size or gradient_accumulation_steps, or lower trl.num_generations"
        )
    waiting: dict[int, deque[int]] = {}
    for number, bundle in enumerate(bundles):
        waiting.setdefault(len(bundle), deque()).append(number)
    batches: list[list[int]] = []
    while _fills(waiting, size):
        batch: list[int] = []
        while gap := size - len(batch):
            fitting = [n for n, line in waiting.items() if line and n <= gap and _fills(waiting, gap - n, taken=n)]
            batch += bundles[waiting[min(fitting, key=lambda n: waiting[n][0])].popleft()]
        batches.append(batch)
    if not batches:
        lengths = ", ".join(map(str, sorted(waiting))) or "no"
        raise ValueError(
            f"no generation batch of {size} prompts can be filled with whole bundles of {lengths} prompts: give more "
            "tasks, or a batch that they divide"
        )
    return batches


def covering(bundles: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """As `packed`, but every bundle is in a batch: one of each length comes again until the last is full.

    Raises:
        ValueError: as `packed`, or where no number of repetitions fills the last batch.
    """
    wanted = {row for bundle in bundles for row in bundle}
    kinds = list({len(bundle): bundle for bundle in reversed(bundles)}.values())
    for again in range(2 * size * len(kinds) + 1):
        more = [kinds[i % len(kinds)] for i in range(again)]
        if sum(map(len, bundles)) + sum(map(len, more)) < size:
            continue
        batches = packed([*bundles, *more], size)
        if wanted <= {row for batch in batches for row in batch}:
            return batches
    raise ValueError(
        f"the held-out tasks can't be evaluated in whole batches of {size} prompts: set "
        "trl.per_device_eval_batch_size so that a batch holds a multiple of the largest bundle"
    )


class BundleSampler:
    """Row numbers for TRL's dataloader: every generation batch `repeats` times, each row of it `samples` times over.

    The order of an epoch depends on the seed and the epoch alone, so a resumed run goes on with the same rows.

    Args:
        bundles: row numbers that belong together.
        prompts: in one generation batch of all processes.
    """

    def __init__(
        self,
        bundles: Sequence[Sequence[int]],
        prompts: int,
        samples: int,
        repeats: int = 1,
        seed: int = 0,
        evaluation: bool = False,
    ) -> None:
        self.bundles, self.prompts, self.samples, self.repeats = bundles, prompts, samples, repeats
        self.seed, self.evaluation, self.epoch = seed, evaluation, 0
        self._batches = len(self._packed())

    def _packed(self) -> list[list[int]]:
        if self.evaluation:
            return covering(self.bundles, self.prompts)
        order = list(self.bundles)
        random.Random(f"{self.seed}-{self.epoch}").shuffle(order)
        return packed(order, self.prompts)

    def begin_epoch(self, epoch: int) -> None:
        """To be called before an epoch is iterated over (accelerate 1.15 reaches no sampler in several processes)."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Row numbers of one epoch."""
        # How many batches can be filled may depend on the order where bundles differ in size; the length may not.
        batches = self._packed()
        batches = (batches * (self._batches // len(batches) + 1))[: self._batches]
        for batch in batches:
            for _ in range(self.repeats):
                for row in batch:
                    yield from [row] * self.samples

    def __len__(self) -> int:
        return self._batches * self.prompts * self.samples * self.repeats
