"""Every metric of the gateway: name, help and labels, in one list.

Dashboards and alert rules use these names; tests compare them. Not here: when they are observed.
"""

from __future__ import annotations

from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Labelled = TypeVar("Labelled", Counter, Gauge, Histogram)

TTFT_BUCKETS = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
QUEUE_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30)
OVERHEAD_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
DURATION_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)


class Metrics:
    """The attributes are the names without `gateway_` (and without `_total`, `_seconds`)."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._children: dict[tuple[object, ...], object] = {}
        self._count_requests()
        self._count_work()
        self._show_state()

    def of(self, metric: Labelled, *labels: str) -> Labelled:
        """metric.labels(…), remembered: that look-up costs more than the counting."""
        child = self._children.get((metric, *labels))
        if child is None:
            child = self._children[metric, *labels] = metric.labels(*labels)
        return child  # type: ignore[return-value]

    def _count_requests(self) -> None:
        own = self.registry
        self.requests = Counter(
            "gateway_requests_total",
            "Requests by route and outcome",
            ["route", "outcome"],
            registry=own,
        )
        self.http_responses = Counter(
            "gateway_http_responses_total", "Responses by status code", ["code"], registry=own
        )
        self.ttft = Histogram(
            "gateway_ttft_seconds",
            "From the arrival of a request to the first token sent",
            buckets=TTFT_BUCKETS,
            registry=own,
        )
        self.duration = Histogram(
            "gateway_request_seconds",
            "From the arrival of a request to the end of its answer",
            ["route"],
            buckets=DURATION_BUCKETS,
            registry=own,
        )
        self.overhead = Histogram(
            "gateway_overhead_seconds",
            "What the gateway itself needs before it asks an engine",
            buckets=OVERHEAD_BUCKETS,
            registry=own,
        )

    def _count_work(self) -> None:
        own = self.registry
        self.failovers = Counter(
            "gateway_failovers_total",
            "Answers that went on, on another engine",
            ["from", "to", "reason", "outcome"],
            registry=own,
        )
        self.tokens = Counter(
            "gateway_tokens_total", "Tokens by direction and key", ["direction", "key_id"],
            registry=own,
        )  # fmt: skip
        self.sessions_saved = Counter(
            "gateway_sessions_saved_total", "Turns saved, by outcome", ["outcome"], registry=own
        )
        self.turn_resumes = Counter(
            "gateway_turn_resumes_total", "Turns that were reattached", ["outcome"], registry=own
        )
        self.engine_checks_failed = Counter(
            "gateway_engine_checks_failed_total", "Failed health checks", ["engine"], registry=own
        )

    def _show_state(self) -> None:
        own = self.registry
        self.inflight = Gauge("gateway_inflight", "Requests inside", registry=own)
        self.queue_depth = Gauge("gateway_queue_depth", "Requests that wait", registry=own)
        self.queue_seconds = Histogram(
            "gateway_queue_seconds", "Time spent waiting", buckets=QUEUE_BUCKETS, registry=own
        )
        self.engine_state = Gauge(
            "gateway_engine_state", "1 for the state that the engine is in", ["engine", "state"],
            registry=own,
        )  # fmt: skip
        self.redis_up = Gauge("gateway_redis_up", "Redis answers", registry=own)
        self.last_backup = Gauge(
            "gateway_last_backup_timestamp_seconds",
            "The newest backup; 0: none noted",
            registry=own,
        )
        self.draining = Gauge("gateway_draining", "This gateway is stopping", registry=own)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
