"""TRL's GRPOTrainer with whole bundles: twins side by side, rewards of gathered groups, a common baseline, re-sampling.

What is added to TRL 1.16 and where:
- `_get_train_sampler`, `_get_eval_sampler`: bundles stay in one generation batch (`sampler.BundleSampler`).
- `_calculate_rewards`: completions are measured where they are, gathered, and scored bundle by bundle, each by one
  process. TRL gets one reward per completion, None as NaN.
- `_generate_and_score_completions`: advantages over bundles, where the config asks for them; prompts without a gradient
  are replaced (TRL has no dynamic sampling); the log is written; KL to the start at evaluations.
Rewards, advantages and history are the same in every process, so each takes the same decisions.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback

from grpo_experiments.composite import EPSILON
from grpo_experiments.composite import advantages as advantages_of
from grpo_experiments.resampling import draw, matched, merged, sort_out
from grpo_experiments.reward_log import History, RewardLog, as_dict, mean, step_of
from grpo_experiments.sampler import BundleSampler
from grpo_experiments.scoring import Completion, Marked, Scorer
from grpo_experiments.shared_prompts import SharedPromptTrainer
from grpo_experiments.watching import StopsAtOnce


@dataclass
class Batch:
    """One scored generation. `completions` and `advantages` are of this process, all else of all, in TRL's order."""

    completions: list[Completion]
    rows: list[int]
    marks: list[Marked]
    bundles: list[list[list[int]]]
    """Places by bundle, then by group."""
    sets: list[list[list[int]]]
    """Places by set of one baseline, then by group."""
    prompt_tokens: int
    repeated_prompt_tokens: int
    sampled_tokens: int
    advantages: list[float]
    """Of this process."""


