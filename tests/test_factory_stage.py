"""The whole factory in this process, with an engine that is told the label: what is kept, counted, resumed, written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks import oracle_engine
from benchmarks.factory_throughput import _marked
from benchmarks.workload import base_judge
from mr3.artifacts import read_json
from mr3.cli.stages import config_model_of, stage_main_of
from mr3.config import build_config
from mr3.factory import asking, distil, finish
from mr3.factory.config import ORDERS, FactoryConfig
from mr3.factory.parts import Step
from mr3.factory.prompting import Prompter
from mr3.factory.rows import SEPARATOR, make_row, read_row
from mr3.factory.stage import run
from mr3.languages.registry import language
from mr3.nano.labelled import rows as nano_rows
from mr3.sources import Labelled, Texts

ROWS = 240
STRATEGIES = ("eng-eng", "tgt-eng", "tgt-tgt")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with their label in the prompt, two of them twice, one that is a benchmark's, and a judge's folder."""
    root = tmp_path_factory.mktemp("factory")
    lines = list(_marked(ROWS, 5))
    first = json.loads(lines[0])
    renamed = {**first, "task": {**first["task"], "id": "another-name"}}
    (root / "rows.jsonl").write_text("".join([*lines, lines[0], json.dumps(renamed) + "\n", "not JSON\n"]))
    (root / "bench.jsonl").write_text(lines[7])
    base_judge(root / "judge")
    return root


def settings(world: Path, out: Path, **changes: Any) -> FactoryConfig:
    model = {"model": str(world / "judge"), "backend": oracle_engine.NAME, "dialect": "plain"}
    given: dict[str, Any] = {
        "output_dir": str(out),
        "profile": "compact",
        "ray": False,
        "sources": [{"path": str(world / "rows.jsonl"), "name": "nano"}],
        "decontaminate": {"benchmarks": [{"path": str(world / "bench.jsonl"), "name": "bench"}]},
        "teacher": {**model, "name": "teacher", "engine": {"wrong": 0.1}},
        "difficulty": {"student": {**model, "name": "student", "engine": {"wrong": 0.4}, "sampling": {"seed": 1}}},
        "output": {"dialect": "plain", "prompts": {"plain": str(world / "judge")}},
        "stream": {"batch_groups": 16},
    }
    return build_config(FactoryConfig, {**given, **changes}, "test")


@pytest.fixture(scope="module")
def made(world: Path) -> Path:
    out = world / "made"
    run(settings(world, out))
    return out


def sft(folder: Path, strategy: str = "eng-eng", order: str = "easy-hard") -> list[dict[str, Any]]:
    return list(pq.read_table(folder / "sft" / strategy / f"{order}.parquet").to_pylist())


def gold(world: Path) -> dict[str, str]:
    lines = (world / "rows.jsonl").read_text().splitlines()[:ROWS]
    return {f"nano/{(r := json.loads(line))['task']['id']}": r["gold"] for line in lines}


def test_only_rows_that_are_right_under_all_strategies_are_kept(made: Path, world: Path) -> None:
    right = gold(world)
    ids = {row["id"] for row in sft(made)}
    assert 0 < len(ids) < ROWS
    for strategy in STRATEGIES:
        told = sft(made, strategy)
        assert {row["id"] for row in told} == ids
        for row in told:
            answer = json.loads(row["completion"][0]["content"].rpartition("</think>\n")[2])
            assert answer["score"] == right[row["id"]] == row["actual_score"]
    assert all(0 <= row["right"] <= 4 for row in sft(made)), "five of five is too easy"


def test_the_funnel_says_where_every_row_went(made: Path) -> None:
    funnel = {f["filter"]: f for f in read_json(made / "funnel.json")}
    assert list(funnel) == [
        "read", "duplicates", "decontamination", "prompts", "correctness", "alignment",
        "trace_language", "repetition", "difficulty", "balance",
    ]  # fmt: skip
    assert funnel["read"]["in"] == ROWS + 3 and funnel["read"]["dropped"] == {"unreadable": 1}
    assert funnel["duplicates"]["dropped"] == {"same_id": 1, "same_task": 1}
    assert funnel["decontamination"]["dropped"] == {"exact": 1}
    assert funnel["decontamination"]["benchmarks"] == {"bench": {"texts": 1, "set_phrases": 0, "exact": 1}}
    (example,) = funnel["decontamination"]["examples"]["bench: exact"]
    assert example["id"].startswith("nano/") and example["shared"]
    assert funnel["alignment"]["dropped"].keys() <= {f"{s}: wrong" for s in STRATEGIES}
    told = funnel["correctness"]["strategies"]["eng-eng"]
    assert told["right"] + told["wrong"] == ROWS - 1
    assert funnel["balance"]["out"] == len(sft(made)) == read_json(made / "metrics.json")["rows"]
    assert sum(funnel["difficulty"]["right_of_k"].values()) == funnel["difficulty"]["in"]
    assert "| alignment |" in (made / "funnel.md").read_text()


