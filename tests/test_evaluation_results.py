"""Several judges and seeds: one table, spread over seeds, paired differences; judges behind chat endpoints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from mr3.artifacts import read_json, write_json
from mr3.config import build_config
from mr3.evaluation.config import EvalConfig
from mr3.evaluation.metrics import Judged, all_metrics
from mr3.evaluation.output import VerdictTable
from mr3.evaluation.results import combined, main, write_results
from mr3.evaluation.stage import run
from mr3.evaluation.tasks import EvalTask
from mr3.inference.chat_endpoint import as_written, split_prompt
from mr3.inference.session import ray_session
from mr3.judging.config import JudgeConfig
from mr3.judging.judge import JudgeItem
from mr3.judging.opening import open_judge
from mr3.records import Outcome, Verdict
from tests.judging_support import pair

A, B = "Assistant A", "Assistant B"


def finished(folder: Path, name: str, seed: int | None, said: Sequence[str | None], sets: str = "pairs") -> Path:
    """An evaluation as `mr3 eval` leaves it: gold is A everywhere; items are numbered."""
    folder.mkdir(parents=True)
    judged = []
    with VerdictTable(folder / "verdicts.parquet") as table:
        for number, score in enumerate(said):
            part = "chat" if number == 0 else "safety"
            given = EvalTask(pair(id=str(number)), A, (sets,), part=part)
            outcome = Outcome.OK if score else Outcome.TRUNCATED
            verdict = Verdict(id=str(number), task_id=str(number), outcome=outcome, score=score)
            one = Judged(given, verdict)
            table.add(given, verdict, one.label, None)
            judged.append(one)
    write_json(folder / "metrics.json", all_metrics(judged))
    config = {"name": name, "seeds": [] if seed is None else [seed], "judge": {"model": "m", "sampling": {}}}
    write_json(folder / "manifest.json", {"stage": "eval", "config": config})
    return folder


def test_rows_that_could_not_be_judged_are_wrong_in_the_table_too(tmp_path: Path) -> None:
    folders = [finished(tmp_path / name, name, 0, [A, A, A]) for name in ("a", "b")]
    write_json(tmp_path / "b" / "set_aside.json", {"pairs": {"0#2": {"gold": A, "language": "en", "part": "chat"}}})
    write_json(tmp_path / "a" / "set_aside.json", {"pairs": {"2": {"gold": A, "language": "en", "part": "chat"}}})
    found = combined(folders)
    assert [(row["judge"], row["n"]) for row in found["table"]] == [("a", 3), ("b", 4)]
    # Shared items: 0, 1 and 2; the first judge could not be asked for 2.
    assert found["differences"][0]["value"] == pytest.approx(1 / 3)


def test_seeds_of_a_judge_become_one_row_with_mean_and_std(tmp_path: Path) -> None:
    folders = [
        finished(tmp_path / "a0", "a", 0, [A, A, A, B]),  # 0.75
        finished(tmp_path / "a1", "a", 1, [A, A, B, None]),  # 0.5
        finished(tmp_path / "b0", "b", 0, [A, B, B, B]),  # 0.25
        finished(tmp_path / "b1", "b", 1, [B, B, B, B]),  # 0.0
    ]
    found = combined(folders)
    first, second = found["table"]
    assert (first["judge"], first["value"], first["seeds"], first["n"]) == ("a", 0.625, 2, 4)
    assert first["std"] == pytest.approx(0.1767767)  # of 0.75 and 0.5: 0.25 / sqrt(2)
    assert first["std_population"] == pytest.approx(0.125)
    assert first["seed_values"] == {"0": 0.75, "1": 0.5}
    assert first["failed_before_repair"] == 0.125
    assert second["value"] == 0.125
    (gap,) = found["differences"]
    assert (gap["judge"], gap["from"], gap["value"], gap["over"]) == ("b", "a", -0.5, "seeds and items")
    assert gap["interval"][0] <= -0.5 <= gap["interval"][1]
    assert found["averages"] == {
        "a": {"value": 0.625, "sets": ["pairs"]},
        "b": {"value": 0.125, "sets": ["pairs"]},
    }


def test_differences_are_over_shared_items_and_weighted_as_the_benchmark_weighs(tmp_path: Path) -> None:
    folders = [
        finished(tmp_path / "a", "a", None, [A, B, B], "mm-eval"),
        finished(tmp_path / "b", "b", None, [B, A, A, A], "mm-eval"),
        finished(tmp_path / "c0", "c", 0, [A, A, A], "mm-eval"),
        finished(tmp_path / "c1", "c", 1, [A, B, A], "mm-eval"),
    ]
    found = combined(folders)
    # Item 0 is all of chat, items 1 and 2 are safety. b - a: chat -1, safety +1: (-1 + 1) / 2 = 0 (by items +1/3).
    gaps = {d["judge"]: d for d in found["differences"]}
    assert gaps["b"]["value"] == pytest.approx(0.0) and gaps["b"]["n"] == 3
    # c has two seeds, a one: item means are compared. chat 0, safety (0.5 + 1) / 2 = 0.75.
    assert gaps["c"]["value"] == pytest.approx(0.375) and gaps["c"]["over"] == "items"
    assert next(r for r in found["table"] if r["judge"] == "a")["metric"] == "macro mean over subsets"


def test_an_equal_judge_has_no_difference(tmp_path: Path) -> None:
    same = [A, B, A, None]
    found = combined([finished(tmp_path / n, n, None, same) for n in "ab"])
    assert (found["differences"][0]["value"], found["differences"][0]["interval"]) == (0.0, [0.0, 0.0])


def test_the_reader_prints_a_table_and_refuses_what_is_no_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished(tmp_path / "a", "a <b>", None, [A, B])
    two = finished(tmp_path / "b", "b|c", None, [A, A])
    assert main([str(one), str(two), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "| pairs | b\\|c | accuracy | 1.000 | one run |" in printed and "+0.500" in printed
    assert "a &lt;b&gt;" in (tmp_path / "out" / "results.html").read_text()
    assert read_json(tmp_path / "out" / "results.json")["table"][0]["value"] == 0.5
    assert main([str(tmp_path)]) == 2 and "not a finished evaluation" in capsys.readouterr().err
    again = finished(tmp_path / "c", "b|c", None, [A])
    with pytest.raises(ValueError, match="give them a `name`"):
        combined([two, again])


class ChatServer(BaseHTTPRequestHandler):
    """`/v1/chat/completions`: prefers the longer response."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        user = body["messages"][-1]["content"]
        first, second = user.split("# Assistant A\n")[1].split("# Assistant B\n")
        better = A if len(first) > len(second.split("\n# Your ")[0]) + 1 else B
        message = {"role": "assistant", "content": json.dumps({"explanation": "so", "score": better})}
        if "THINK" in user:
            message["reasoning_content"] = f"So {better} is better."
        reason = "content_filter" if "FILTERED" in user else "stop"
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        }
        blob = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(blob)))
        self.end_headers()
        self.wfile.write(blob)

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def chat_server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    ChatServer.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), ChatServer)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", ChatServer.asked
    finally:
        server.shutdown()
        server.server_close()


