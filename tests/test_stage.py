"""The frame of stages: lines that tell how far one is come now and then, not with every row."""

from __future__ import annotations

import pytest

from mr3.stage import RateLimit


def test_a_line_comes_once_in_so_many_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((100.0, 100.0, 109.9, 110.0, 110.1, 119.9, 150.0, 151.0, 160.0))
    monkeypatch.setattr("mr3.stage.time.monotonic", lambda: next(clock))
    due = RateLimit(10.0)
    assert [due() for _ in range(8)] == [False, False, True, False, False, True, False, True]
