"""The parts of `mr3 pairs`: votes of several judges, rules, rankings, draws, the funnel, the formats."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr3.config import build_config
from rewards.pairs import Choice, pick, standings
from rewards.records import Comparison
from rewards.selection.card import fenced
from rewards.selection.config import Agreement, PairsConfig
from rewards.selection.draw import Draw
from rewards.selection.funnel import Funnel, cell, funnel_tables
from rewards.selection.outputs import JsonWriter, sharegpt, unpaired
from rewards.selection.ranking import Ranking, rank
from rewards.selection.votes import Decision, Vote, decide, turned

TEXTS = {i: f"text of {i}" for i in ("best", "near", "middle", "far", *(f"r{n}" for n in range(6)))}
_abstain = st.sampled_from(["abstain", "veto"])
_share = st.floats(0.0, 1.0).map(lambda x: round(x, 2))


def _won(winner: str, loser: str, margin: float = 1.0) -> Comparison:
    return turned(Comparison(a=winner, b=loser, result="a", p_a=(1 + margin) / 2, margin=margin, verdict_ids=("v",)))


def _decision(winner: str, loser: str, margin: float = 1.0) -> Decision:
    return Decision(_won(winner, loser, margin), ("judge",), 1.0)


@st.composite
def _votes(draw: st.DrawFn) -> list[Vote]:
    made = []
    for i in range(draw(st.integers(1, 4))):
        result = draw(st.sampled_from(["a", "b", "tie", "failed"]))
        margin = None if result == "failed" else draw(_share)
        comparison = Comparison(a="x", b="y", result=result, margin=margin, verdict_ids=(f"v{i}",))
        made.append(Vote(f"judge{i}", draw(st.sampled_from([0.1, 0.5, 1.0, 2.0])), comparison))
    return made


_rules = st.builds(
    Agreement,
    min_labels=st.integers(1, 3),
    min_share=st.sampled_from([0.51, 0.6, 0.75, 1.0]),
    tie=_abstain,
    failed=_abstain,
    missing=_abstain,
)


@given(_votes(), st.integers(0, 2), _rules, st.randoms(use_true_random=False))
def test_a_decision_rests_on_enough_judges_that_say_so(
    votes: list[Vote], absent: int, rules: Agreement, draw: Any
) -> None:
    labels = len(votes) + absent
    found = decide(votes, labels, rules)
    assert found == decide(draw.sample(votes, len(votes)), labels, rules), "the order of the judges has no say"
    results = Counter(v.comparison.result for v in votes)
    if isinstance(found, str):
        if not results["a"] and not results["b"]:
            assert found == ("tie" if results["tie"] else "failed")
        return
    agreeing = [v for v in votes if v.comparison.winner == found.winner]
    opposed = [v for v in votes if v.comparison.winner not in (None, found.winner)]
    assert found.labels == tuple(v.label for v in agreeing) and len(agreeing) >= rules.min_labels
    weight, against = sum(v.weight for v in agreeing), sum(v.weight for v in opposed)
    assert weight > against and weight / (weight + against) >= rules.min_share - 1e-6
    assert found.comparison.verdict_ids == tuple(i for v in agreeing for i in v.comparison.verdict_ids)
    assert not (rules.tie == "veto" and results["tie"]) and not (rules.failed == "veto" and results["failed"])
    assert not (rules.missing == "veto" and absent)
    assert -1.0 <= found.margin <= max(v.comparison.margin or 0.0 for v in agreeing) + 1e-9


def test_agreement_by_number_share_and_veto() -> None:
    def say(*results: str, **rules: Any) -> Decision | str:
        votes = [
            Vote(f"j{i}", w, Comparison(a="x", b="y", result=r, p_a={"a": 0.9, "b": 0.2}.get(r), margin=m))  # type: ignore[arg-type]
            for i, (r, w, m) in enumerate(zip(results, (2.0, 1.0, 1.0), (0.8, 0.6, 0.0), strict=False))
        ]
        return decide(votes, 3, Agreement(**rules))

    assert say("a", "b") == "disagreement" and say("a", "tie", "failed", tie="veto") == "veto_tie"
    assert (
        say("a", "tie", "failed", failed="veto") == "veto_failed" and say("a", "tie", missing="veto") == "veto_missing"
    )
    assert say("a", "tie", min_labels=2) == "too_few_labels" and say("b", "a", "a", min_share=0.6) == "split"
    outvoted = say("a", "b", min_share=0.6)
    assert isinstance(outvoted, Decision) and outvoted.winner == "x" and outvoted.labels == ("j0",)
    assert outvoted.share == pytest.approx(2 / 3) and outvoted.margin == pytest.approx((2 * 0.8 - 0.6) / 3)
    assert outvoted.comparison.p_a == pytest.approx((2 * 0.9 + 0.2) / 3)


@st.composite
def _graph(draw: st.DrawFn) -> tuple[list[Comparison], list[Comparison]]:
    """Decided comparisons of one prompt, and those of them that filters left."""
    ids = [f"r{i}" for i in range(draw(st.integers(2, 6)))]
    edges = draw(st.lists(st.sampled_from(list(combinations(ids, 2))), unique=True, min_size=1))
    decided = [_won(*(edge if draw(st.booleans()) else edge[::-1]), draw(_share)) for edge in edges]
    return decided, [c for c in decided if draw(st.booleans())]


@given(_graph(), st.floats(0, 1), st.integers(0, 5))
def test_one_pair_rules_take_what_they_promise(
    graph: tuple[list[Comparison], list[Comparison]], gap: float, seed: int
) -> None:
    decided, eligible = graph
    choice = Choice(standings(decided), TEXTS, gap, seed, "p")
    for rule in ("best_worst", "best_random", "nearest_below"):
        taken = pick(eligible, rule, choice)
        assert len(taken) <= 1 and all(c in eligible for c in taken)
        assert taken == pick(eligible[::-1], rule, Choice(standings(decided[::-1]), TEXTS, gap, seed, "p"))
        if not taken:
            continue
        winner, margin = taken[0].winner or "", taken[0].margin or 0.0
        if rule != "best_worst":
            net = {c.winner: choice.standing[c.winner or ""] for c in eligible}
            assert net[winner] == max(net.values()) and net[winner][0] > 0
        if rule == "nearest_below":
            below = [c.margin or 0.0 for c in eligible if c.winner == winner and (c.margin or 0.0) >= gap]
            assert margin == min(below)


def test_nearest_below_is_the_closest_that_is_far_enough() -> None:
    scores = {"best": 1.0, "near": 0.9, "middle": 0.6, "far": 0.1}
    decided = [_won(a, b, scores[a] - scores[b]) for a, b in combinations(scores, 2)]
    choice = Choice(standings(decided), TEXTS, gap=0.2, prompt_id="p")
    assert [(c.winner, c.loser) for c in pick(decided, "nearest_below", choice)] == [("best", "middle")]
    drawn = {
        (c.winner, c.loser)
        for seed in range(30)
        for c in pick(decided, "best_random", Choice(standings(decided), TEXTS, 0.0, seed, "p"))
    }
    assert drawn == {("best", loser) for loser in ("near", "middle", "far")}


@given(_graph())
def test_a_ranking_is_the_only_order(graph: tuple[list[Comparison], list[Comparison]]) -> None:
    decided, eligible = ([Decision(c, ("j",), 1.0) for c in part] for part in graph)
    found = rank(decided, eligible)
    if not isinstance(found, Ranking):
        assert found in ("no_pair", "circle", "open")
        return
    place = {name: i for i, name in enumerate(found.ids)}
    assert set(place) == {n for d in eligible for n in (d.winner, d.loser)}
    direct = {(d.winner, d.loser): d.margin for d in eligible}
    for d in decided:
        if d.winner in place and d.loser in place:
            assert place[d.winner] < place[d.loser], "no decision contradicts the order"
    for i, (above, below) in enumerate(pairwise(found.ids)):
        assert found.scores[i] - found.scores[i + 1] == pytest.approx(direct[above, below])
    assert found.scores[-1] == 0.0


def test_what_is_no_ranking() -> None:
    circle = [_decision("x", "y"), _decision("y", "z"), _decision("z", "x")]
    assert rank(circle, circle) == "circle" and rank(circle, []) == "no_pair"
    fork = [_decision("x", "y"), _decision("x", "z")]
    assert rank(fork, fork) == "open", "y and z were never told apart"
    row = [_decision("x", "y", 0.5), _decision("y", "z", 0.25), _decision("x", "z", 0.1)]
    assert rank(row, row) == Ranking(("x", "y", "z"), (0.75, 0.25, 0.0), ("judge",))
    assert rank(row, [row[0], row[2]]) == "open", "a step that a filter dropped carries no order"


@given(
    st.lists(
        st.tuples(st.sampled_from(["en", "en", "es"]), st.integers(0, 5).map(lambda n: n << 61)),
        min_size=6,
        max_size=24,
    ),
    st.integers(0, 6),
)
def test_a_draw_takes_exactly_the_smallest(items: list[tuple[str, int]], wanted: int) -> None:
    """Few different numbers: ties at the cut are the rule here."""
    draw = Draw(lambda: iter(items), {"en": wanted})
    takes = draw.taker()
    taken = [item for item in items if takes(*item)]
    english = sorted(n for language, n in items if language == "en")
    assert sorted(n for language, n in taken if language == "en") == english[:wanted]
    assert Counter(taken)["es", 0] == Counter(items)["es", 0], "groups without a quota are left alone"
    again = draw.taker()
    assert taken == [item for item in items if again(*item)]


def test_a_funnel_in_which_pairs_get_lost_is_a_bug() -> None:
    funnel = Funnel()
    funnel.add("agreement", "en", 5, {"tie": 2})
    funnel.add("agreement", "a|b", 0, {})
    funnel.add("margin", "en", 3, {"too_close": 1, "too_clear": 0})
    funnel.note("margin", "en", "odd", 1)
    first, second = funnel.report()
    assert (first["in"], first["out"], second["in"], second["out"]) == (5, 3, 3, 2)
    assert second["dropped"] == {"too_close": 1} and second["languages"]["a|b"] == {"in": 0, "out": 0, "dropped": {}}
    text = funnel_tables(funnel.report())
    assert "| en | 5 | 3 | 2 | 40.0% |" in text and "| a\\|b | 0 | 0 | 0 | - |" in text
    assert "| margin | 3 | 2 | too_close 1 | odd 1 |" in text
    funnel.add("length", "en", 1, {})
    with pytest.raises(AssertionError, match="lost between margin and length"):
        funnel.report()


def _pair(chosen: str, rejected: str, prompt: list[dict[str, str]] | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt": prompt or [{"role": "user", "content": "?"}], "prompt_id": "p", "language": "en"}
    for side, name in (("chosen", chosen), ("rejected", rejected)):
        row |= {f"{side}_id": name, f"{side}_policy": f"p-{name}", side: [{"role": "assistant", "content": name}]}
    return {**row, "labels": ["judge"], "margin": 1.0}


def test_unpaired_rows_never_contradict_each_other() -> None:
    found = unpaired([_pair("x", "y"), _pair("y", "z"), _pair("x", "z")])
    assert [(r["response_id"], r["label"], r["pairs"]) for r in found] == [("x", True, 2), ("z", False, 2)]


@given(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=5))
def test_sharegpt_rows_take_turns(roles: list[str]) -> None:
    row = sharegpt(_pair("x", "y", [{"role": r, "content": r} for r in roles] or None))
    spoken = roles[1:] if roles[:1] == ["system"] else roles or ["user"]
    good = len(spoken) % 2 == 1 and all(r == ("user", "assistant")[i % 2] for i, r in enumerate(spoken))
    assert (row is not None) == good
    if row is not None:
        assert [t["from"] for t in row["conversations"]][-1] == "human"
        assert row["chosen"] == {"from": "gpt", "value": "x"} and row["rejected"] == {"from": "gpt", "value": "y"}


def test_a_json_list_is_whole_or_absent(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    with pytest.raises(KeyboardInterrupt), JsonWriter(file) as out:
        out.write([{"a": 1}])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with JsonWriter(file) as out:
        assert not file.exists()
        out.write([{"a": "é\n"}, {"a": 2}])
    assert json.loads(file.read_text(encoding="utf-8")) == [{"a": "é\n"}, {"a": 2}]


def test_text_can_not_break_the_card() -> None:
    assert cell("a|b\nc\\") == "a\\|b c\\\\"
    assert fenced("```\nx", "yaml") == "````yaml\n```\nx\n````"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": []}, "labels: List should have at least 1 item"),
        ({"labels": [{"folder": "a/l"}, {"folder": "b/l"}]}, "two labels are called 'l'"),
        ({"min_margin": 0.6, "max_margin": 0.5}, "no pair could pass"),
        ({"agreement": {"min_labels": 2}}, "min_labels is 2, but 1 labels"),
        ({"agreement": {"min_share": 0.5}}, "greater than 0.5"),
        ({"rule": "best"}, "unknown pair rule 'best': choose one of all,"),
        ({"gap": 0.1}, "gap belongs to rule nearest_below"),
        ({"balance": 0}, "balance is 0"),
        ({"push_to_hub": "a/b/c"}, "give owner/name"),
        ({"formats": ["parquet"]}, "formats.0"),
    ],
)
def test_mistakes_in_the_config_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="not a valid PairsConfig") as caught:
        build_config(PairsConfig, {"output_dir": "x", "labels": [{"folder": "a/label"}], **changes}, "test")
    assert said in str(caught.value)
