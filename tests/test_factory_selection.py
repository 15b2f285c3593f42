"""Balance and order: exact numbers, the same choice whatever the order of arrival, and six orders as they are named."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr3.factory.config import ORDERS, Order, Selection
from mr3.factory.orders import Keys, permutation, write_in_order
from mr3.factory.selection import allocate, choose, quotas, tie_break

counts = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 500), min_size=1)


@given(counts, st.floats(0, 1), st.floats(0, 1))
def test_allocation_is_exact_and_within_what_is_there(there: dict[str, int], share: float, alpha: float) -> None:
    total = int(share * sum(there.values()))
    given_out = allocate(there, total, alpha)
    assert sum(given_out.values()) == total and given_out.keys() == there.keys()
    assert all(0 <= given_out[k] <= n for k, n in there.items())


@given(counts, st.floats(0, 1))
def test_a_larger_cell_never_gets_less(there: dict[str, int], share: float) -> None:
    made = allocate(there, int(share * sum(there.values())), 0.5)
    order = sorted(there, key=lambda k: there[k])
    assert all(made[a] <= made[b] + 1 for a, b in pairwise(order))


def test_alpha_goes_from_equal_to_as_is() -> None:
    there = {"en": 900, "sw": 90, "yo": 10}
    assert allocate(there, 100, 1.0) == {"en": 90, "sw": 9, "yo": 1}
    assert allocate(there, 90, 0.0) == {"en": 40, "sw": 40, "yo": 10}, "what a small cell lacks goes to the others"
    with pytest.raises(ValueError, match="are there"):
        allocate(there, 1_001, 1.0)


def test_quotas_keep_the_caps_and_the_total() -> None:
    cells = Counter({("en", "a"): 100, ("en", "b"): 50, ("de", "a"): 30})
    taken = quotas(cells, Selection(per_language=60, per_source=80))
    per_language, per_source = Counter[str](), Counter[str]()
    for (language, source), n in taken.items():
        per_language[language] += n
        per_source[source] += n
    assert max(per_language.values()) <= 60 and max(per_source.values()) <= 80
    assert sum(quotas(cells, Selection(rows=70)).values()) == 70


@settings(max_examples=60)
@given(st.integers(0, 2**20), st.integers(1, 120))
def test_the_choice_does_not_depend_on_the_order_of_arrival(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    cells = [("en", "a"), ("de", "a"), ("de", "b")]
    code = rng.integers(0, 3, 120).astype(np.int32)
    right = rng.integers(0, 5, 120).astype(np.int8)
    names = [f"row-{i}" for i in range(120)]
    ties, settings_ = tie_break(seed, names), Selection(rows=rows)
    first = choose(cells, code, right, ties, settings_, 2)
    shuffled = rng.permutation(120)
    second = choose(cells, code[shuffled], right[shuffled], ties[shuffled], settings_, 2)
    assert first.sum() == rows and (second == first[shuffled]).all()
    for cell in range(3):
        taken, left = right[first & (code == cell)], right[~first & (code == cell)]
        assert not (any(taken > 2) and any(left <= 2)), "a row that is preferred is never left for one that is not"


def keys(n: int, seed: int = 0) -> Keys:
    rng = np.random.default_rng(seed)
    right, tokens = rng.integers(0, 5, n).astype(np.int8), rng.integers(10, 30, n).astype(np.int32)
    return Keys(right, tokens, rng.random(n) < 0.3, tie_break(seed, [str(i) for i in range(n)]))


@pytest.mark.parametrize("order", ORDERS)
def test_orders_are_what_their_names_say(order: Order) -> None:
    k = keys(200)
    places = permutation(order, k)
    assert sorted(places) == list(range(200)) and (places == permutation(order, k)).all()
    english, level = k.english[places], list(zip(-k.right[places], k.tokens[places], strict=True))
    parts = [level]
    if order.startswith("english-first"):
        n = int(english.sum())
        assert english[:n].all() and not english[n:].any()
        parts = [level[:n], level[n:]]
    for part in parts:
        if "easy-hard" in order:
            assert part == sorted(part)
        elif "hard-easy" in order:
            assert part == sorted(part, reverse=True)
        else:
            assert part not in (sorted(part), sorted(part, reverse=True))


def test_one_key_alone_leaves_the_other_to_the_seed() -> None:
    k = keys(400)
    consistency, length = permutation("consistency", k), permutation("length", k)
    assert (np.diff(k.right[consistency]) <= 0).all() and (np.diff(k.tokens[length]) >= 0).all()
    easiest = k.tokens[consistency][k.right[consistency] == 4]
    assert list(easiest) != sorted(easiest), "ties are not broken by length"
    other = Keys(k.right, k.tokens, k.english, tie_break(1, [str(i) for i in range(400)]))
    assert list(permutation("consistency", other)) != list(consistency)


def test_files_are_rewritten_in_order_whatever_the_buckets(tmp_path: Path) -> None:
    table = pa.table({"id": [f"r{i}" for i in range(53)], "n": list(range(53))})
    parts = [tmp_path / f"part-{i}.parquet" for i in range(3)]
    for file, begin in zip(parts, (0, 20, 40), strict=True):
        pq.write_table(table.slice(begin, 20), file)
    order = np.random.default_rng(1).permutation(53).astype(np.int64)
    out = {tmp_path / "all.parquet": lambda t: t, tmp_path / "even.parquet": lambda t: t.filter(_even(t))}
    write_in_order(parts, order, out, tmp_path / "scratch", bucket_rows=7)
    assert pq.read_table(tmp_path / "all.parquet").equals(table.take(pa.array(order)))
    assert pq.read_table(tmp_path / "even.parquet")["n"].to_pylist() == [n for n in order if n % 2 == 0]
    assert not list((tmp_path / "scratch").iterdir()) and not list(tmp_path.glob(".*tmp"))


def _even(table: pa.Table) -> pa.Array:
    return pa.array([n % 2 == 0 for n in table["n"].to_pylist()], pa.bool_())
