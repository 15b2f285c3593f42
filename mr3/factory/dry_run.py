"""`mr3 data --dry-run`: what the models of a factory would be asked, and what that takes. No model is started.

Rows are counted in local files; of a hub set they are what the registry says. The lengths of prompts are measured on
the first rows of each source, rendered. What only a run can show (how many rows are right, how long answers are, how
fast a replica writes) is stated in the config: `estimate:`, and `cost:` of each model. Filters before the teacher are
not run, so rows are an upper bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import pyarrow.parquet as pq

from mr3.factory.config import Asked, Cost, FactoryConfig, Selection
from mr3.factory.prompting import Prompter
from mr3.factory.selection import quotas
from mr3.inference.stream import StreamSettings
from mr3.sources import Labelled, SourceSpec, open_source
from mr3.sources.opening import source_files, source_name
from mr3.sources.reading import file_rows
from mr3.sources.registry import known_set
from mr3.sources.spec import SetSource

_ASKING_TOKENS = 80
"""Of a translator's prompt, beside the text."""


@dataclass(frozen=True)
class Counted:
    """One source: rows at most, tokens of a prompt by strategy, and where these numbers come from."""

    rows: int
    tokens: Mapping[Asked, float]
    how: str


@dataclass(frozen=True)
class Calls:
    """What one model is asked."""

    name: str
    calls: float
    prompt_tokens: float
    cost: Cost | None
    stream: StreamSettings

    @property
    def output_tokens(self) -> float | None:
        """Written in all; None where no cost is stated."""
        return None if self.cost is None else self.calls * self.cost.output_tokens

    @property
    def hours(self) -> float | None:
        """Of wall time on all replicas."""
        if self.cost is None or self.cost.tokens_per_s is None:
            return None
        return self.calls * self.cost.output_tokens / self.cost.tokens_per_s / 3600 / self.stream.replicas_max

    @property
    def money(self) -> float | None:
        """GPU hours and tokens, each where it has a price."""
        cost, hours, written = self.cost, self.hours, self.output_tokens
        if cost is None or written is None or (cost.gpu_hour, cost.million_in, cost.million_out) == (None,) * 3:
            return None
        tokens = self.prompt_tokens * (cost.million_in or 0) + written * (cost.million_out or 0)
        gpu_hours = (hours or 0) * self.stream.replicas_max * self.stream.num_gpus
        return tokens / 1e6 + gpu_hours * (cost.gpu_hour or 0)


def _rows(spec: SourceSpec) -> Iterator[int]:
    for file in source_files(spec):
        yield pq.read_metadata(file).num_rows if file.suffix == ".parquet" else sum(1 for _ in file_rows(file))


def _registered(spec: SourceSpec) -> int | None:
    """Rows of a set as its registry has them."""
    return known_set(spec.set).rows if isinstance(spec, SetSource) else None


def count_source(config: FactoryConfig, spec: SourceSpec, prompter: Prompter | None) -> Counted:
    """Rows and lengths of one source; where it can't be read now, what the registry and `estimate` say.

    Args:
        prompter: None where the prompts' texts are not there.

    Raises:
        ValueError: for a source that is neither there nor in the registry.
    """
    assumed = config.estimate
    tokens: dict[Asked, float] = dict.fromkeys(config.strategies, float(assumed.prompt_tokens))
    on_hub = isinstance(spec, SetSource) and spec.path is None
    try:
        local = list(_rows(spec))
        first = [] if on_hub or prompter is None else list(islice(open_source(spec, config.texts), assumed.sample))
    except ValueError as error:
        rows = _registered(spec)
        if rows is None:
            raise
        return Counted(min(rows, spec.limit or rows), tokens, f"rows as published, length assumed: {error}")
    if on_hub:
        rows = _registered(spec) or 0
    else:
        rows = sum(local) if local else sum(1 for _ in open_source(spec, config.texts))
    shown = []
    for row in first:
        if isinstance(row, Labelled) and prompter is not None:
            try:
                shown.append(prompter.prompts(row, config.strategies))
            except ValueError:
                continue  # counted by the run itself, as `no_texts`
    for strategy in config.strategies if shown else ():
        length = sum(len(s[strategy][part]) for s in shown for part in ("system", "user", "prefix"))  # type: ignore[literal-required]
        tokens[strategy] = length / len(shown) / assumed.chars_per_token
    measured = f"lengths of {len(shown)} rows" if shown else "length assumed"
    how = f"{'rows as published' if on_hub else 'counted'}; {measured}"
    return Counted(min(rows, spec.limit or rows), tokens, how)