def test_the_benchmarks_row_is_in_no_file(made: Path, world: Path) -> None:
    leaked = json.loads((world / "bench.jsonl").read_text())["task"]["id"]
    for strategy in STRATEGIES:
        assert f"nano/{leaked}" not in {row["id"] for row in sft(made, strategy)}


@pytest.mark.parametrize("order", ORDERS)
def test_all_orders_hold_the_same_rows(made: Path, order: str) -> None:
    assert Counter(r["id"] for r in sft(made, order=order)) == Counter(r["id"] for r in sft(made))


def test_easy_to_hard_is_by_right_answers_then_tokens(made: Path) -> None:
    levels = [(-row["right"], row["tokens"]) for row in sft(made)]
    assert levels == sorted(levels) and len({right for right, _ in levels}) > 2


def test_the_forced_sentence_is_in_the_prompt_and_not_in_what_is_learned(made: Path) -> None:
    from mr3.nano.labelled import forcing

    for row in sft(made, "tgt-tgt"):
        sentence = forcing()[row["language"]]
        assert row["assistant_prefix"] == f"<think>{sentence}"
        content = row["completion"][0]["content"]
        assert content.startswith("\n1 language") and sentence not in content and "<think>" not in content
    for row in sft(made, "tgt-eng"):
        assert row["assistant_prefix"] == "" and row["completion"][0]["content"].startswith("<think>\n1 language")


def test_strategies_differ_in_the_language_of_the_rubric(made: Path) -> None:
    english, own = ({r["id"]: r for r in sft(made, s)} for s in ("eng-eng", "tgt-eng"))
    for name, row in english.items():
        system, asked = (m["content"] for m in row["prompt"])
        other = own[name]["prompt"]
        assert other[1]["content"] == asked, "input and responses stay as they are"
        assert (other[0]["content"] == system) == (row["language"] == "en")


def test_training_reads_the_rows(made: Path, world: Path) -> None:
    from transformers import AutoTokenizer

    from mr3.sft.data import encode

    tokenizer = AutoTokenizer.from_pretrained(world / "judge")
    for strategy, opening in (("eng-eng", "<think>\n1 language"), ("tgt-tgt", "\n1 language")):
        encoded = encode(tokenizer, sft(made, strategy), 2_048)
        assert len(encoded.rows) == len(sft(made, strategy)) and not encoded.dropped
        for row, told in zip(encoded.rows[:5], sft(made, strategy), strict=False):
            prompt, lesson = tokenizer.decode(row.ids[: row.prompt]), tokenizer.decode(row.ids[row.prompt :])
            assert lesson.startswith(opening) and lesson.endswith("<|im_end|>")
            assert prompt.endswith(told["assistant_prefix"] or "assistant\n")


def test_published_columns_have_the_published_names(made: Path) -> None:
    table = pq.read_table(made / "published.parquet")
    for told in ("en_prompt_en_thinking", "tgt_prompt_en_thinking", "tgt_prompt_tgt_thinking"):
        assert {f"plain-prompt_{told}", f"teacher-{told}-response", f"teacher-{told}-plain-response"} <= set(
            table.column_names
        )
    row = table.to_pylist()[0]
    forced = row["plain-prompt_tgt_prompt_tgt_thinking"]
    assert "<think>" in forced and not forced.endswith("<think>"), "the forced sentence ends the prompt"
    assert not row["plain-prompt_en_prompt_en_thinking"].endswith("<think>")
    target = row["teacher-en_prompt_en_thinking-plain-response"]
    assert target.startswith("<think>") and target.endswith("<|im_end|>")
    assert target.removesuffix("<|im_end|>").endswith(row["teacher-en_prompt_en_thinking-response"])
    assert [r["id"] for r in table.to_pylist()] == [r["id"] for r in sft(made)]


