"""The audit as one self-contained HTML page: tables from the report, one plot inlined as PNG."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ r.title }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } caption { text-align: left; color: #555; padding-bottom: .3rem }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top }
th:first-child, td:first-child, td.text { text-align: left } td.text { max-width: 30rem; overflow-wrap: anywhere }
.note { border-left: 4px solid #c80; background: #fff8e8; padding: .6rem 1rem } img { max-width: 100% }
small { color: #666 } code { background: #f4f4f4; padding: 0 .2rem }
</style></head><body>
{% macro rate(x) -%}
{% if not x or x.value is none %}<small>none{% if x and x.reason %}: {{ x.reason }}{% endif %}</small>
{%- else %}{{ "%.3f"|format(x.value) }}{% if x.interval %} <small>[{{ "%.3f"|format(x.interval[0]) }},
{{ "%.3f"|format(x.interval[1]) }}]</small>{% endif %}{% if x.n is defined %} <small>n={{ x.n }}</small>{% endif %}
{%- endif %}{%- endmacro %}
{% macro counts(d) %}{% for k, v in d.items() %}{{ k }} {{ v }}{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}
{% endmacro %}
<h1>{{ r.title }}</h1>
{% if r.note %}<p class="note">{{ r.note }}</p>{% endif %}
<p>Judge <code>{{ r.judge }}</code>, mode {{ r.mode }}, scores {{ r.labels|join(", ") }}.
Rubric <b>{{ r.rubric.name }}</b>:</p>
<ol>{% for c in r.rubric.text.criteria %}<li>{{ c.name }}: {{ c.description }}</li>{% endfor %}</ol>
{% if r.rubric.text.levels %}<ul>{% for k, v in r.rubric.text.levels.items() %}<li>{{ k }}: {{ v }}</li>{% endfor %}</ul>
{% endif %}
<h2>What became of every row</h2>
<p>{{ r.accounting.responses }} responses of {{ r.verdicts.prompts }} prompts were read
({{ r.verdicts.duplicate_responses }} equal another response of their prompt and share its judgement;
{{ r.verdicts.cut_responses }} were cut before judging); {{ r.accounting.verdicts }} judgements.
Set aside, by name in rejected.jsonl: {{ r.accounting.rows_set_aside }} rows and
{{ r.accounting.responses_set_aside }} single responses{% if r.accounting.reasons %}
({{ counts(r.accounting.reasons) }}){% endif %}.
The judge wrote something for {{ rate(r.verdicts.all.generated) }} of them and a valid verdict for
{{ rate(r.verdicts.all.ok) }}.</p>
<p>All intervals are 95%.</p>
<img alt="Outcomes, scores and agreement per language" src="data:image/png;base64,{{ plot }}">
{% for title, rows in (("Per language", r.verdicts.languages), ("Per source policy", r.verdicts.policies)) %}
<h2>{{ title }}</h2>
<table><caption>Counted over {{ r.verdicts.counted_over }}.</caption>
<tr><th></th><th>valid verdict</th><th>generated</th><th>outcomes</th><th>scores</th></tr>
{% for name, x in rows.items() %}<tr><td>{{ name }}</td><td>{{ rate(x.ok) }}</td><td>{{ rate(x.generated) }}</td>
<td class="text">{{ counts(x.outcomes) }}</td><td class="text">{{ counts(x.scores) }}</td></tr>{% endfor %}</table>
{% endfor %}
{% if r.orders %}<h2>Orders and pairs</h2>
<p>{{ r.pairs.pairs }} pairs of {{ r.pairs.comparisons }} comparisons; {{ r.pairs.ties }} ties,
{{ r.pairs.flips }} flips.</p>
<table><caption>Each comparison is judged with either response first. A flip is a disagreement of the two orders. Accuracy is
against the checker, over pairs that truly differ.</caption>
<tr><th></th><th>flip rate</th><th>first shown wins</th><th>longer wins</th><th>yield, agree</th><th>accuracy, agree</th>
<th>yield, mean</th><th>accuracy, mean</th></tr>
{% for name, x in [("all", r.orders.all)] + r.orders.languages.items()|list %}<tr><td>{{ name }}</td>
<td>{{ rate(x.flip_rate) }}</td><td>{{ rate(x.first_shown_wins) }}</td><td>{{ rate(x.longer_wins) }}</td>
<td>{{ rate(x.combine.agree.yield) }}</td><td>{{ rate(x.combine.agree.accuracy) }}</td>
<td>{{ rate(x.combine.mean.yield) }}</td><td>{{ rate(x.combine.mean.accuracy) }}</td></tr>{% endfor %}</table>
{% if r.orders.all.kept_error_from_flips is not none %}<p>If the two orders erred independently, the flip rate would mean
{{ "%.4f"|format(r.orders.all.kept_error_from_flips) }} wrong among the pairs that both agree on. Errors that both orders
share are not seen by this.</p>{% endif %}{% endif %}
{% if r.gold %}<h2>Agreement with people</h2>
<table><caption>Joined by the response's id. Kappa corrects for chance; "constant" is the accuracy of always giving the
commonest human label; "people" is a second annotator against the first.</caption>
<tr><th></th><th>accuracy</th><th>kappa</th><th>constant</th><th>failed counted wrong</th><th>people: accuracy</th>
<th>people: kappa</th></tr>
{% for name, x in [("all", r.gold.all)] + r.gold.languages.items()|list %}<tr><td>{{ name }}</td>
<td>{{ rate(x.accuracy) }}</td><td>{{ rate(x.kappa) }}</td>
<td>{{ rate(x.baseline_constant) }}</td><td>{{ rate(x.accuracy_failures_wrong) }}</td>
<td>{{ rate(x.annotators.accuracy if x.annotators else none) }}</td>
<td>{{ rate(x.annotators.kappa if x.annotators else none) }}</td></tr>{% endfor %}</table>
<table><caption>The human labels: what could be joined, and on which text.</caption>
<tr><th></th><th>labelled</th><th>left blank</th><th>not in the pool</th><th>tidied before review</th>
<th>judged text differs</th><th>failed verdicts</th><th>human label and verdict</th></tr>
{% for name, x in [("all", r.gold.all)] + r.gold.languages.items()|list %}<tr><td>{{ name }}</td><td>{{ x.labelled }}</td>
<td>{{ x.blank }}</td><td>{{ x.not_in_pool }}</td><td>{{ x.tidied_before_review }}</td><td>{{ x.judged_text_differs }}</td>
<td class="text">{{ counts(x.failed) }}</td><td class="text">{% for g, row in x.confusion.items() %}{{ g }}: {{ counts(row) }}<br>
{% endfor %}</td></tr>{% endfor %}</table>{% endif %}
<h2>Failures</h2>
{% if r.verdicts.failure_examples %}<table><tr><th>outcome</th><th>prompt</th><th>responses</th><th>reason</th></tr>
{% for outcome, rows in r.verdicts.failure_examples.items() %}{% for x in rows %}<tr><td>{{ outcome }}</td>
<td class="text">{{ x.prompt_id }}</td><td class="text">{{ x.responses }}</td><td class="text">{{ x.reason }}</td></tr>
{% endfor %}{% endfor %}</table>{% else %}<p>None.</p>{% endif %}
<h2>All numbers</h2><details><summary>audit.json</summary><pre>{{ dump }}</pre></details>
</body></html>
"""


