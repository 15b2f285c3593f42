"""What the tests of labelling share: a tiny random judge folder, scripted judges, a checker."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from mr3.inference.engine import Completion, Request, Sampling
from mr3.judge_card import JudgeCard, write_card
from mr3.judging.judge import Judge, JudgeItem
from mr3.records import PoolRow
from rewards.prompt_schedule import judge_prompt, task_id
from rewards.tasks import TaskMaker, TaskSettings

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_judge(folder: Path, *, max_prompt_tokens: int = 900, max_output_tokens: int = 24) -> Path:
    """A random two-layer Qwen3 with a byte-level tokenizer and a judge's card."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, set_seed

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
        show_progress=False,
    )
    texts = ["the answer to the question is four", '{"explanation": "", "score": ""}']
    tokenizer.train_from_iterator(texts * 50, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    set_seed(0)
    config = Qwen3Config(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    card = JudgeCard(
        profile="compact",
        sampling=Sampling(max_tokens=max_output_tokens),
        max_prompt_tokens=max_prompt_tokens,
        max_output_tokens=max_output_tokens,
    )
    write_card(folder, card)
    return folder


def check(meta: dict[str, Any], response: str) -> dict[str, bool]:
    """The world of these tests: the right number, in few words."""
    return {"correct": str(meta["answer"]) in response, "brief": len(response) < 20}


def verdict_text(score: str) -> str:
    """What a judge writes."""
    return f' because</think>{{"explanation": "so", "score": "{score}"}}'


def scripted(prompt: str) -> str:
    """A judge that looks for the digit 4, always likes A where the prompt says BIASED, and babbles at BROKEN."""
    if "BROKEN" in prompt:
        return " I can't say"
    if "# Assistant A" not in prompt:
        return verdict_text("true" if "4" in prompt.split("# Response\n")[1] else "false")
    shown = re.search(r"# Assistant A\n(.*?)\n# Assistant B\n(.*?)\n# Your Comparison", prompt, re.DOTALL)
    assert shown is not None, prompt
    a, b = ("4" in text for text in shown.groups())
    if "BIASED" in prompt:
        return verdict_text("Assistant A")
    return verdict_text("Tie" if a == b else "Assistant A" if a else "Assistant B")


class ScriptedEngine:
    """An engine that answers by a function of the prompt."""

    takes_text = False

    def __init__(self, answer: Callable[[str], str] = scripted) -> None:
        self._answer = answer
        self.prompts: list[str] = []

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.prompts += [r.prompt or "" for r in requests]
        return [Completion(id=r.id, text=self._answer(r.prompt or ""), finish="stop") for r in requests]

    def close(self) -> None:
        return


class PlainTemplate:
    """What the judge needs of a tokenizer."""

    added_tokens_decoder: ClassVar[dict[int, Any]] = {}

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        return turns + "<|im_start|>assistant\n"

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [list(text.encode()) for text in texts]}


def in_process_groups(engine: ScriptedEngine, *, fail_after: int | None = None) -> Callable[..., Iterator[Any]]:
    """`judge_groups` without Ray and store: results come last first, and an interrupt comes where it is asked for."""
    card = JudgeCard(profile="compact", max_prompt_tokens=4_000, max_output_tokens=24)
    judge = Judge(card, PlainTemplate(), engine, "scripted@1")

    def groups(pool: Path, _judge: Any, _store: Any, _settings: Any, work: Any) -> Iterator[tuple[str, str]]:
        table = pa.concat_tables([pq.read_table(part) for part in sorted(Path(pool).glob("*.parquet"))])
        settings = TaskSettings.model_validate(work.arguments["tasks"])
        rows = list(zip(table["group"].to_pylist(), table["payload"].to_pylist(), strict=True))[::-1]
        for count, (group, payload) in enumerate(rows):
            if count == fail_after:
                raise KeyboardInterrupt
            yield group, asyncio.run(_all_verdicts(PoolRow.model_validate_json(payload), settings, judge))

    return groups


async def _all_verdicts(row: PoolRow, settings: TaskSettings, judge: Judge) -> str:
    """Drive a prompt's plan to its end."""
    maker, judging, made = TaskMaker(row, settings), judge_prompt(row, settings), []
    asked = next(judging, [])
    while asked:
        tasks = [maker.task(task_id(row.prompt_id, j), j.response_ids) for j in asked]
        items = [JudgeItem(task=t, swapped=j.swapped, sample=j.sample) for t, j in zip(tasks, asked, strict=True)]
        verdicts = await judge.judge(items)
        made += verdicts
        try:
            asked = judging.send(verdicts)
        except StopIteration:
            asked = []
    return json.dumps({"verdicts": [v.model_dump(mode="json") for v in made], "new": len(made)})


@contextmanager
def judge_server(answer: Callable[[str], str] = scripted) -> Iterator[tuple[str, list[str]]]:
    """An OpenAI-compatible completions server; yields its base URL and the prompts that it was sent."""
    prompts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompts.append(body["prompt"])
            reply = {
                "id": "c",
                "object": "text_completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "text": answer(body["prompt"]), "finish_reason": "stop", "logprobs": None}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", prompts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