def calls_of(config: FactoryConfig, sources: Mapping[str, Counted]) -> list[Calls]:
    """What every model is asked, at most."""
    settings = config.presample or Selection()
    # Languages are not known yet: balance over sources alone.
    taken = quotas(Counter({("", name): s.rows for name, s in sources.items()}), settings)
    rows = {name: n for (_, name), n in taken.items()}

    def prompts(strategy: Asked) -> float:
        return sum(n * sources[name].tokens[strategy] for name, n in rows.items())

    total = sum(rows.values())
    read = sum(prompts(s) for s in config.strategies)
    teacher, right = config.teacher, total * config.estimate.right
    found = [Calls(teacher.name, total * len(config.strategies), read, teacher.cost, config.stream_of(teacher))]
    if config.difficulty is not None:
        student, samples = config.difficulty.student, config.difficulty.samples
        read = prompts(config.difficulty.strategy) * config.estimate.right * samples
        found.append(Calls(student.name, right * samples, read, student.cost, config.stream_of(student)))
    if config.translator is not None:
        pieces = min(right, config.select.rows or right) * config.estimate.pieces
        length = config.translator.chunk_chars / config.estimate.chars_per_token + _ASKING_TOKENS
        stream = config.stream_of(config.translator)
        found.append(Calls(config.translator.model, pieces, pieces * length, config.translator.cost, stream))
    return found


def _number(value: float | None, form: str = ",.0f") -> str:
    return "-" if value is None else format(value, form)


def dry_run(config: FactoryConfig) -> str:
    """The report, for people. Writes nothing, starts no model.

    Raises:
        ValueError: for a source that is neither there nor in the registry.
    """
    prompter, note = None, ""
    try:
        prompter = Prompter(config.profile, config.texts, config.speaks_harmony)
    except ValueError as error:
        note = f"\nprompts can't be rendered now, their length is assumed: {error}"
    sources = {source_name(spec): count_source(config, spec, prompter) for spec in config.sources}
    calls = calls_of(config, sources)
    lines = [f"dry run of {config.output_dir} (no model is started, nothing is written){note}", ""]
    lines += ["| source | rows | tokens of a prompt | |", "| --- | ---: | ---: | --- |"]
    for name, s in sources.items():
        lines.append(f"| {name} | {s.rows:,} | {max(s.tokens.values()):,.0f} | {s.how} |")
    lines += ["", "| model | calls | tokens read | tokens written | hours | GPUs | money |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for c in calls:
        gpus = c.stream.replicas_max * c.stream.num_gpus
        parts = (_number(c.calls), _number(c.prompt_tokens), _number(c.output_tokens), _number(c.hours, ",.1f"))
        lines.append(f"| {c.name} | {' | '.join(parts)} | {gpus:g} | {_number(c.money)} |")
    hours, money = ([getattr(c, name) for c in calls] for name in ("hours", "money"))
    sums = [None if None in column else sum(column) for column in (hours, money)]
    total = _number(sum(c.calls for c in calls))
    lines.append(f"| all, one after the other | {total} | | | {_number(sums[0], ',.1f')} | | {_number(sums[1])} |")
    drawn = "all rows go to the teacher" if config.presample is None else "rows are drawn for the teacher (presample)"
    lines += [
        "",
        f"At most: duplicates, other languages and benchmark texts are not taken off; {drawn}. Of the teacher's rows "
        f"{config.estimate.right:.0%} are assumed to be right. Answers, rates and prices are those of `cost:`; "
        "- where none is stated.",
    ]
    return "\n".join(lines)
