"""The ids of judges and generators: all that decides is in them, and nothing else is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr3.factory.config import Translator
from mr3.inference import identity as ids
from mr3.inference.engine import Completion, EngineConfig, Request, Sampling
from mr3.inference.generate_worker import GenerateWorker, request_key
from mr3.inference.identity import INCIDENTAL, model_identity
from mr3.inference.store import Store
from mr3.judge_card import write_card
from mr3.judging.config import JudgeConfig
from mr3.judging.judge import Judge
from mr3.judging.run import group_row
from mr3.judging.worker import JudgeWorker
from mr3.rubrics.teacher import TeacherConfig
from tests.judging_support import CARD, ScriptedEngine, item, make_tokenizer, pair, written


def folder(path: Path, weights: bytes = b"w") -> Path:
    """A judge's folder."""
    make_tokenizer().save_pretrained(path)
    (path / "config.json").write_text('{"model_type": "qwen3"}')
    (path / "generation_config.json").write_text('{"eos_token_id": 1}')
    (path / "model.safetensors").write_bytes(weights)
    write_card(path, CARD)
    return path


def says(label: str) -> type:
    """An engine that always gives one answer."""

    class Engine(ScriptedEngine):
        def __init__(self, config: EngineConfig) -> None:
            super().__init__(lambda request: written(label))

    return Engine


SaysB = says("Assistant B")


def judged(config: JudgeConfig, store: Path, **task: Any) -> dict[str, Any]:
    """The verdict that a run of the judge on this store gives."""
    worker = JudgeWorker(config.model_dump(), str(store), config.identity())
    row = group_row("g", [item(pair(**task)).model_dump(mode="json")])
    batch = {key: np.array([row[key]], dtype=object) for key in ("group", "payload")}
    verdict: dict[str, Any] = json.loads(asyncio.run(worker(batch))["payload"][0])["verdicts"][0]
    Store(store).refresh()
    return verdict


def test_three_engines_on_one_store_each_give_their_own_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(folder(tmp_path / "judge"))
    from mr3.inference import hosts

    real = hosts.open_engine
    answers = {"vllm": "Assistant A", "endpoint": "Tie"}
    monkeypatch.setattr(
        hosts, "open_engine", lambda c: says(answers[c.backend])(c) if c.backend in answers else real(c)
    )
    judges = [
        JudgeConfig(model=model),
        JudgeConfig(model=model, backend="tests.test_identity:SaysB"),
        JudgeConfig(model=model, backend="endpoint", url="http://a/v1", revision="1"),
    ]
    for _ in range(2):
        found = [judged(judge, tmp_path / "store") for judge in judges]
        assert [v["score"] for v in found] == ["Assistant A", "Assistant B", "Tie"]
    assert " by tests.test_identity:SaysB #" in found[1]["judge"], "a backend of one's own is named"
    assert Store(tmp_path / "store").refresh() == 3, "and the second time nothing was judged"


def test_a_retrained_model_behind_the_same_url_is_judged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(folder(tmp_path / "judge"))
    served = ["Assistant A"]
    monkeypatch.setattr("mr3.inference.hosts.open_engine", lambda config: says(served[0])(config))
    at = {"model": model, "backend": "endpoint", "url": "http://a/v1"}
    assert judged(JudgeConfig(**at, revision="monday"), tmp_path / "store")["score"] == "Assistant A"
    served[0] = "Assistant B"
    assert judged(JudgeConfig(**at, revision="tuesday"), tmp_path / "store")["score"] == "Assistant B"
    assert judged(JudgeConfig(**at, revision="monday"), tmp_path / "store")["score"] == "Assistant A", "kept"
    moved = JudgeConfig(**{**at, "url": "http://b/v1"}, revision="monday")
    assert judged(moved, tmp_path / "store")["score"] == "Assistant B", "another URL may serve anything"


def test_a_raised_limit_judges_again_what_was_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = folder(tmp_path / "judge")
    monkeypatch.setattr("mr3.inference.hosts.open_engine", lambda config: says("Tie")(config))
    at = {"backend": "endpoint", "url": "http://a/v1", "revision": "1"}
    write_card(model, CARD.model_copy(update={"max_prompt_tokens": 10}))
    assert judged(JudgeConfig(model=str(model), **at), tmp_path / "store")["outcome"] == "too_long"
    write_card(model, CARD)
    assert judged(JudgeConfig(model=str(model), **at), tmp_path / "store")["outcome"] == "ok"


