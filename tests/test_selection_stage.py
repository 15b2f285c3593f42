"""`mr3 pairs` whole: label folders in, pairs in every format out; what every user of the pairs relies on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mr3.artifacts import metrics_of, read_json
from mr3.records import PAIRWISE_LABELS, PoolRow
from rewards.selection.config import PairsConfig
from rewards.selection.sources import Source, comparisons, open_source
from rewards.selection.stage import main, run
from rewards.walk import walk
from tests.selection_support import by_length, by_lot, pairs_config, pool_row, reordered, table, write_label

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = ("de", "en", "es")


@st.composite
def _pool(draw: st.DrawFn) -> list[PoolRow]:
    rows = []
    for i in range(draw(st.integers(3, 10))):
        texts = draw(
            st.lists(st.sampled_from(["", " ", "4", "4 ", "4444", "five", "six it is"]), min_size=2, max_size=5)
        )
        named = {f"r{k}": text for k, text in enumerate(texts)}
        rows.append(pool_row(f"p{i}", named, draw(st.sampled_from(LANGUAGES)), prompt=f"question {i}", content=i // 2))
    return rows


_changes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 3),
        "rule": st.sampled_from(["all", "all", "best_worst", "best_random", "nearest_below"]),
        "agreement": st.fixed_dictionaries(
            {"min_labels": st.integers(1, 2), "tie": st.sampled_from(["abstain", "veto"])}
        ),
        "min_margin": st.sampled_from([0.0, 0.3]),
        "max_margin": st.sampled_from([0.8, 1.0]),
        "max_length_ratio": st.sampled_from([None, 2.0]),
        "max_per_prompt": st.sampled_from([None, 1, 2]),
        "balance": st.sampled_from([None, "smallest", 2]),
        "max_pairs": st.sampled_from([None, 3, 5]),
        "heldout_share": st.sampled_from([0.0, 0.4]),
    }
)


def _written(folder: Path, name: str) -> list[dict[str, Any]]:
    rows = table(folder, name)
    return rows + (table(folder, f"{name}_heldout") if (folder / f"{name}_heldout.parquet").is_file() else [])


def _everything(folder: Path) -> list[Any]:
    """All that a run wrote but its manifest (paths, times)."""
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    parquet = [table(folder, name[: -len(".parquet")]) for name in names if name.endswith(".parquet")]
    texts = [
        (folder / n).read_text()
        for n in names
        if n.endswith((".md", ".json")) and "manifest" not in n and "started" not in n
    ]
    return [names, parquet, texts]


# No shrinking: every example writes and reads some thirty files.
_SOME = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)


@_SOME
@given(_pool(), _changes, st.integers(0, 5))
def test_what_holds_for_every_selection(rows: list[PoolRow], changes: dict[str, Any], lot: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = [
            write_label(
                folder / "pairwise", rows, by_lot(lot, [*PAIRWISE_LABELS * 2, "Assistant A", None]), plan="circular"
            ),
            write_label(
                folder / "scores",
                rows[1:],
                by_lot(lot, ["1", "2", "3", "5", None]),
                mode="pointwise",
                pair_rule="none",
                samples=2,
            ),
        ]
        config = pairs_config(folder / "out", labels, formats=["trl", "kto", "ranked", "llamafactory"], **changes)
        run(config)
        _check(config, rows)
        others = [reordered(label, folder / f"other-{label.name}", lot + i) for i, label in enumerate(labels)][::-1]
        named = [{"folder": o, "name": o.name.removeprefix("other-")} for o in others]
        again = pairs_config(folder / "again", named, **config.model_dump(exclude={"output_dir", "labels"}))
        run(again)
        assert _everything(config.output_dir) == _everything(again.output_dir), (
            "the order of rows and labels has no say"
        )


def _check(config: PairsConfig, rows: list[PoolRow]) -> None:
    folder, metrics = config.output_dir, metrics_of(config.output_dir)
    pairs = _written(folder, "preferences")
    said: dict[tuple[str, str, str], set[str]] = {}
    known: dict[str, set[str]] = {}
    for source in map(open_source, config.labels):
        for prompt in walk(source.folder):
            texts = {r["response_id"]: r["text"].strip() for r in prompt.responses}
            known.setdefault(source.name, set()).update(v["id"] for v in prompt.verdicts if v["outcome"] == "ok")
            for c in comparisons(prompt, source):
                if c.winner is not None and c.loser is not None:
                    said.setdefault((prompt.prompt_id, texts[c.winner], texts[c.loser]), set()).add(source.name)
    languages = {row.prompt_id: row.language for row in rows}
    for pair in pairs:
        [chosen], [rejected] = pair["chosen"], pair["rejected"]
        better, worse = chosen["content"], rejected["content"]
        assert better.strip() and worse.strip() and better.strip() != worse.strip()
        assert set(pair["labels"]) == said[pair["prompt_id"], better.strip(), worse.strip()], (
            "a decided comparison each"
        )
        assert len(pair["labels"]) >= config.agreement.min_labels and pair["agreement"] == 1.0
        assert pair["verdict_ids"] and set(pair["verdict_ids"]) <= set().union(*(known[n] for n in pair["labels"]))
        assert config.min_margin <= pair["margin"] <= config.max_margin
        if config.max_length_ratio:
            assert max(len(better), len(worse)) <= config.max_length_ratio * min(len(better), len(worse))
        assert pair["language"] == languages[pair["prompt_id"]]
    per_prompt, per_language = Counter(p["prompt_id"] for p in pairs), Counter(p["language"] for p in pairs)
    assert len({(p["prompt_id"], p["chosen_id"], p["rejected_id"]) for p in pairs}) == len(pairs) == metrics["pairs"]
    assert max(per_prompt.values(), default=0) <= (1 if config.rule != "all" else config.max_per_prompt or 99)
    assert len(pairs) <= (config.max_pairs or len(pairs))
    if config.balance == "smallest":
        assert len(set(per_language.values())) <= 1, "as many of every language that has any"
    elif config.balance:
        assert max(per_language.values(), default=0) <= 2
    apart = {p["prompt_id"] for p in pairs} & {p["prompt_id"] for p in table(folder, "preferences")}
    if config.heldout_share:
        assert apart.isdisjoint(p["prompt_id"] for p in table(folder, "preferences_heldout"))
    _check_funnel(metrics, per_language)
    _check_formats(folder, pairs, metrics)
    assert not (folder / "work").exists()


def _check_funnel(metrics: dict[str, Any], per_language: Counter[str]) -> None:
    funnel = metrics["funnel"]
    for step, after in zip(funnel, [*funnel[1:], None], strict=True):
        for entry in (step, *step["languages"].values()):
            assert entry["in"] - sum(entry["dropped"].values()) == entry["out"]
        for what in ("in", "out"):
            assert step[what] == sum(entry[what] for entry in step["languages"].values())
        if after is not None:
            assert {k: e["out"] for k, e in step["languages"].items()} == {
                k: e["in"] for k, e in after["languages"].items()
            }
    assert {k: e["out"] for k, e in funnel[-1]["languages"].items() if e["out"]} == per_language


def _check_formats(folder: Path, pairs: list[dict[str, Any]], metrics: dict[str, Any]) -> None:
    chosen = {(p["prompt_id"], p["chosen_id"]) for p in pairs}
    rejected = {(p["prompt_id"], p["rejected_id"]) for p in pairs}
    kto = {(r["prompt_id"], r["response_id"]): r["label"] for r in _written(folder, "kto")}
    assert kto == {**dict.fromkeys(chosen - rejected, True), **dict.fromkeys(rejected - chosen, False)}
    info = read_json(folder / "llamafactory" / "dataset_info.json")
    rows = [row for entry in info.values() for row in read_json(folder / "llamafactory" / entry["file_name"])]
    assert [(r["chosen"]["value"], r["rejected"]["value"]) for r in rows] == [
        (p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in pairs
    ]
    for row in _written(folder, "ranked"):
        assert len(row["responses"]) == len(row["scores"]) == len(set(row["response_ids"])) >= 2
        assert row["scores"] == sorted(row["scores"], reverse=True)
    assert metrics["formats"]["trl"]["train"] + metrics["formats"]["trl"].get("heldout", 0) == len(pairs)


def test_scores_give_the_comparisons_that_labelling_made(tmp_path: Path) -> None:
    rows = [pool_row(f"p{i}", {k: k * (i + 1) for k in "wxyz"}) for i in range(8)]
    label = write_label(
        tmp_path / "l", rows, by_lot(1, ["1", "2", "4", "5", None]), mode="pointwise", tie_margin=1.0, plan="chain"
    )
    source: Source = open_source(pairs_config(tmp_path / "o", [label]).labels[0])
    assert source.judge == "org/judge@1" and source.width == 4.0
    for prompt in walk(label):
        found = {frozenset((c.a, c.b)): c for c in comparisons(prompt, source)}
        assert len(found) == 6, "all pairs, not only those of the plan"
        for row in prompt.comparisons:
            derived = found[frozenset((row["a"], row["b"]))]
            assert derived.winner == {"a": row["a"], "b": row["b"]}.get(row["result"])
            assert derived.result == row["result"] or derived.a != row["a"]
            assert (derived.margin is None) == (row["margin"] is None)
            assert derived.margin is None or derived.margin * 4 == pytest.approx(row["margin"])


def test_the_language_of_responses(tmp_path: Path) -> None:
    german = "Die Antwort auf diese Frage ist ganz sicher die Zahl vier."
    english = "The answer to this question is most certainly the number four."
    rows = [
        pool_row("good", {"x": german + " " + german, "y": german}, "de"),
        pool_row("worse is foreign", {"x": german + " " + german, "y": english}, "de"),
        pool_row("better is foreign", {"x": english + " " + english, "y": german}, "de"),
        pool_row("short", {"x": "4 4", "y": "5"}, "de"),
    ]
    label = write_label(tmp_path / "l", rows, by_length)
    kept, funnel = {}, {}
    for check in ("both", "chosen"):
        config = pairs_config(tmp_path / check, [label], language={"check": check, "among": ["de", "en"]})
        run(config)
        kept[check] = {p["prompt_id"] for p in table(config.output_dir, "preferences")}
        funnel[check] = next(s for s in metrics_of(config.output_dir)["funnel"] if s["filter"] == "language")
    assert kept == {"both": {"good", "short"}, "chosen": {"good", "short", "worse is foreign"}}
    assert funnel["both"]["dropped"] == {"chosen_in_another": 1, "rejected_in_another": 1}
    assert funnel["both"]["language_not_told"] == 1, "what can't be told is kept and counted"


def test_a_held_out_prompt_stays_held_out(tmp_path: Path) -> None:
    rows = [
        pool_row(f"{language}{i}", {"x": "4 4", "y": "5"}, language, prompt=f"{language} {i}", content=i)
        for i in range(60)
        for language in LANGUAGES
    ]
    label = write_label(tmp_path / "l", rows, by_length)
    held: dict[tuple[str | None, int], set[str]] = {}
    for by, seed in product((None, "content"), (0, 1)):
        config = pairs_config(tmp_path / f"{by}{seed}", [label], seed=seed, heldout_share=0.3, heldout_by=by)
        run(config)
        held[by, seed] = {p["prompt_id"] for p in table(config.output_dir, "preferences_heldout")}
    assert held[None, 0] == held[None, 1] and held["content", 0] == held["content", 1], "whatever the seed"
    assert all(10 * 3 <= len(names) <= 26 * 3 for names in held.values())
    together = held["content", 0]
    assert all({name.replace("de", x) for x in LANGUAGES} <= together for name in together if "de" in name)
    with pytest.raises(ValueError, match="heldout_by is 'topic', but prompt"):
        run(pairs_config(tmp_path / "x", [label], heldout_share=0.3, heldout_by="topic"))


def test_label_runs_of_other_pools_are_refused(tmp_path: Path) -> None:
    row = {"x": "4 4", "y": "5"}
    first = write_label(tmp_path / "first", [pool_row("p", row)], by_length)
    for name, other, said in (
        ("prompt", pool_row("p", row, prompt="3+3?"), "another prompt"),
        ("language", pool_row("p", row, "es"), "another language"),
        ("text", pool_row("p", {**row, "y": "6"}), "response 'p-y'"),
    ):
        label = write_label(tmp_path / name, [other], by_length)
        with pytest.raises(ValueError, match="not of one pool") as caught:
            run(pairs_config(tmp_path / "out" / name, [first, label]))
        assert said in str(caught.value)
    more = write_label(tmp_path / "more", [pool_row("p", {**row, "z": "4 4 4"}), pool_row("q", row)], by_length)
    config = pairs_config(tmp_path / "out" / "more", [first, more])
    run(config)
    assert metrics_of(config.output_dir)["prompts_by_labels"] == {"1": 1, "2": 1}, "a run may have more than another"
    assert len(table(config.output_dir, "preferences")) == 4


def test_languages_in_balance(tmp_path: Path) -> None:
    counts = dict(zip(LANGUAGES, (3, 7, 5), strict=True))
    rows = [pool_row(f"{k}{i}", {"x": "4 4", "y": "5"}, k, f"{k} {i}") for k, n in counts.items() for i in range(n)]
    label = write_label(tmp_path / "l", rows, by_length)
    for changes, wanted in (
        ({}, (3, 7, 5)),
        ({"balance": "smallest"}, (3, 3, 3)),
        ({"balance": "smallest", "max_pairs": 8}, (2, 2, 2)),
        ({"balance": "smallest", "max_pairs": 99}, (3, 3, 3)),
        ({"balance": 4}, (3, 4, 4)),
    ):
        config = pairs_config(tmp_path / "-".join(map(str, changes.values())) / "o", [label], **changes)
        run(config)
        assert Counter(p["language"] for p in table(config.output_dir, "preferences")) == dict(
            zip(LANGUAGES, wanted, strict=True)
        )
    drawn = set()
    for seed in range(6):
        config = pairs_config(tmp_path / f"seed{seed}", [label], seed=seed, balance=4, max_pairs=6)
        run(config)
        rows_out = table(config.output_dir, "preferences")
        assert len(rows_out) == 6 and max(Counter(p["language"] for p in rows_out).values()) <= 4
        drawn.add(frozenset(p["prompt_id"] for p in rows_out))
    assert len(drawn) > 1, "another seed draws others"


def test_margins_are_between_the_thresholds(tmp_path: Path) -> None:
    scores = {"w": "1", "x": "2", "y": "4", "z": "5"}
    rows = [pool_row("p", {k: k for k in scores})]
    label = write_label(tmp_path / "l", rows, lambda _, task: scores[task.responses[0]], mode="pointwise")
    found = {}
    for low, high in ((0.0, 1.0), (0.5, 1.0), (0.25, 0.5)):
        config = pairs_config(tmp_path / f"{low}-{high}", [label], min_margin=low, max_margin=high)
        run(config)
        found[low, high] = sorted(p["margin"] for p in table(config.output_dir, "preferences"))
    assert found == {
        (0.0, 1.0): [0.25, 0.25, 0.5, 0.75, 0.75, 1.0],
        (0.5, 1.0): [0.5, 0.75, 0.75, 1.0],
        (0.25, 0.5): [0.25, 0.25, 0.5],
    }


def test_few_pairs_for_many_languages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [pool_row(lang, {"x": "4 4", "y": "5"}, lang) for lang in LANGUAGES]
    label = write_label(tmp_path / "l", rows, by_length)
    words = ["--labels", f"[{{folder: {label}}}]", "--balance", "smallest", "--max_pairs", "2"]
    assert main(["--output_dir", str(tmp_path / "o"), *words]) == 2
    assert "max_pairs is 2 for 3 languages" in capsys.readouterr().err
    assert main(["--output_dir", str(tmp_path / "o2"), "--labels", f"[{{folder: {tmp_path / 'absent'}}}]"]) == 2
    assert "mr3 label" in capsys.readouterr().err
    (label / "prompts.parquet").unlink()
    assert main(["--output_dir", str(tmp_path / "o3"), "--labels", f"[{{folder: {label}}}]"]) == 2
    assert "run `mr3 label` again" in capsys.readouterr().err


def test_nothing_is_left(tmp_path: Path) -> None:
    label = write_label(tmp_path / "l", [pool_row("p", {"x": "4", "y": "5"})], by_length)
    config = pairs_config(tmp_path / "o", [label], formats=["trl", "llamafactory"], balance="smallest", max_pairs=1)
    run(config)
    assert table(config.output_dir, "preferences") == [] and metrics_of(config.output_dir)["pairs"] == 0
    assert read_json(config.output_dir / "llamafactory" / "preferences.json") == []
    assert metrics_of(config.output_dir)["funnel"][0]["dropped"] == {"tie": 1}


def test_the_command(tmp_path: Path) -> None:
    """The real CLI in fresh processes of two hash seeds: the same files; run again, nothing is done."""
    rows = [
        pool_row(
            f"p{i}", {"x": f"{i}", "y": "five " * (i % 4), "z": "it is " + "4" * i}, LANGUAGES[i % 3], f"question {i}"
        )
        for i in range(30)
    ]
    labels = [write_label(tmp_path / n, rows, by_lot(s, PAIRWISE_LABELS), plan="circular") for s, n in enumerate("ab")]
    data = {
        "labels": [{"folder": str(label), "weight": w} for label, w in zip(labels, (2.0, 1.0), strict=True)],
        "agreement": {"min_share": 0.6},
        "max_per_prompt": 2,
        "balance": "smallest",
        "heldout_share": 0.2,
        "formats": ["trl", "kto", "ranked", "llamafactory"],
    }
    (tmp_path / "pairs.yaml").write_text(yaml.safe_dump(data))
    outcomes = []
    for seed in ("1", "2"):
        out = tmp_path / f"out{seed}"
        command = [sys.executable, "-m", "mr3.cli.main", "pairs", "--config", str(tmp_path / "pairs.yaml")]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        for said in ("pairs of", "nothing to choose"):
            done = subprocess.run(
                [*command, "--output_dir", str(out)],
                capture_output=True,
                text=True,
                cwd=ROOT,
                env=environment,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert said in done.stderr
        outcomes.append(_everything(out))
    assert outcomes[0] == outcomes[1]
    assert metrics_of(tmp_path / "out1")["pairs"] >= 3
    card = (tmp_path / "out1" / "README.md").read_text(encoding="utf-8")
    assert "| agreement |" in card and json.dumps(str(tmp_path)) not in card and str(tmp_path) not in card


def test_trl_reads_what_was_written(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl.data_utils import is_conversational, maybe_extract_prompt, unpair_preference_dataset

    texts = dict(zip("wxyz", ("4", "44", "444", "4444"), strict=True))
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    rows = [pool_row("p", texts, prompt=system), pool_row("q", texts)]
    label = write_label(tmp_path / "l", rows, by_length)
    config = pairs_config(tmp_path / "o", [label], formats=["trl", "kto", "ranked"], rule="best_worst")
    run(config)
    paired = Dataset.from_parquet(str(config.output_dir / "preferences.parquet"), cache_dir=str(tmp_path / "c"))
    unpaired = Dataset.from_parquet(str(config.output_dir / "kto.parquet"), cache_dir=str(tmp_path / "c"))
    for data in (paired, unpaired):
        assert all(
            is_conversational({k: row[k]}) for row in data for k in row if k in ("prompt", "chosen", "completion")
        )
    assert all(maybe_extract_prompt(row) == row for row in paired), "an explicit prompt is left as it is"
    by_trl = unpair_preference_dataset(paired.select_columns(["prompt", "chosen", "rejected"]))
    ours = unpaired.select_columns(["prompt", "completion", "label"])
    assert by_trl.features == ours.features

    def plain(data: Any) -> list[str]:
        return sorted(json.dumps(row, sort_keys=True) for row in data)

    assert plain(by_trl) == plain(ours)
    assert [r["responses"] for r in table(config.output_dir, "ranked")] == [["4444", "444", "44", "4"]] * 2
    assert len(list(combinations(texts, 2))) == metrics_of(config.output_dir)["funnel"][0]["in"] / 2
