"""Prometheus metrics of a replica, and one page for all replicas, each series labelled with its replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from mr3.records import Verdict

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
Families = list[Metric]


class ServerMetrics:
    """The counts of one replica, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("mr3_requests", "Requests answered.", ["route", "status"], registry=self.registry)
        self._seconds = Histogram(
            "mr3_request_seconds", "From the request's arrival at the replica to its answer.", ["route"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._verdicts = Counter(
            "mr3_verdicts", "Judgements by what became of them.", ["mode", "outcome"], registry=self.registry
        )
        self._tokens = Counter("mr3_tokens", "Tokens read and written.", ["kind"], registry=self.registry)
        self.in_flight = Gauge("mr3_requests_in_flight", "Requests in work.", registry=self.registry)
        self.tasks = Gauge("mr3_tasks_in_flight", "Tasks and chat completions in work.", registry=self.registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def verdicts(self, mode: str, verdicts: Sequence[Verdict]) -> None:
        """Judgements were made."""
        for verdict in verdicts:
            self._verdicts.labels(mode, verdict.outcome.value).inc()
            self.tokens(verdict.prompt_tokens, verdict.output_tokens)

    def tokens(self, prompt: int, output: int) -> None:
        """Tokens went through the engine."""
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("output").inc(output)

    def families(self) -> Families:
        """A snapshot that can be sent to another process."""
        return list(self.registry.collect())


class _Merged(Collector):
    """Snapshots of several replicas as one collector."""

    def __init__(self, replicas: Mapping[str, Families]) -> None:
        self._replicas = replicas

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for replica, families in sorted(self._replicas.items()):
            for family in families:
                whole = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    labels = {**sample.labels, "replica": replica}
                    whole.samples.append(Sample(sample.name, labels, sample.value))
        yield from merged.values()


def exposition(replicas: Mapping[str, Families]) -> bytes:
    """The page that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(_Merged(replicas))
    return generate_latest(registry)