def test_the_limit_is_in_a_verdicts_id_and_not_only_in_the_engines() -> None:
    cards = [CARD, CARD.model_copy(update={"max_prompt_tokens": 999, "max_output_tokens": 101})]
    assert cards[0].max_model_len == cards[1].max_model_len
    found = {Judge(c, make_tokenizer(), ScriptedEngine(str), "m").prepare(item(pair())).id for c in cards}
    assert len(found) == 2


def test_equal_weights_are_one_judge_wherever_they_lie(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "here"), folder(tmp_path / "mnt" / "there")
    for name in ("trainer_state.json", "optimizer.pt", "training_args.bin", "rng_state_0.pth"):
        (two / name).write_text("/tmp/this-run")
    same = {
        JudgeConfig(model=str(one)).identity(),
        JudgeConfig(model=str(two), host="here", seconds_per_token=9.0).identity(),
        JudgeConfig(model=str(two)).absolute().identity(),
    }
    assert len(same) == 1
    [name] = same
    assert name.startswith("model@") and " by vllm #" in name
    for file in ("model.safetensors", "generation_config.json", "tokenizer.json", "config.json"):
        before = (two / file).read_bytes()
        (two / file).write_bytes(before + b" ")
        assert JudgeConfig(model=str(two)).identity() not in same, file
        (two / file).write_bytes(before)


def test_an_adapter_is_itself_and_its_base(tmp_path: Path) -> None:
    base = folder(tmp_path / "base")
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_model.safetensors").write_bytes(b"delta")
    (lora / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "r": 8}))
    write_card(lora, CARD)
    judge = JudgeConfig(model=str(lora))
    first = judge.identity()
    assert first.startswith("adapter@") and " on model@" in first
    assert judge.inputs() == [str(lora), str(base)]
    (base / "model.safetensors").write_bytes(b"other")
    second = judge.identity()
    (lora / "adapter_model.safetensors").write_bytes(b"other")
    assert len({first, second, judge.identity()}) == 3


_ENGINE = EngineConfig(model="org/model", revision="a" * 40)
_VALUES = st.one_of(st.integers(1, 99), st.booleans(), st.sampled_from(["awq", "bfloat16", "x"]))


@given(st.sampled_from(sorted(INCIDENTAL)), _VALUES)
def test_an_incidental_argument_is_not_in_the_id(name: str, value: Any) -> None:
    assert model_identity(_ENGINE.model_copy(update={"engine": {name: value}})) == model_identity(_ENGINE)


_NAMES = st.one_of(
    st.sampled_from(
        ["quantization", "dtype", "load_format", "kv_cache_dtype", "hf_overrides", "tokenizer", "seed", "model_impl"]
    ),
    st.from_regex(r"[a-z]{3,8}_[a-z]{3,8}", fullmatch=True),
).filter(lambda name: name not in INCIDENTAL and ids.without_secrets({name: "x"}) == {name: "x"})


@given(_NAMES, _VALUES, _VALUES)
def test_every_other_argument_is_also_one_that_nobody_knows(name: str, value: Any, other: Any) -> None:
    plain, one = model_identity(_ENGINE), model_identity(_ENGINE.model_copy(update={"engine": {name: value}}))
    assert plain != one
    same = json.dumps(value) == json.dumps(other)
    assert (model_identity(_ENGINE.model_copy(update={"engine": {name: other}})) == one) is same


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "b" * 40},
        {"model": "org/other"},
        {"backend": "package.module:Class"},
        {"max_model_len": 64},
        {"engine": {"quantization": "awq"}},
        {"engine": {"dtype": "half"}},
        {"engine": {"load_format": "dummy"}},
        {"backend": "endpoint", "url": "http://a/v1"},
        {"backend": "chat", "url": "http://a/v1"},
        {"backend": "endpoint", "url": "http://a/v2"},
        {"backend": "endpoint", "url": "http://a:81/v1"},
    ],
    ids=json.dumps,
)
def test_whatever_decides_makes_another_id(change: dict[str, Any]) -> None:
    others = [_ENGINE, _ENGINE.model_copy(update={"backend": "endpoint", "url": "http://c/v1"})]
    assert model_identity(_ENGINE.model_copy(update=change)) not in map(model_identity, others)