def test_neither_batches_nor_a_stop_change_the_files(made: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, asked = world / "stopped", Counter[str]()
    real = oracle_engine.ToldEngine.generate

    async def counted(self: Any, requests: Any) -> Any:
        asked.update(r.id for r in requests)
        if len(asked) > 500 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        return await real(self, requests)

    stopped: list[bool] = []
    monkeypatch.setattr(oracle_engine.ToldEngine, "generate", counted)
    config = settings(world, out, stream={"batch_groups": 7, "concurrency": 3})
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert stopped and not (out / "manifest.json").is_file()
    run(config)
    again = sum(n - 1 for n in asked.values())
    assert 0 < again <= 3 * 7 * 3, "only what was with the engine at the stop is asked again: three batches"
    for strategy in STRATEGIES:
        for order in ORDERS:
            assert sft(out, strategy, order) == sft(made, strategy, order)
    asked.clear()
    run(config)
    assert not asked, "a finished stage is not run again"


def test_the_label_is_in_no_prompt_and_no_id(world: Path) -> None:
    row = next(r for r in nano_rows(9, 1) if r.task.mode == "pairwise")
    prompter = Prompter("compact", Texts())
    worker = object.__new__(asking.AskWorker)
    worker._constant, worker._asks, worker._heads = "c", [(s, 2) for s in STRATEGIES], {}  # type: ignore[misc]
    worker._write = lambda shown: f"{shown.system}\n{shown.user}\n{shown.assistant_prefix}"  # type: ignore[assignment]
    found = []
    for label in ("Assistant A", "Assistant B", "Tie"):
        text = make_row(row.model_copy(update={"gold": label}), prompter, STRATEGIES)
        found.append([(p.id, p.prompt) for asked in worker.prepare(read_row(text)) for p in asked])
    assert found[0] == found[1] == found[2] and len({i for i, _ in found[0]}) == 6


def test_a_student_whose_engine_fails_drops_the_row_with_a_reason(world: Path, tmp_path: Path) -> None:
    config = settings(world, tmp_path)
    assert config.difficulty is not None
    from mr3.factory.parts import Step

    row = make_row(next(iter(nano_rows(1, 2))), Prompter("compact", Texts()), STRATEGIES)
    failed = {"eng-eng": [{"outcome": "engine_failed", "score": None}] * 5}
    answers = [("g", f"{row}{SEPARATOR}{{}}{SEPARATOR}{json.dumps(failed)}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil, "_answers", lambda *_: iter(answers))
        about = distil.grade(config, config.difficulty, Step(tmp_path, "a"), Step(tmp_path, "b"), tmp_path, 1)
    assert about["filters"][0]["dropped"][0][0] == "student_failed"


def test_a_translated_trace_in_another_language_is_none(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(world, tmp_path, translator={"model": "m"})
    row = next(r for r in nano_rows(50, 2) if r.task.language == "de")
    head = make_row(row, Prompter("compact", Texts()), STRATEGIES)
    payloads = []
    for code in ("de", "en"):
        trace = " ".join(language(code).long_texts().values())
        made = json.dumps({"trace": trace, "explanation": "So.", "reason": None})
        payloads.append((code, SEPARATOR.join([head, "{}", "1", made])))
    monkeypatch.setattr(finish, "stream_parts", lambda *_: iter(payloads))
    assert config.translator is not None
    step = Step(tmp_path, "b")
    about = finish.translate(config, config.translator, Step(tmp_path, "a"), step, tmp_path, 2)
    details = about["filters"][0]["details"]
    assert details["failed"] == {"wrong_language": 1}
    assert details["traces"] == {"tgt-tgt-translated": {"in the language": 1, "in another language": 1}}
    step.finish(about)
    rows = [r["payload"] for file in step.parts for r in pq.read_table(file).to_pylist()]
    kept = [json.loads(payload.rpartition(SEPARATOR)[2]) for payload in rows]
    assert [bool(k["trace"]) for k in kept] == [True, False] and kept[1]["reason"] == "wrong_language"


def test_rows_that_no_text_exists_for_are_counted(world: Path, tmp_path: Path) -> None:
    row: Labelled = next(iter(nano_rows(1, 2)))
    listwise = row.task.model_copy(update={"mode": "choice", "responses": []})
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"gold": "A", "task": json.loads(listwise.model_dump_json())}) + "\n"
    )
    with pytest.raises(ValueError, match=r"no rows are left for the teacher.*has no texts for mode choice"):
        run(settings(world, tmp_path / "out", sources=[{"path": str(tmp_path / "rows.jsonl")}]))


def test_mistakes_in_the_config_are_named(world: Path, tmp_path: Path) -> None:
    for changes, said in (
        ({"strategies": ["eng-eng"], "require": ["tgt-tgt"]}, "require must name some of strategies"),
        ({"strategies": ["eng-eng"], "translator": {"model": "m"}}, "made from those of tgt-eng: add it to strategies"),
        ({"languages": ["en", "qq"]}, "languages names qq, which are unknown"),
        (
            {"translator": {"model": "m", "engine": {"tensor_parallel_size": 8}, "stream": {"num_gpus": 2}}},
            "translator: its engine needs 8 GPUs, a replica has 2",
        ),
        ({"strategy": []}, "unknown key"),
    ):
        with pytest.raises(ValueError, match=said):
            settings(world, tmp_path, **changes)
    with pytest.raises(ValueError, match="was trained with the prompt profile compact"):
        run(settings(world, tmp_path / "x", profile="hf-card"))


def test_mr3_data_is_the_world_or_the_factory_by_its_config() -> None:
    assert config_model_of("data", "configs/nano/data.yaml").__name__ == "DataConfig"
    assert config_model_of("data", "configs/nano/factory.yaml") is FactoryConfig
    words = ["--config", "configs/nano/factory.yaml", "--seed", "1"]
    assert stage_main_of("data", words).__module__ == "mr3.factory.stage"
    assert stage_main_of("data", ["--config=configs/nano/data.yaml"]).__module__ == "mr3.nano.dataset"


def test_the_nano_teacher_is_trained_on_the_prompts_that_the_factory_sends(world: Path) -> None:
    from transformers import AutoTokenizer

    from mr3.factory.dialects import PromptWriter, Spoken
    from mr3.nano.labelled import strategy_rows
    from mr3.sft.data import texts_of

    tokenizer = AutoTokenizer.from_pretrained(world / "judge")
    write = PromptWriter(tokenizer, "plain", {}, "2025-01-01")
    forced = 0
    for row in strategy_rows(60, 3, "compact"):
        prompt, completion = texts_of(tokenizer, row, "<|im_end|>")
        system, user = (m["content"] for m in row["prompt"])
        prefix = row["assistant_prefix"]
        forced += bool(prefix)
        sent = write(Spoken(system=system, user=user, assistant_prefix=prefix or "<think>"))
        # Free traces are trained from <think> on, a token of its own; forced ones from where the prompt ends.
        assert sent == (prompt if prefix else f"{prompt}<think>")
        assert completion.startswith("\n1 " if prefix else "<think>\n1 ")
    assert forced > 5


def test_text_that_no_file_takes_is_set_aside(world: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in _marked(24, 6)]
    rows[3]["task"]["input"] += " \ud800"
    rows[5]["task"]["rubric"]["criteria"][0]["description"] += " \udfff"
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"path": str(file), "name": "nano"}]
    with pytest.raises(
        ValueError, match=r"the source nano: 2 of 24 rows are set aside \(8\.3%\): 2 unreadable \(first: rows"
    ):
        run(settings(world, tmp_path / "refused", sources=sources))
    run(settings(world, tmp_path / "made", sources=sources, allow_set_aside=True))
    funnel = {f["filter"]: f for f in read_json(tmp_path / "made" / "funnel.json")}
    assert (funnel["read"]["in"], funnel["prompts"]["out"]) == (24, 22)
    aside = read_json(tmp_path / "made" / "set_aside.json")
    assert len(aside) == 2 and all("surrogate" in a["reason"] for a in aside), aside


def test_a_sample_in_balance_goes_to_the_teacher_and_other_languages_do_not(world: Path, tmp_path: Path) -> None:
    run(settings(world, tmp_path / "made", presample={"rows": 40, "alpha": 0.0}, languages=["en", "de", "tr"]))
    funnel = {f["filter"]: f for f in read_json(tmp_path / "made" / "funnel.json")}
    assert list(funnel)[3:5] == ["prompts", "presample"] and funnel["presample"]["out"] == 40
    assert funnel["correctness"]["in"] == 40
    assert set(funnel["presample"]["languages"]) == {"en", "de", "tr"}
    assert funnel["read"]["dropped"]["language"] > 100
    counts = [c["out"] for c in funnel["presample"]["languages"].values()]
    assert max(counts) - min(counts) <= 1, "alpha 0: equal shares"
