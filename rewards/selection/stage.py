"""`mr3 pairs`: choose preference pairs from one or several label runs of a pool.

In: folders that `mr3 label` made, of several judges or rubrics. Out, in `output_dir`: preferences.parquet (TRL) and
the other formats that are asked for, funnel.md (which filter kept how many pairs of which language), README.md (the
data card) and metrics.json. With `push_to_hub` the data and the card are uploaded.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mr3.artifacts import StageRun, finished_files, stage_run, write_atomic
from mr3.stage import RateLimit, stage_main
from rewards.pairs import Choice, by_lot, pick, standings
from rewards.selection.candidates import CANDIDATES, Quotas, candidate_row, fitting, held_out
from rewards.selection.config import PairsConfig
from rewards.selection.filters import Filters, decisions
from rewards.selection.funnel import Funnel, funnel_tables
from rewards.selection.merge import Merged, merged
from rewards.selection.outputs import Outputs
from rewards.selection.publish import check_audits, publish
from rewards.selection.ranking import Ranking, rank
from rewards.selection.sources import Source, flip_rate, open_source
from rewards.selection.votes import Decision
from rewards.tables import TableWriter

log = logging.getLogger(__name__)


class Selection:
    """One run: prompts in, candidates and ranked lists out, everything counted."""

    def __init__(self, config: PairsConfig, sources: Sequence[Source], outputs: Outputs, table: TableWriter) -> None:
        self.funnel = Funnel()
        self.rankings: Counter[str] = Counter()
        self.prompts_by_labels: Counter[int] = Counter()
        self._config = config
        self._sources = {source.name: source for source in sources}
        self._filters = Filters(config, self.funnel)
        self._outputs = outputs
        self._table = table

    def prompt(self, prompt: Merged) -> None:
        """Take one prompt."""
        self.prompts_by_labels[prompt.sources] += 1
        decided = decisions(prompt, self._config, self.funnel)
        passed = self._filters.passed(prompt, decided)
        heldout = held_out(prompt, self._config)
        pairs = self._chosen(prompt, decided, passed)
        seed = self._config.seed
        self._table.write([candidate_row(prompt, pair, self._sources, seed, heldout) for pair in pairs])
        if "ranked" in self._config.formats:
            found = rank(decided, passed)
            self.rankings[found if isinstance(found, str) else "written"] += 1
            if isinstance(found, Ranking):
                self._outputs.ranking(prompt, found, heldout)

    def _chosen(self, prompt: Merged, decided: Sequence[Decision], passed: Sequence[Decision]) -> list[Decision]:
        """What the rule takes of the pairs that passed; how responses stand is told by all decisions."""
        config, language = self._config, prompt.language
        texts = {i: r.text for i, r in prompt.responses.items()}
        choice = Choice(standings([d.comparison for d in decided]), texts, config.gap, config.seed, prompt.prompt_id)
        of = {(d.winner, d.loser): d for d in passed}
        taken = pick([d.comparison for d in passed], config.rule, choice)
        self.funnel.add("rule", language, len(passed), {f"not_{config.rule}": len(passed) - len(taken)})
        if config.max_per_prompt is not None:
            kept = by_lot(taken, choice, config.max_per_prompt)
            self.funnel.add("max_per_prompt", language, len(taken), {"over_quota": len(taken) - len(kept)})
            taken = kept
        return [of[c.winner or "", c.loser or ""] for c in taken]


def _select(config: PairsConfig, sources: Sequence[Source], stage: StageRun) -> None:
    work = stage.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    candidates = work / "candidates.parquet"
    splits = ["train", "heldout"] if config.heldout_share else ["train"]
    totals: Counter[str] = Counter()
    due = RateLimit()
    with Outputs(stage.folder, config.formats, splits) as outputs:
        with TableWriter(candidates, CANDIDATES) as table:
            selection = Selection(config, sources, outputs, table)
            for prompt in merged(sources, work / "buffer", config.seed):
                selection.prompt(prompt)
                if due():
                    log.info("%d prompts looked at", selection.prompts_by_labels.total())
        quotas = Quotas(candidates, config)
        for rows in fitting(candidates, quotas, config, selection.funnel):
            outputs.pairs(rows, rows[0]["heldout"])
            totals.update(prompts_with_pairs=1, pairs=len(rows), heldout_pairs=len(rows) * rows[0]["heldout"])
    stage.metrics = _metrics(sources, selection, outputs, totals, quotas)
    write_atomic(stage.folder / "funnel.md", funnel_tables(stage.metrics["funnel"]).encode())
    shutil.rmtree(work)


def _metrics(
    sources: Sequence[Source], selection: Selection, outputs: Outputs, totals: Counter[str], quotas: Quotas
) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "labels": {s.name: _about(s) for s in sources},
        "prompts": selection.prompts_by_labels.total(),
        "prompts_by_labels": {str(n): c for n, c in sorted(selection.prompts_by_labels.items())},
        "prompts_with_pairs": totals["prompts_with_pairs"],
        "pairs": totals["pairs"],
        "heldout_pairs": totals["heldout_pairs"],
        "quota_per_language": quotas.per_language,
        "funnel": selection.funnel.report(),
        "formats": outputs.report(),
        "policies": {name: dict(sorted(c.items())) for name, c in sorted(outputs.policies.items())},
    }
    if selection.rankings:
        metrics["rankings"] = dict(sorted(selection.rankings.items()))
    if len(sources) == 1 and (rate := flip_rate(sources[0])) is not None:
        metrics["flip_rate"] = rate  # of the label run: `mr3 dpo` takes its label smoothing from here
    return metrics


def _about(source: Source) -> dict[str, Any]:
    return {
        "weight": source.weight,
        "judge": source.judge,
        "mode": source.mode,
        "scale": list(source.scale),
        "seed": source.seed,
        "prompts": source.prompts,
        "rubric_hash": source.rubric_hash,
        "rubric": source.rubric.model_dump(mode="json"),
    }


def _check_margins(config: PairsConfig, sources: Sequence[Source]) -> None:
    limits = {"min_margin": config.min_margin, "gap": config.gap if config.rule == "nearest_below" else 0.0}
    used = [f"{name} is {value}" for name, value in limits.items() if value]
    if used and len(sources) == 1 and not sources[0].margins_vary:
        raise ValueError(
            f"{used[0]}, but every decided comparison of {sources[0].folder} has the margin 1: label with "
            "judge.sampling.logprobs (20), or leave it out"
        )


def run(config: PairsConfig) -> None:
    """Choose pairs, write the card, and upload where a repository is named.

    Raises:
        ValueError: for a label folder that is not finished, label runs of different pools, an audit of another run,
            a least margin where margins can't vary, or an upload whose source policies have no known licence.
    """
    sources = sorted((open_source(label) for label in config.labels), key=lambda source: source.name)
    check_audits(config)
    _check_margins(config, sources)
    inputs = [file for label in config.labels for file in finished_files(label.folder)]
    with stage_run("pairs", config.data, inputs) as stage:
        if stage.finished:
            log.info("%s is finished: nothing to choose", stage.folder)
        else:
            _select(config, sources, stage)
    _say(stage.metrics)
    publish(config)


def _say(metrics: dict[str, Any]) -> None:
    funnel = metrics["funnel"]
    log.info(
        "%d pairs of %d prompts; compared %d, %s",
        metrics["pairs"],
        metrics["prompts_with_pairs"],
        funnel[0]["in"] if funnel else 0,
        ", ".join(f"{step['filter']} {step['out']}" for step in funnel),
    )
    if not metrics["pairs"]:
        log.warning("no pair is left: funnel.md shows which filter dropped them")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the stage."""
    return stage_main("pairs", PairsConfig, run, argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