def chat_judge(url: str, **more: Any) -> JudgeConfig:
    given = {"model": "hosted", "backend": "chat", "url": url, "revision": "1", "profile": "compact"}
    return JudgeConfig.model_validate({**given, "max_prompt_tokens": 500, "max_output_tokens": 50, **more})


def test_a_judge_behind_a_chat_endpoint(tmp_path: Path) -> None:
    with chat_server() as (url, asked):
        judge = open_judge(chat_judge(url, sampling={"temperature": 0.6, "top_k": 20, "seed": 4}))
        tasks = [
            pair("a long answer", "short", id="1"),
            pair("a long answer", "short", id="2", input='THINK <b> "x" é'),
            pair("a", "b", id="3", input="FILTERED"),
            pair("a", "b" * 9_000, id="4"),
        ]
        plain, thinking, filtered, long = asyncio.run(judge.judge([JudgeItem(task=t) for t in tasks]))
    assert (plain.score, plain.trace, plain.output_tokens) == (A, "", 4)
    assert (thinking.score, thinking.trace) == (A, "So Assistant A is better.")
    assert filtered.outcome is Outcome.ENGINE_FAILED and "content_filter" in (filtered.reason or "")
    assert long.outcome is Outcome.TOO_LONG and len(asked) == 3
    sent = asked[0]
    assert [m["role"] for m in sent["messages"]] == ["system", "user"]
    assert (sent["model"], sent["temperature"], sent["top_k"], sent["max_completion_tokens"]) == ("hosted", 0.6, 20, 50)
    assert any('THINK <b> "x" é' in body["messages"][1]["content"] for body in asked)


def test_what_a_chat_endpoint_can_not_do_is_a_named_failure() -> None:
    messages = [{"role": "user", "content": "x"}]
    assert split_prompt(json.dumps(messages) + "<think>Gut, ") == (messages, "<think>Gut, ")

    class Message:
        content = "<think>so\n</think>\n{}"

    assert as_written(Message()) == "so\n</think>\n{}"


@pytest.mark.slow
def test_several_judges_and_seeds_in_one_config(tmp_path: Path) -> None:
    rows = [
        {
            "id": str(i),
            "language": "en",
            "input": "q",
            "response_1": "x" * (i + 3),
            "response_2": "y",
            "actual_score": A,
        }
        for i in range(4)
    ]
    file = tmp_path / "rb.jsonl"
    file.write_text("\n".join(json.dumps(r | {"source": "donotanswer"}) for r in rows))
    with chat_server() as (url, asked), ray_session():
        judge = chat_judge(url, sampling={"temperature": 0.6}).model_dump(exclude_unset=True)
        data = {
            "output_dir": tmp_path / "eval",
            "benchmarks": [{"benchmark": "rewardbench", "path": str(file)}],
            "judges": {"one": judge, "other": {**judge, "model": "other"}},
            "seeds": [0, 1],
            "orders": "one",
        }
        config = build_config(EvalConfig, data, "test")
        run(config)
        run(config)
        assert len(asked) == 16, "two judges, two seeds, four tasks; a finished stage asks for nothing"
    metrics = read_json(tmp_path / "eval" / "metrics.json")
    assert metrics["runs"] == ["one/seed-0", "one/seed-1", "other/seed-0", "other/seed-1"]
    assert [(r["judge"], r["seeds"], r["n"]) for r in metrics["table"]] == [("one", 2, 4), ("other", 2, 4)]
    assert {body["model"] for body in asked} == {"hosted", "other"}
    assert len({body["seed"] for body in asked if body["model"] == "hosted"}) == 8, "every judgement draws its own"
    assert combined([tmp_path / "eval"])["table"] == metrics["table"]
    assert "| rewardbench | one | mean of 4 section scores |" in (tmp_path / "eval" / "results.md").read_text()
    write_results(tmp_path / "again", combined([tmp_path / "eval" / "one" / "seed-0"]))
