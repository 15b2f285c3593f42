"""One GRPO run of a judge: tasks into prompts, the scorer with its models, the trainer, and what is left behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel
from requests.exceptions import RequestException
from transformers import TrainerCallback, set_seed
from trl import GRPOConfig
from trl.trainer.utils import add_fused_lm_head, pad, use_adapter

from grpo_experiments.config import GrpoConfig
from grpo_experiments.contract import Example, ServedTerm
from grpo_experiments.data import Tasks, read_tasks
from grpo_experiments.measures import LabelReader
from grpo_experiments.probes import open_probes
from grpo_experiments.reward_log import History, RewardLog
from grpo_experiments.scoring import JudgeScorer, ReaderPrompt
from grpo_experiments.trainer import BundleTrainer
from grpo_experiments.watching import Watch, try_probes
from mr3.compact_head import use_compact_head
from mr3.judge_card import JudgeCard, load_card
from mr3.parsing import format_named
from mr3.training import (
    PlainProgress,
    last_checkpoint,
    load_model,
    load_tokenizer,
    lora_config,
    quiet_trainer,
    require_sharding,
    save_trained,
    trl_config,
    use_threads,
)

log = logging.getLogger("mr3.grpo")
_EVAL_ROWS = 32


def card_of(config: GrpoConfig, model: str) -> JudgeCard:
    """The judge's card, with the user's copy of the published templates.

    Raises:
        ValueError: where the model is no judge, or a reward term can't be measured on answers of its format.
    """
    card = load_card(model)
    odds = ("label_probs", "blank_probs")
    asking = [name for name, term in config.composite().terms.items() if term.wanted() & {*odds}]
    if asking and not format_named(card.format).has_odds:
        raise ValueError(
            f"rewards.{asking[0]} reads the probabilities of scores at the place of the verdict, and answers of the "
            f"format {card.format} have no such place: leave it out (correctness, or rubric_use over: completion, "
            "need none)"
        )
    return card if config.templates_dir is None else card.model_copy(update={"templates_dir": config.templates_dir})


def arguments_of(config: GrpoConfig, card: JudgeCard, largest: int, folder: Path) -> GRPOConfig:
    """TRL's options: the `trl` block, and what cards, bundles and resuming ask for.

    Args:
        largest: prompts of the largest held-out bundle.

    Raises:
        ValueError: for an unknown option, or checkpoints that can't be resumed exactly.
    """
    options: dict[str, Any] = {"max_completion_length": card.max_output_tokens} | config.trl
    unit = config.held_out_samples * max(largest, 1)
    options.setdefault("per_device_eval_batch_size", unit * max(1, _EVAL_ROWS // unit))
    options["num_generations_eval"] = config.held_out_samples
    if options["max_completion_length"] > card.max_output_tokens:
        raise ValueError(
            f"trl.max_completion_length {options['max_completion_length']} is over the {card.max_output_tokens} output "
            "tokens of the judge's card: what it learns to write there would be cut off later"
        )
    arguments = trl_config(GRPOConfig, options, folder / "trainer", config.seed)
    steps = arguments.steps_per_generation * arguments.num_iterations
    if (
        arguments.save_strategy == "steps"
        and (int(arguments.save_steps) * arguments.gradient_accumulation_steps) % steps
    ):
        raise ValueError(
            f"trl.save_steps {arguments.save_steps} falls between generations (one serves "
            f"{steps // arguments.gradient_accumulation_steps or 1} steps), and samples are not in a checkpoint: "
            "make it a multiple"
        )
    return arguments


def tasks_of(config: GrpoConfig, card: JudgeCard, tokenizer: Any) -> tuple[Tasks, dict[int, str]]:
    """What is trained and evaluated on, and the prompt of every row: rows are numbered train first, then held out.

    Raises:
        ValueError: for tasks of a mode that the judge was not trained for.
    """
    from mr3.judging.chat import ChatPrompt

    render, chat = card.renderer(), ChatPrompt(tokenizer)

    def text(example: Example) -> str:
        return chat.text(render(example.task))

    def fits(example: Example) -> bool:
        if example.task.mode not in card.modes:
            raise ValueError(
                f"task {example.task.id!r} is {example.task.mode}, and this judge was trained for "
                f"{', '.join(card.modes)} only"
            )
        return len(chat.ids([text(example)])[0]) <= card.max_prompt_tokens

    tasks = read_tasks(
        config.tasks,
        config.held_out,
        max_tasks=config.max_tasks,
        held_out_tasks=config.held_out_tasks,
        both_orders=config.orders == "both",
        seed=config.seed,
        fits=fits,
    )
    rows = [example for bundle in (*tasks.train, *tasks.held_out) for example in bundle]
    # By row, as all that follows: an id may stand in both files.
    return tasks, {i: text(example) for i, example in enumerate(rows)}


def numbered(bundles: Sequence[Sequence[Example]], first: int) -> list[list[int]]:
    """The row numbers of bundles, from `first` on."""
    found = []
    for bundle in bundles:
        found.append(list(range(first, first + len(bundle))))
        first += len(bundle)
    return found


def _rows(numbers: Sequence[Sequence[int]], prompts: dict[int, str]) -> Dataset:
    return Dataset.from_list([{"prompt": prompts[row], "row": row} for bundle in numbers for row in bundle])


def sequence_logps(trainer: Any, tokenizer: Any, prompts: Sequence[str], ids: Sequence[Sequence[int]]) -> list[float]:
    """log p(completion | prompt) in nats, at the trainer's temperature, by the model in training.

    Of several processes each fills up to as many completions as the one with most: a sharded model wants as many passes
    in all of them.
    """
    count, fill = max(gather_object([len(ids)])), tokenizer.pad_token_id
    if count == 0:
        return []
    device = trainer.accelerator.device
    rows = tokenizer(list(prompts), add_special_tokens=False)["input_ids"] if prompts else []
    told = [torch.tensor(row) for row in (*rows, *[[fill]] * (count - len(rows)))]
    said = [torch.tensor(list(row)) for row in (*ids, *[[fill]] * (count - len(ids)))]
    both = torch.cat([pad(told, fill, padding_side="left"), pad(said, fill)], dim=1).to(device)
    masks = [
        pad([torch.ones_like(r) for r in rows], 0, padding_side=side)
        for rows, side in ((told, "left"), (said, "right"))
    ]
    mask = torch.cat(masks, dim=1).to(device)
    keep, size = masks[1].size(1), trainer.args.per_device_train_batch_size
    with torch.no_grad():
        logps, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, both, mask, keep, batch_size=size)
    total: list[float] = (logps * masks[1].to(device)).sum(dim=1).tolist()
    return total[: len(ids)]


def frozen(path: str, dtype: str, attention: str | None, device: Any) -> Any:
    """A model that is not trained, on a device."""
    model = load_model(path, dtype=dtype, attention=attention).to(device).eval()  # type: ignore[arg-type]
    model.requires_grad_(False)
    return model


class StartModel:
    """The model that a run began with, beside the one in training, for the KL to the start.

    With LoRA it is the model with its adapter switched off; where TRL keeps a reference (beta > 0) it is that one; else
    it is loaded for the time of an evaluation, whole in every process, and given back. `path`, `dtype` and `attention`
    are those of the run's config.
    """

    def __init__(self, path: str, dtype: str, attention: str | None) -> None:
        self._path, self._dtype, self._attention = path, dtype, attention
        self._model: Any = None

    @contextmanager
    def loaded(self, trainer: Any) -> Iterator[None]:
        """Keeps it in memory meanwhile, where it must be loaded."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        if not isinstance(model, PeftModel) and trainer.ref_model is None:
            self._model = frozen(self._path, self._dtype, self._attention, trainer.accelerator.device)
            add_fused_lm_head(self._model, temperature=trainer.temperature)
            use_compact_head(self._model, trainer.temperature)
        try:
            yield
        finally:
            self._model = None

    @contextmanager
    def use(self, trainer: Any) -> Iterator[Any]:
        """The model to call."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        if isinstance(model, PeftModel):
            with use_adapter(model, adapter_name=None):
                yield trainer.model
        else:
            yield self._model if self._model is not None else trainer.ref_model


def _give_models(config: GrpoConfig, scorer: JudgeScorer, trainer: BundleTrainer, tokenizer: Any) -> None:
    """What the scorer measures with: the model in training, and the reader where a term asks for it."""
    needs, batch = scorer.composite.needs, trainer.args.per_device_train_batch_size
    together = trainer.accelerator.num_processes > 1
    if needs & {"label_probs", "blank_probs"}:
        scorer.probabilities = LabelReader(lambda: trainer.model, tokenizer, batch, together)
    if "rubric_gain" in needs:
        scorer.logps = partial(sequence_logps, trainer, tokenizer)
    if "reader_probs" in needs:
        path = config.reader or config.model
        model = frozen(path, config.dtype, config.attention, trainer.accelerator.device)
        reader_tokenizer = load_tokenizer(path)
        scorer.reader = ReaderPrompt(
            load_card(path), reader_tokenizer, LabelReader(lambda: model, reader_tokenizer, batch)
        )


def train(config: GrpoConfig, folder: Path, metrics: dict[str, Any], callbacks: Sequence[TrainerCallback] = ()) -> None:
    """Train, save `folder/model`, fill `metrics`. Every process of a distributed run calls this.

    Raises:
        ValueError: for no usable task, an unknown option, or a reward that is gone.
    """
    use_threads()
    set_seed(config.seed)
    card, tokenizer = card_of(config, config.model), load_tokenizer(config.model)
    tasks, prompts = tasks_of(config, card, tokenizer)
    bundles = numbered(tasks.train, 0)
    held_out = numbered(tasks.held_out, sum(map(len, tasks.train)))
    examples = [example for bundle in (*tasks.train, *tasks.held_out) for example in bundle]
    arguments = arguments_of(config, card, max(map(len, held_out), default=1), folder)
    if arguments.eval_strategy != "no" and not held_out:
        raise ValueError("trl.eval_strategy asks for evaluations: set held_out_tasks, or held_out with a file")
    require_sharding()
    probes = open_probes(config.guards.probes) if card.format == "mr3" else {}
    checkpoint = last_checkpoint(folder / "trainer")
    history = History.load(Path(checkpoint)) if checkpoint else History()
    process = arguments.process_index
    scorer = JudgeScorer(examples, card, tokenizer, config.composite(), by_bundle=config.baseline == "bundle")
    reward_log = RewardLog(folder / "rewards", process, scorer.terms, config.log.texts)
    reward_log.forget_after(int(Path(checkpoint).name.rsplit("-", 1)[1]) if checkpoint else -1)
    progress = PlainProgress("grpo", ("reward", "truth", "reward_std"))
    model = load_model(config.model, dtype=config.dtype, attention=config.attention)
    try:
        trainer = BundleTrainer(
            model=model,
            args=arguments,
            train_dataset=_rows(bundles, prompts),
            eval_dataset=_rows(held_out, prompts) if held_out else None,
            processing_class=tokenizer,
            peft_config=lora_config(config.peft),
            callbacks=[progress, *callbacks],
            scorer=scorer,
            bundles=bundles,
            held_out_bundles=held_out,
            by_bundle=config.baseline == "bundle",
            reward_only=frozenset(i for i, example in enumerate(examples) if example.reward_only),
            resample=config.resample,
            reward_log=reward_log,
            history=history,
            start=StartModel(config.model, config.dtype, config.attention) if config.guards.kl and held_out else None,
        )
    except (ConnectionError, RequestException) as error:  # TRL waits for its vLLM server here
        raise ValueError(
            f"{error} docs/grpo.md has the command; trl.vllm_server_timeout is how long to wait"
        ) from error
    quiet_trainer(trainer)
    use_compact_head(model, arguments.temperature)
    _give_models(config, scorer, trainer, tokenizer)
    probe = partial(try_probes, probes, examples, held_out, trainer) if probes and held_out else None
    trainer.add_callback(Watch(history, config.guards, probe))
    try:
        result = trainer.train(resume_from_checkpoint=checkpoint)
        if held_out:
            trainer.evaluate()
            trainer.tell_cost()
    finally:
        for term in scorer.composite.terms.values():
            if isinstance(term, ServedTerm):
                term.close()
    card = load_card(config.model)  # as it was: the user's copy of the templates is a matter of this run
    save_trained(trainer, folder, base=config.model, lora=config.peft is not None, dtype=config.dtype, card=card)
    metrics.update(
        history.summary(),
        steps=result.global_step,
        labels=len({examples[row].task.id for row in history.rows}),
        prompts=len(examples) - sum(map(len, held_out)),
        held_out_prompts=sum(map(len, held_out)),
        dropped=dict(tasks.dropped),
        tokens=trainer.state.num_input_tokens_seen,
        curve=progress.curve,
    )
