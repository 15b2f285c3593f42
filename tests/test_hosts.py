"""A host keeps few engines, never closes one at work, and knows new weights from old ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mr3.inference.engine import Completion, EngineConfig, Request, Sampling
from mr3.inference.hosts import _LAPSE_S, EngineCache, Turns, engine_key

BASE = str(Path(__file__).parent.parent / "mr3" / "nano" / "base")


class Fake:
    """Knows whether it was closed."""

    def __init__(self, config: EngineConfig) -> None:
        self.config, self.closed = config, False

    async def generate(self, requests: list[Request]) -> list[Completion]:
        return []

    def close(self) -> None:
        self.closed = True


def take(cache: EngineCache, name: str) -> Fake:
    engine = cache.take(name, EngineConfig(model=name))
    assert isinstance(engine, Fake)
    return engine


def test_the_engine_that_waited_longest_makes_room() -> None:
    cache = EngineCache(Fake, kept=2)
    first, second = take(cache, "a"), take(cache, "b")
    cache.give("a")
    cache.give("b")
    assert take(cache, "a") is first
    third = take(cache, "c")
    assert second.closed and not first.closed and not third.closed and len(cache) == 2


def test_an_engine_at_work_is_never_closed() -> None:
    cache = EngineCache(Fake, kept=1)
    one, two = take(cache, "a"), take(cache, "b")
    assert not one.closed and len(cache) == 2
    cache.give("a")
    cache.give("b")
    take(cache, "c")
    assert one.closed and two.closed and len(cache) == 1


def test_a_shared_engine_is_for_many_or_for_one() -> None:
    now = [0.0]
    turns = Turns(lambda: now[0])
    with turns.inside(None):
        assert turns.open_to(None) and not turns.enter("a"), "somebody is in"
        assert not turns.open_to(None), "and nobody comes in before who wants to be alone"
    assert turns.enter("a") and turns.open_to("a") and not turns.open_to(None) and not turns.enter("b")
    turns.leave("a")
    assert not turns.open_to("a") and not turns.open_to(None) and turns.enter("b")
    with turns.inside("b"):
        now[0] += 10 * _LAPSE_S
        assert not turns.open_to(None), "however long it takes"
    assert not turns.open_to(None)
    now[0] += 2 * _LAPSE_S
    assert turns.open_to(None) and not turns.open_to("b"), "who is not heard of any more keeps nobody out"


def test_new_weights_are_another_engine(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1")
    config = EngineConfig(model=str(tmp_path))
    before = engine_key(config)
    assert before == engine_key(config)
    (tmp_path / "model.safetensors").write_bytes(b"22")
    assert engine_key(config) != before


def test_a_real_host_serves_one_model_after_another_and_refuses_unknown_arguments(tmp_path: Path) -> None:
    import shutil

    from mr3.inference.hosts import open_engine
    from mr3.inference.session import ray_session

    copy = tmp_path / "copy"
    shutil.copytree(BASE, copy)
    small = {"kv_cache_memory_bytes": 64 << 20}
    requests = [Request(id=str(i), prompt=f"cats: {i}, dogs: 5.", sampling=Sampling(max_tokens=6)) for i in range(5)]
    with ray_session():
        texts = []
        for model in (BASE, str(copy), BASE):
            engine = open_engine(EngineConfig(model=model, max_model_len=256, engine=small, host="test"))
            texts.append([c.text for c in asyncio.run(engine.generate(requests))])
        both = [
            open_engine(EngineConfig(model=model, max_model_len=256, engine=small, host="test"))
            for model in (BASE, str(copy))
        ]

        async def at_once() -> list[list[Completion]]:
            return await asyncio.gather(*(engine.generate(requests * 40) for engine in both for _ in range(3)))

        for answers in asyncio.run(at_once()):
            assert [c.text for c in answers] == texts[0] * 40, "engines of one process must not disturb each other"
        wrong = open_engine(EngineConfig(model=BASE, engine={"max_num_seq": 1}, host="test"))
        with pytest.raises(ValueError, match="max_num_seqs"):
            asyncio.run(wrong.generate(requests))
    assert texts[0] == texts[1] == texts[2] and all(texts[0])