class BundleTrainer(StopsAtOnce, SharedPromptTrainer):
    """See the module. Rows of both data sets have `prompt` and `row`, a number that the scorer and bundles know.

    Args:
        scorer: gives the rewards.
        bundles, held_out_bundles: row numbers that belong together, as they stand in the data sets.
        by_bundle: one baseline for a bundle, else for a prompt.
        reward_only: row numbers that are sampled and scored, and get no gradient.
        resample: rounds in which sets without a gradient are replaced.
        start: opens the model that the run began with (KL to the start at evaluations), or None.
    """

    def __init__(
        self,
        *args: Any,
        scorer: Scorer,
        bundles: Sequence[Sequence[int]],
        held_out_bundles: Sequence[Sequence[int]] = (),
        by_bundle: bool = False,
        reward_only: frozenset[int] = frozenset(),
        resample: int = 0,
        reward_log: RewardLog,
        history: History,
        start: Any = None,
        **kwargs: Any,
    ) -> None:
        self.scorer, self.bundles, self.held_out_bundles = scorer, bundles, held_out_bundles
        self.by_bundle, self.resample, self._reward_only = by_bundle, resample, reward_only
        self.reward_log, self.history, self._start = reward_log, history, start
        self._bundle_of = {row: n for n, bundle in enumerate([*bundles, *held_out_bundles]) for row in bundle}
        self._batch: Batch | None = None
        self._sampler: Any = None
        self._cpu: dict[str, float] = {}
        self._cpu_told: dict[str, float] = {}
        self._cpu_begin = 0.0
        self._evaluated: dict[int, list[tuple[float | None, float | None]]] = {}
        self._generation = (-1, 0)
        """Step, and how many generations of it there were before this one."""
        self._eval_part, self._kl = 0, [0.0, 0.0]
        super().__init__(*args, reward_funcs=[_not_called], **kwargs)
        self.reward_func_names = ["reward"]
        self.add_callback(_Keeper(self))

    # --- order ---

    def _sampler_of(self, bundles: Sequence[Sequence[int]], first: int, rows: int, samples: int, **more: Any) -> Any:
        if rows % samples:
            raise ValueError(
                f"a batch of {rows} completions holds no whole groups of {samples}: set trl.per_device_eval_batch_size "
                "to a multiple of held_out_samples"
            )
        places = [[row - first for row in bundle] for bundle in bundles]
        return BundleSampler(places, rows // samples, samples, seed=self.args.seed, **more)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self._sampler = self._sampler_of(
            self.bundles, 0, self.args.generation_batch_size, self.num_generations,
            repeats=self.num_iterations * self.args.steps_per_generation,
        )  # fmt: skip
        return self._sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        rows = self.args.per_device_eval_batch_size * self.accelerator.num_processes
        first = min(row for bundle in self.held_out_bundles for row in bundle)
        return self._sampler_of(self.held_out_bundles, first, rows, self.num_generations_eval, evaluation=True)

    # --- cost ---

    @contextmanager
    def _clock(self, part: str) -> Iterator[None]:
        """CPU seconds of this process by part; a part inside another is taken out of it."""
        begin, before = time.process_time(), sum(self._cpu.values())
        try:
            yield
        finally:
            inside = sum(self._cpu.values()) - before
            self._cpu[part] = self._cpu.get(part, 0.0) + time.process_time() - begin - inside

    def tell_cost(self, between: bool = False) -> None:
        """Add the CPU seconds of all processes since the last call to the newest step; every process calls it.

        Args:
            between: no part is going on, so what no part holds can be told too, as `other` (the optimizer's step,
                checkpoints, the data loader).
        """
        if between:
            elapsed = time.process_time() - self._cpu_begin
            self._cpu["other"] = elapsed - sum(s for part, s in self._cpu.items() if part != "other")
        spent = {part: total - self._cpu_told.get(part, 0.0) for part, total in self._cpu.items()}
        self._cpu_told = dict(self._cpu)
        everywhere = gather_object([spent])
        if self.history.steps:
            cost = self.history.steps[-1]["cpu_s"]
            for part in {p for told in everywhere for p in told}:
                cost[part] = round(cost.get(part, 0.0) + sum(told.get(part, 0.0) for told in everywhere), 4)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """As TRL's."""
        with self._clock("training"):
            return super().training_step(*args, **kwargs)

    def _generate(self, prompts: list[Any]) -> Any:
        with self._clock("generation"):
            found = super()._generate(prompts)
        self._prompt_lengths = [len(ids) for ids in found[0]]
        return found

    # --- rewards ---

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        with self._clock("rewards"):
            batch = self._scored(inputs, completions, completion_ids_list)
        self._batch = batch
        mode = "train" if self.model.training else "eval"
        self._tell(mode, batch)
        values = [torch.nan if m.compared is None else m.compared for m in batch.marks]
        return torch.tensor(values, dtype=torch.float32, device=self.accelerator.device)[:, None]

    def _scored(self, inputs: Any, completions: Any, ids_list: Sequence[Sequence[int]]) -> Batch:
        ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        own = [
            Completion(x["row"], _text(c), ids, "stop" if ids and ids[-1] in ends else "length")
            for x, c, ids in zip(inputs, completions, ids_list, strict=True)
        ]
        measured = self._together(lambda: self.scorer.measure(own))
        about = zip(own, measured, self._prompt_lengths, strict=True)
        everything = gather_object([(c.row, m, len(c.ids), p) for c, m, p in about])
        rows = [row for row, *_ in everything]
        size = self.num_generations if self.model.training else self.num_generations_eval
        bundles = self._bundles_of([list(range(i, i + size)) for i in range(0, len(rows), size)], rows)
        mine = bundles[self.accelerator.process_index :: self.accelerator.num_processes]
        asked = [[(rows[group[0]], [everything[i][1] for i in group]) for group in bundle] for bundle in mine]
        scored = self._together(lambda: self.wait(self.scorer.score(asked)))
        found: dict[int, Marked] = {}
        for bundle, answer in zip(mine, scored, strict=True):
            for group, marks in zip(bundle, answer, strict=True):
                found.update(zip(group, marks, strict=True))
        found = dict(gather_object(list(found.items())))
        marks = [found[i] for i in range(len(rows))]
        sets = bundles if self.by_bundle else [[group] for bundle in bundles for group in bundle]
        return Batch(
            completions=own,
            rows=rows,
            marks=marks,
            bundles=bundles,
            sets=sets,
            prompt_tokens=sum(p for i, (_, _, _, p) in enumerate(everything) if i % size == 0),
            repeated_prompt_tokens=sum(p for *_, p in everything),
            sampled_tokens=sum(n for _, _, n, _ in everything),
            advantages=[],
        )

    def _bundles_of(self, groups: list[list[int]], rows: Sequence[int]) -> list[list[list[int]]]:
        """Groups of places by bundle. An evaluation may fill its last batch with a bundle that is in it already."""
        found: list[tuple[int, dict[int, list[int]]]] = []
        for group in groups:
            row = rows[group[0]]
            assert all(rows[i] == row for i in group), "a group is of one prompt"
            number = self._bundle_of[row]
            for known, members in found:
                if known == number and row not in members:
                    members[row] = group
                    break
            else:
                found.append((number, {row: group}))
        return [list(members.values()) for _, members in found]

    def wait(self, work: Any) -> Any:
        """The result of a coroutine, on the loop that TRL keeps for async rewards: what is opened there stays open."""
        return asyncio.run_coroutine_threadsafe(work, self.async_loop).result()

    def _together(self, work: Any) -> Any:
        """The result of work that may fail in one process: then all raise, and none waits for ever in a collective."""
        answer, error = None, None
        try:
            answer = work()
        except ValueError as caught:
            error = str(caught)
        errors = [e for e in gather_object([error]) if e is not None]
        if errors:
            raise ValueError(errors[0])
        return answer

    def _tell(self, mode: str, batch: Batch) -> None:
        """Truth and terms beside TRL's own metrics."""
        marks = [[[batch.marks[i] for i in group] for group in together] for together in batch.sets]
        step = step_of(self.state.global_step, marks, self.scorer.terms)
        known = {"truth": step.truth, "pairs_right": step.pairs}
        known |= {"truth/shortcut_right": step.truth_shortcut_right, "truth/shortcut_wrong": step.truth_shortcut_wrong}
        known |= {f"terms/{name}/mean": value for name, (value, _) in step.terms.items()}
        known |= {f"terms/{name}/none": none for name, (_, none) in step.terms.items()}
        known |= {"unmeasured": step.unmeasured / step.samples, "failed": step.failed / step.samples}
        known["flat_sets"] = step.flat / step.sets
        for name, value in known.items():
            if value is not None:
                self._metrics[mode][name].append(float(value))

    # --- generation batches ---

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = self._one_generation(inputs)
        batch = self._batch
        assert batch is not None, "a generation was scored"
        if not self.model.training:
            self._keep_evaluation(batch, output)
            return output
        step, before = self._generation
        self._generation = (self.state.global_step, before + 1 if step == self.state.global_step else 0)
        batches, replaced = [batch], 0
        if self.resample:
            rewards = [m.compared for m in batch.marks]
            used = set(batch.rows)
            for attempt in range(self.resample):
                more = self._replace(output, batch.bundles, rewards, used, attempt)
                if more is None:
                    break
                output, fresh, count = more
                batches.append(fresh)
                replaced += count
        if replaced:
            # TRL's losses divide by the tokens of the generation batch: of the one that is trained on.
            output["num_items_in_batch"] = self.accelerator.gather(output["completion_mask"].sum()).sum()
        self._write(batches)
        self._remember(batches, output, replaced)
        return output

    def _one_generation(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        batch = self._batch
        assert batch is not None, "a generation was scored"
        if any(m.normalised is not None for m in batch.marks):
            # TRL has logged the mean of what it was given to compare; the curve is to show the reward.
            self._metrics["train" if self.model.training else "eval"]["reward"][-1] = mean(
                [m.reward for m in batch.marks]
            )
        if self.by_bundle:
            own = self._own(self._advantages(batch), len(inputs))
            output["advantages"] = torch.tensor(own, dtype=torch.float32, device=self.accelerator.device)
        if self._reward_only:
            trained = [float(completion.row not in self._reward_only) for completion in batch.completions]
            output["advantages"] = output["advantages"] * torch.tensor(trained, device=output["advantages"].device)
        batch.advantages = output["advantages"].tolist()
        return output

    def _advantages(self, batch: Batch) -> list[float]:
        """Over bundles, as TRL has them over groups: by the deviation of the bundle, of the batch, or as they are."""
        found = [0.0] * len(batch.marks)
        rewards = [value for m in batch.marks if (value := m.compared) is not None]
        divisor = 1.0
        if self.scale_rewards == "batch" and len(rewards) > 1:
            divisor = float(torch.tensor(rewards).std()) + EPSILON
        for together in batch.sets:
            places = [i for group in together for i in group]
            values = advantages_of([batch.marks[i].compared for i in places], self.scale_rewards in ("group", True))
            for place, value in zip(places, values, strict=True):
                found[place] = value / divisor
        return found

    def _own(self, values: Sequence[Any], count: int) -> Sequence[Any]:
        begin = self.accelerator.process_index * count
        return values[begin : begin + count]

    def _replace(
        self, output: dict[str, Any], bundles: Any, rewards: list[float | None], used: set[int], attempt: int
    ) -> tuple[dict[str, Any], Batch, int] | None:
        """One round of re-sampling: the batch with what was replaced in it, what was sampled, and how many bundles.

        `rewards` and `used` are brought up to date. Every process asks for as many as the one that lacks most, because
        what is gathered must have one shape; they are drawn by seed, step and round, so a resumed run draws the same.
        """
        process, count = self.accelerator.process_index, len(output["completion_ids"])
        begin = process * count
        _, flat = sort_out(bundles, rewards, self.by_bundle, range(begin, begin + count))
        samples = self.num_generations
        counts = Counter(len(places) // samples for places in flat)
        everywhere = gather_object([dict(counts)])
        wanted = {size: max(c.get(size, 0) for c in everywhere) for size in {s for c in everywhere for s in c}}
        if not wanted:
            return None
        seed = f"{self.args.seed}-{self._generation}-{attempt}"
        drawn = draw(self.bundles, used, wanted, self.accelerator.num_processes, seed)
        if drawn is None:
            return None
        rows = [row for bundle in drawn[process] for row in bundle for _ in range(samples)]
        other = self._one_generation([dict(self.train_dataset[row]) for row in rows])
        fresh = self._batch
        assert fresh is not None, "a generation was scored"
        first = process * len(rows)
        marks = [m.compared for m in fresh.marks]
        moving, _ = sort_out(fresh.bundles, marks, self.by_bundle, range(first, first + len(rows)))
        swaps = matched(flat, moving)
        local = [([i - begin for i in old], [i - first for i in new]) for old, new in swaps]
        for old, new in gather_object(swaps):
            for a, b in zip(old, new, strict=True):
                rewards[a] = marks[b]
        used |= set(fresh.rows)
        return merged(output, other, local, self._tokenizer.pad_token_id), fresh, len(gather_object(swaps))

    def _write(self, batches: Sequence[Batch]) -> None:
        step, before = self._generation
        for attempt, batch in enumerate(batches):
            own, part = self._own(batch.marks, len(batch.completions)), before * (self.resample + 1) + attempt
            self.reward_log.write("train", step, part, batch.completions, own, batch.advantages)

    def _remember(self, batches: Sequence[Batch], output: dict[str, Any], replaced: int) -> None:
        marks = [[[b.marks[i] for i in group] for group in together] for b in batches for together in b.sets]
        step = step_of(self.state.global_step, marks, self.scorer.terms)
        step.prompt_tokens = sum(b.prompt_tokens for b in batches)
        step.repeated_prompt_tokens = sum(b.repeated_prompt_tokens for b in batches)
        step.sampled_tokens = sum(b.sampled_tokens for b in batches)
        mask = output["completion_mask"]
        moving = mask.sum(dim=1)[output["advantages"] != 0].sum()
        local = [int(mask.sum()) * self.num_iterations, int(moving) * self.num_iterations]
        told = gather_object([local])
        step.gradient_tokens, step.moving_tokens = (sum(row[k] for row in told) for k in (0, 1))
        step.replaced = replaced
        self.history.steps.append(as_dict(step))
        self.tell_cost()
        seen = set(self.history.rows)
        self.history.rows += [row for row in dict.fromkeys(r for b in batches for r in b.rows) if row not in seen]

    # --- evaluation ---

    def _keep_evaluation(self, batch: Batch, output: dict[str, Any]) -> None:
        own, part = self._own(batch.marks, len(batch.completions)), self._eval_part
        self.reward_log.write("eval", self.state.global_step, part, batch.completions, own, batch.advantages)
        self._eval_part += 1
        for row, mark in zip(batch.rows, batch.marks, strict=True):
            self._evaluated.setdefault(row, []).append((mark.reward, mark.truth))
        if self._start is not None:
            total, tokens = self._kl_of(output)
            self._kl[0] += total
            self._kl[1] += tokens

    def _kl_of(self, output: dict[str, Any]) -> tuple[float, float]:
        """Sum over tokens of Schulman's k3 estimate of KL(policy, start) on the policy's own samples, and tokens."""
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        keep, size = output["completion_ids"].size(1), self.args.per_device_eval_batch_size
        with torch.no_grad():
            now, _, _ = self._get_per_token_logps_and_entropies(self.model, ids, mask, keep, batch_size=size)
            with self._start.use(self) as start:
                then, _, _ = self._get_per_token_logps_and_entropies(start, ids, mask, keep, batch_size=size)
        gap = (then - now).float()
        kl = ((gap.exp() - gap - 1) * output["completion_mask"]).sum()
        told = gather_object([(float(kl), float(output["completion_mask"].sum()))])
        return sum(k for k, _ in told), sum(n for _, n in told)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As the Trainer's. What the history has of this step stands: a resumed run with `eval_on_start` would measure
        its checkpoint a second time, on other samples, and write over the first one's files."""
        if self.history.evaluations and self.history.evaluations[-1]["step"] == self.state.global_step:
            return {}
        found: dict[str, float] = super().evaluate(*args, **kwargs)
        return found

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """With the history, before the file by which a checkpoint counts as whole and before older ones are removed."""
        self.tell_cost(between=True)
        if self.accelerator.is_main_process:
            self.history.save(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
        super()._save_checkpoint(model, trial)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As TRL's; then one line of the history, which is there when callbacks hear of the evaluation."""
        self._evaluated, self._eval_part, self._kl = {}, 0, [0.0, 0.0]
        with self._clock("evaluation"), self._start.loaded(self) if self._start is not None else nullcontext():
            found = super().evaluation_loop(*args, **kwargs)
        told = {str(row): [mean([r for r, _ in x]), mean([t for _, t in x])] for row, x in self._evaluated.items()}
        self.history.evaluations.append(
            {
                "step": self.state.global_step,
                "reward": mean([reward for reward, _ in told.values()]),
                "truth": mean([truth for _, truth in told.values()]),
                "kl": self._kl[0] / self._kl[1] if self._kl[1] else None,
                "tasks": told,
            }
        )
        return found


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else cast("str", completion[-1]["content"])


async def _not_called(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
    """TRL wants a reward function, and keeps an event loop for an async one; `_calculate_rewards` takes its place."""
    raise AssertionError("rewards are calculated by the trainer")


class _Keeper(TrainerCallback):
    """Begins epochs of the sampler, and tells what was spent at the end."""

    def __init__(self, trainer: BundleTrainer) -> None:
        self._trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the data loader is iterated over; a resumed run is told the epoch that it is in."""
        self._trainer._sampler.begin_epoch(int((state.epoch or 0.0) + 1e-6))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What is left."""
        self._trainer.tell_cost(between=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Nothing is spent yet."""
        self._trainer._cpu_begin = time.process_time()