def page(report: dict[str, Any]) -> str:
    """The report of `rewards.audit.audit` as HTML; everything from data is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    dump = json.dumps(report, ensure_ascii=False, indent=1)
    return environment.from_string(_TEMPLATE).render(r=report, plot=_plot(report), dump=dump)


def _plot(report: dict[str, Any]) -> str:
    """Stacked shares of outcomes and of scores per language, and agreement with its intervals, as base64 PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    languages = report["verdicts"]["languages"]
    panels = 3 if report["gold"] or report["orders"] else 2
    figure = Figure(figsize=(4.2 * panels, 1.8 + 0.28 * len(languages)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels)
    _stacked(axes[0], {k: v["outcomes"] for k, v in languages.items()}, "outcomes")
    _stacked(axes[1], {k: v["scores"] for k, v in languages.items()}, "scores of valid verdicts")
    if report["gold"]:
        rates = {k: v["accuracy"] for k, v in report["gold"]["languages"].items()}
        base = {k: v["baseline_constant"]["value"] for k, v in report["gold"]["languages"].items()}
        _intervals(axes[2], rates, "accuracy against people (x: constant answer)", base)
    elif report["orders"]:
        rates = {k: v["flip_rate"] for k, v in report["orders"]["languages"].items()}
        _intervals(axes[2], rates, "flip rate", {})
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def _stacked(axis: Any, rows: dict[str, dict[str, int]], title: str) -> None:
    names = list(rows)
    kinds = sorted({kind for row in rows.values() for kind in row})
    left = [0.0] * len(names)
    for kind in kinds:
        shares = [rows[n].get(kind, 0) / max(1, sum(rows[n].values())) for n in names]
        axis.barh(names, shares, left=left, label=kind)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axis.set(title=title, xlim=(0, 1), xlabel="share")
    axis.invert_yaxis()
    if kinds:
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3, frameon=False)


def _intervals(axis: Any, rows: dict[str, dict[str, Any]], title: str, marks: dict[str, float | None]) -> None:
    known = {name: row for name, row in rows.items() if row["value"] is not None}
    for name, row in known.items():
        low, high = row["interval"]
        axis.errorbar([row["value"]], [name], xerr=[[row["value"] - low], [high - row["value"]]], fmt="o", color="C0")
        if marks.get(name) is not None:
            axis.plot([marks[name]], [name], "x", color="C1")
    axis.set(title=title, xlim=(0, 1), xlabel="rate with 95% interval")
    axis.title.set_fontsize(10)
    axis.invert_yaxis()
    if not known:
        axis.text(0.5, 0.5, "no valid verdicts to compare", ha="center", transform=axis.transAxes)
