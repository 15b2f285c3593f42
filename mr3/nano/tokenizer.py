"""The nano tokenizer: byte-level BPE over the world's text and the prompts, with a Qwen-style chat template."""

from __future__ import annotations

import itertools
from importlib import resources

import yaml
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mr3.nano.packs import english_wordings, packs
from mr3.nano.text import TextWorld

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = ("<think>", "</think>")
VOCABULARY = 3_072
CONTEXT = 8_192
_SPLIT = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def _templates() -> list[str]:
    """Texts of the prompts, often enough that their words become single tokens."""
    texts = yaml.safe_load((resources.files("mr3.prompts") / "compact.yaml").read_text(encoding="utf-8"))
    frame = [*texts["instruction"].values(), *(f"# {title}\n" for title in texts["headings"].values())]
    frame += ["# Your Response\n"]
    frame += ["<|im_start|>system\n", "user\n", "assistant\n", '{"explanation": "...", "score": "..."}\n']
    frame += [
        "# Assistant A\n",
        "Assistant A | Assistant B | Tie",
        "true | false",
        "so: Assistant A is better by polite",
    ]
    frame += ["All criteria are met.", "Not met: polite", "They are the same.", "missed 1 of 3, so 4"]
    english = [w for kinds in english_wordings().values() for w in itertools.chain(*kinds.values())]
    others = [w for p in packs().values() for kinds in p.criteria.values() for w in kinds]
    return (frame + english) * 1_000 + others * 100


def train_tokenizer(seed: int = 0, documents: int = 30_000) -> PreTrainedTokenizerFast:
    """Train from the generator; deterministic for a seed."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    world = itertools.islice(TextWorld(seed).documents(), documents)
    tokenizer.train_from_iterator(itertools.chain(world, _templates()), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.add_tokens(list(MARKS))
    fast.chat_template = CHAT_TEMPLATE
    return fast
