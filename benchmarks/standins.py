"""Stand-ins for what a machine without GPUs and hub lacks: the published sets in their public schemas, tiny models.

The sets hold a few made-up rows each. The models are Qwen3 of less than a million parameters over one BPE tokenizer
with Qwen's and harmony's tokens: random ones, and a teacher that learned in a minute to give each family the label that
most of its rows have, so that some rows are right under every strategy and some are not.

    python -m benchmarks.standins FOLDER TEMPLATES
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.factory.config import ASKED
from mr3.factory.dialects import SPEECH, PromptWriter, forced
from mr3.factory.output import answer_json
from mr3.factory.prompting import Prompter
from mr3.factory.rows import make_row, read_row, rendered
from mr3.judge_card import JudgeCard, write_card
from mr3.sources import Labelled, Texts, open_source
from mr3.sources.spec import SetSource

LANGUAGES = ("en", "de", "fr", "sw", "zh")
"""Of the templates that prompts of the stand-ins need."""
HARMONY = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>")
LIMITS = {"max_prompt_tokens": 4096, "max_output_tokens": 96}
_TEMPLATE = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}"
    "{%- if enable_thinking is defined and not enable_thinking -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}"
    "{%- endif -%}"
)
_WORDS = {
    "en": ("How many apples are left on day", "There are", "apples left"),
    "de": ("Wie viele Äpfel bleiben am Tag", "Es bleiben", "Äpfel übrig"),
    "fr": ("Combien de pommes restent le jour", "Il reste", "pommes"),
    "sw": ("Ni tufaha ngapi zimebaki siku ya", "Zimebaki tufaha", "tu leo"),
    "zh": ("第几天还剩下多少个苹果", "还剩", "个苹果"),
}
Row = dict[str, Any]


def _question(i: int, language: str) -> str:
    return f"{_WORDS[language][0]} {i}?"


def _answer(i: int, language: str) -> str:
    _, begin, end = _WORDS[language]
    return f"{begin} {i} {end}."


def _turns(i: int, language: str, answer: int, turns: int) -> list[Row]:
    said = [("user", _question(i, language)), ("assistant", _answer(answer, language))] * turns
    return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]


def _arena(i: int, language: str) -> Row:
    turns = 1 + i % 2
    return {
        "conversation_a": _turns(i, language, i, turns),
        "conversation_b": _turns(i, language, i + 1, turns),
        "conv_metadata": {"turns": turns},
        "actual_score": ("Assistant A", "Tie")[i % 2],
    }


def _helpsteer3(i: int, language: str) -> Row:
    context = [{"role": "user", "content": _question(i, language)}]
    pair = {"response1": _answer(i, language), "response2": _answer(i + 1, language)}
    return {"context": context, **pair, "domain": "general", "actual_score": 2}


def _pair(column: str, value: str) -> Callable[[int, str], Row]:
    def row(i: int, language: str) -> Row:
        pair = {"response_1": _answer(i, language), "response_2": _answer(i + 1, language)}
        return {"input": _question(i + 500, language), **pair, column: value, "actual_score": "Assistant A"}

    return row


def _choice(first: int) -> Callable[[int, str], Row]:
    def row(i: int, language: str) -> Row:
        options = "\n".join(f"{letter}. {i + k}" for k, letter in enumerate("ABCD"))
        return {"question": _question(first + i, language), "options_str": options, "actual_score": "B"}

    return row


def _solution(problem: str, solution: str, gold: bool, first: int = 0) -> Callable[[int, str], Row]:
    return lambda i, language: {
        problem: f"{_question(first + i, language)} ({problem})",
        solution: _answer(i, language),
        "actual_score": gold,
    }


def _text(i: int, language: str, gold: str, first: int = 0) -> Row:
    return {"input": f"{_question(first + i, language)} {_answer(i, language)}", "actual_score": gold}


# Folders below data/sources and data/benchmarks -> row by number and language. Every fourth row is labelled otherwise.
SOURCES: Mapping[str, Callable[[int, str], Row]] = {
    "PolyGuardMix-filtered": lambda i, code: _text(i, code, ("true", "false")[i % 2], 100),
    "MMMLU": _choice(0),
    "arena-human-preference": _arena,
    "HelpSteer3": _helpsteer3,
    "MATH-500-Multilingual": _solution("problem", "full_solution", True),
    "HumanEval-XL-Python": _solution("input", "code_response", False),
}
BENCHMARKS: Mapping[str, Callable[[int, str], Row]] = {
    "m-reward-bench": _pair("source", "mt-bench-easy"),
    "reward-bench": _pair("source", "xstest-should-refuse"),
    "MM-Eval": _pair("subset", "reasoning"),
    "IndoPref": _pair("domain", "Math"),
    "include-base-44": _choice(1000),
    "mgsm": _solution("question", "answer", True, 2000),
    "HelpSteer3": lambda i, code: _helpsteer3(3000 + i, code),
}
# Each set has rows in languages that its published templates hold.
_LANGUAGES_OF = {
    "PolyGuardMix-filtered": ("en", "de", "fr", "zh"),
    "HelpSteer3": ("en", "de", "fr", "zh"),
    "HumanEval-XL-Python": ("en", "de", "fr", "zh"),
    "MATH-500-Multilingual": ("en", "fr"),
    "MMMLU": ("en", "de", "sw", "zh"),
    "include-base-44": ("de", "fr", "sw", "zh"),
    "reward-bench": ("en",),
    "IndoPref": ("id",),
}
_OTHER: dict[Any, Any] = {
    "true": "false", "false": "true", True: False, False: True, "B": "C", 2: 1, "Assistant A": "Assistant B",
    "Tie": "Both Bad",
}  # fmt: skip


def _rows(name: str, make: Callable[[int, str], Row], count: int) -> Iterator[Row]:
    for i in range(count):
        languages = _LANGUAGES_OF.get(name, LANGUAGES)
        language = languages[i // 2 % len(languages)]
        row = make(i, language if language in _WORDS else "en")
        if i % 8 in (3, 6):
            row["actual_score"] = _OTHER[row["actual_score"]]
        kind = ("prompt", "response")[i % 2] if name.startswith("PolyGuard") else "row"
        yield {"id": f"{name}-{i}-{kind}", "language": language, **row}


def write_sets(folder: Path, rows: int = 24) -> None:
    """`folder/sources` and `folder/benchmarks`, as the configs of Qwen3 expect them below `data`."""
    for part, sets in (("sources", SOURCES), ("benchmarks", BENCHMARKS)):
        for name, make in sets.items():
            place = folder / part / name
            place.mkdir(parents=True, exist_ok=True)
            file = place / f"{'test' if part == 'benchmarks' else 'train'}-00000-of-00001.parquet"
            pq.write_table(pa.Table.from_pylist(list(_rows(name, make, rows))), file)
    # As the public evaluation reads it: JSON lines under the name of a JSON file.
    toxic = [
        {"id": f"{i}-completion", "language": code, **_text(i, code, ("true", "false")[i % 2], 4000)}
        for i, code in enumerate(("en", "de", "sw", "zh") * 2)
    ]
    (folder / "benchmarks" / "rtp_lx_dataset.json").write_text("".join(json.dumps(r) + "\n" for r in toxic), "utf-8")


def labelled(folder: Path, templates: Path) -> list[Labelled]:
    """All rows of the stand-ins that are taught."""
    texts = Texts(name="published", templates_dir=templates)
    names = dict(
        zip(SOURCES, ("polyguardmix-filtered", "mmmlu", "arena", "helpsteer3", "math500", "humanevalxl"), strict=True)
    )
    specs = [SetSource(set=known, path=str(folder / "sources" / name)) for name, known in names.items()]
    return [row for spec in specs for row in open_source(spec, texts) if isinstance(row, Labelled)]


def _lessons(rows: Sequence[Labelled], templates: Path) -> list[tuple[str, str]]:
    """What the teacher is to write behind which prompt: the label that most rows of the family have."""
    prompter = Prompter("mr3-train", Texts(name="published", templates_dir=templates), harmony=True)
    write = PromptWriter(None, "gpt-oss", {"reasoning_effort": "high"}, "2025-08-28")
    golds: dict[str | None, Counter[str]] = defaultdict(Counter)
    for row in rows:
        golds[row.task.family][row.gold] += 1
    found = []
    for row in rows:
        label = golds[row.task.family].most_common(1)[0][0]
        shown = read_row(make_row(row, prompter, ASKED))
        for strategy in ASKED:
            spoken = rendered(shown, strategy)
            target = SPEECH["gpt-oss"].target(forced(spoken.assistant_prefix), "Looked.", answer_json("Fits.", label))
            found.append((write(spoken), target))
    return found


def _tokenizer(texts: Sequence[str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *HARMONY]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4_000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    made.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _model(tokenizer: Any, end: str, seed: int) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=8_192,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.convert_tokens_to_ids(end),
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _train(model: Any, tokenizer: Any, lessons: Sequence[tuple[str, str]], steps: int, batch: int = 4) -> list[float]:
    """Completion-only loss over shuffled lessons; the label, which is all that differs in them, counts most."""
    import random

    import torch

    torch.set_num_threads(1)
    draw = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps, pct_start=0.1)
    pairs = [[tokenizer(t, add_special_tokens=False)["input_ids"] for t in lesson] for lesson in lessons]
    losses = []
    common = Counter(token for _, target in pairs for token in set(target))
    for _ in range(steps):
        loss = 0.0
        for prompt, target in draw.sample(pairs, batch):
            logits = model(input_ids=torch.tensor([prompt + target]), logits_to_keep=len(target) + 1).logits[0, :-1]
            weight = torch.tensor([1.0 if common[t] == len(pairs) else 10.0 for t in target])
            each = torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="none")
            one = (each * weight).sum() / weight.sum() / batch
            one.backward()
            loss += one.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss)
    return losses


def write_models(folder: Path, sets: Path, templates: Path, steps: int = 160) -> list[float]:
    """Tiny models below `folder`, by the names that configs/tiny.yaml gives them; the losses of the teacher's training.

    `qwen3`: a random base; `gpt-oss`: a random student; `teacher`; `translator`; `judge-STRATEGY`: random judges of
    published texts.
    """
    lessons = _lessons(labelled(sets, templates), templates)
    tokenizer = _tokenizer([text for lesson in lessons for text in lesson])
    strategies = ("eng-eng", "tgt-eng", "tgt-tgt")
    made: dict[str, str] = {"qwen3": "<|im_end|>", "gpt-oss": "<|return|>", "teacher": "<|return|>"}
    made |= {"translator": "<|im_end|>"} | {f"judge-{s}": "<|im_end|>" for s in strategies}
    losses: list[float] = []
    for seed, (name, end) in enumerate(made.items()):
        model = _model(tokenizer, end, seed)
        if name == "teacher":
            losses = _train(model, tokenizer, lessons, steps)
        tokenizer.eos_token = end
        model.generation_config.eos_token_id = model.config.eos_token_id
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    for strategy in strategies:
        card = JudgeCard(
            profile="mr3-train", strategy=strategy, texts="published", modes=("pairwise", "binary", "choice"), **LIMITS
        )  # type: ignore[arg-type]
        write_card(folder / f"judge-{strategy}", card)
    return losses


if __name__ == "__main__":
    place, published = map(Path, sys.argv[1:])
    write_sets(place)
    write_models(place / "models", place, published)