def test_known_incidental_arguments_are_vllms() -> None:
    import dataclasses

    arguments = pytest.importorskip("vllm.engine.arg_utils").EngineArgs
    known = {f.name for f in dataclasses.fields(arguments)}
    assert INCIDENTAL - known <= {"disable_log_requests"}, "of older versions"
    assert not INCIDENTAL & {"dtype", "quantization", "load_format", "seed", "max_model_len", "kv_cache_dtype"}


def test_a_new_password_is_no_new_model() -> None:
    urls = ["http://me:one@a/v1?api_key=1", "http://me:two@a/v1?api_key=2"]
    found = {
        model_identity(EngineConfig(model="m", backend="endpoint", url=u, revision="1", engine={"hf_token": u}))
        for u in urls
    }
    assert len(found) == 1


@pytest.mark.parametrize("backend", ["endpoint", "chat"])
@pytest.mark.parametrize("config", [JudgeConfig, TeacherConfig, Translator, EngineConfig])
def test_weights_behind_an_endpoint_need_a_name(config: Any, backend: str) -> None:
    with pytest.raises(ValueError, match=r"set `revision` to a name of the weights.*change it whenever they change"):
        model_identity(config(model="m", backend=backend, url="http://a/v1"))


@pytest.mark.parametrize("config", [JudgeConfig, TeacherConfig, Translator, EngineConfig])
def test_an_unknown_backend_is_refused_where_it_is_named(config: Any) -> None:
    with pytest.raises(ValueError, match="unknown backend 'vlm'"):
        config(model="m", backend="vlm")


def test_a_branch_is_named_by_its_commit(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    ids.hub_commit.cache_clear()
    ids._unresolved.cache_clear()
    commits = {None: "c" * 40, "v1": "d" * 40}

    class Info:
        def __init__(self, sha: str) -> None:
            self.sha = sha

    import httpx
    import huggingface_hub

    def info(self: Any, model: str, revision: str | None, timeout: float) -> Info:
        if model == "org/model":
            return Info(commits[revision])
        raise httpx.ConnectError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *a, **k: f"/hub/snapshots/{'e' * 40}/config.json"
    )
    given: dict[str, Any] = {"profile": "compact", "max_prompt_tokens": 64, "max_output_tokens": 16}
    for revision, commit in commits.items():
        judge = JudgeConfig(model="org/model", revision=revision, **given)
        assert judge.identity().startswith(f"org/model@{commit} by vllm #")
        assert judge.absolute().revision == commit, "workers load what is in the id"
        assert judge.absolute().identity() == judge.identity()
    assert JudgeConfig(model="org/cached", **given).identity().startswith(f"org/cached@{'e' * 40} ")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
    assert JudgeConfig(model="org/none", revision="abc", **given).identity().startswith("org/none@abc ")
    assert not caplog.records
    assert JudgeConfig(model="org/none", **given).identity().startswith("org/none@main ")
    assert "Set `revision`" in caplog.text
    ids.hub_commit.cache_clear()


class Counted:
    """A generator that counts its requests."""

    takes_text = True
    asked = 0

    def __init__(self, config: EngineConfig) -> None:
        self.text = str(config.engine.get("quantization"))

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        Counted.asked += len(requests)
        return [Completion(id=r.id, text=self.text, finish="stop") for r in requests]

    def close(self) -> None:
        return


def test_generations_are_kept_under_all_that_decides_them(tmp_path: Path) -> None:
    Counted.asked = 0
    request = Request(id="r", prompt="p", sampling=Sampling())
    payload = json.dumps({"requests": [request.model_dump(mode="json")]})
    batch = {"group": np.array(["g"], dtype=object), "payload": np.array([payload], dtype=object)}
    plain = EngineConfig(model=str(folder(tmp_path / "m")), backend="tests.test_identity:Counted")
    small = plain.model_copy(update={"engine": {"quantization": "awq", "gpu_memory_utilization": 0.5}})
    large = plain.model_copy(update={"engine": {"quantization": "awq", "gpu_memory_utilization": 0.9}})
    texts = []
    for config in (plain, small, large):
        worker = GenerateWorker(config, model_identity(config), str(tmp_path / "store"))
        texts.append(json.loads(asyncio.run(worker(batch))["payload"][0])["completions"][0]["text"])
        Store(tmp_path / "store").refresh()
    assert texts == ["None", "awq", "awq"] and Counted.asked == 2
    changed = [
        request,
        request.model_copy(update={"prompt": "q"}),
        request.model_copy(update={"sampling": Sampling(seed=1)}),
    ]
    assert len({request_key("m", r) for r in changed} | {request_key("n", request)}) == 4
