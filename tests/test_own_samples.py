"""A judge's own samples as training data: what is right, what is paired, and that the tokens are the judge's own."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from grpo_experiments.contract import Example
from grpo_experiments.own_samples import Prompted, read_samples, tables
from mr3.cli.main import main
from mr3.inference.engine import Completion
from mr3.judge_card import JudgeCard, write_card
from mr3.judging.chat import ChatPrompt
from mr3.sft.data import encode
from mr3.training import load_model, load_tokenizer
from tests.grpo_support import answer, example, task, twin_rows, write_tasks

BASE = "mr3/nano/base"
CARD = JudgeCard(profile="compact", max_prompt_tokens=1024, max_output_tokens=128)
A, B = "Assistant A", "Assistant B"


def prompted(one: Example) -> Prompted:
    rendered = CARD.renderer()(one.task)
    return Prompted(one, rendered, ChatPrompt(load_tokenizer(BASE)).text(rendered))


def completion(text: str, finish: str = "stop") -> Completion:
    return Completion.model_validate({"id": "x", "text": text, "finish": finish, "output_tokens": 9})


def made(texts: list[Completion], pairs: int = 4) -> dict[str, list[dict[str, object]]]:
    one = prompted(example(A, task=task("t")))
    return tables([one], [read_samples(CARD, one, texts)], pairs, 0)


def test_right_samples_are_rows_once_and_wrong_ones_only_pairs() -> None:
    right, other, wrong = answer(A), answer(A, "Looked twice."), answer(B)
    found = made([completion(right), completion(right), completion(wrong), completion(other), completion("no verdict")])
    assert [s["right"] for s in found["samples"]] == [True, True, False, True, False]
    texts = [row["completion"][0]["content"] for row in found["rejection_sft"]]  # type: ignore[index]
    assert texts == ["<think>" + right, "<think>" + other]
    pairs = {(p["chosen"], p["rejected"]) for p in found["preferences"]}
    assert {a for a, _ in pairs} <= {right, other} and {b for _, b in pairs} == {wrong, "no verdict"}
    assert (
        len(made([completion(right), completion(wrong), completion(other), completion(wrong)], 1)["preferences"]) == 1
    )


def test_what_was_cut_off_is_not_right_and_an_engine_that_failed_teaches_nothing() -> None:
    found = made([completion(answer(A), "length"), completion("", "failed"), completion(answer(A))])
    assert [s["right"] for s in found["samples"]] == [False, False, True]
    assert [p["rejected"] for p in found["preferences"]] == [answer(A)], "the answer that was cut off, not the failure"


def test_rows_and_pairs_are_token_for_token_what_was_asked_and_written() -> None:
    one, tokenizer = prompted(example(A, task=task("t"))), load_tokenizer(BASE)
    found = tables([one], [read_samples(CARD, one, [completion(answer(A)), completion(answer(B))])], 4, 0)
    ids = tokenizer(one.text + answer(A), add_special_tokens=False)["input_ids"]
    (row,) = encode(tokenizer, found["rejection_sft"], 1024).rows  # type: ignore[arg-type]
    assert row.ids.tolist() == [*ids, tokenizer.eos_token_id]
    (pair,) = found["preferences"]
    assert tokenizer(f"{pair['prompt']}{pair['chosen']}", add_special_tokens=False)["input_ids"] == ids
    label = found["labels_sft"][0]["completion"][0]["content"]  # type: ignore[index]
    (parsed,) = read_samples(CARD, one, [completion(label.removeprefix("<think>"))])
    assert parsed.right and parsed.parsed.trace == ""


@pytest.mark.slow
def test_the_command_samples_a_judge_and_is_done_once(tmp_path: Path) -> None:
    model = tmp_path / "judge"
    load_model(BASE).save_pretrained(model)
    load_tokenizer(BASE).save_pretrained(model)
    write_card(model, CARD)
    tasks = write_tasks(tmp_path / "tasks.parquet", twin_rows(3))
    config = {
        "output_dir": str(tmp_path / "samples"), "model": str(model), "tasks": str(tasks), "samples": 2,
        "max_output_tokens": 8, "store": str(tmp_path / "store"), "engine": {"kv_cache_memory_bytes": 134217728},
    }  # fmt: skip
    file = tmp_path / "samples.yaml"
    file.write_text(yaml.safe_dump(config))
    # An untrained model is never right: the command says so, and leaves nothing to train on.
    assert main(["own-samples", "--config", str(file)]) == 2
    assert not (tmp_path / "samples" / "rejection_sft.parquet").exists()
    assert pq.read_table(tasks).num_rows == 6
