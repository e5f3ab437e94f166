"""Figures of a server, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lmtasks.serving.worker import Worker


class Figures:
    """What has been asked and answered, since this was made."""

    def __init__(self, worker: Worker) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("lmtasks_requests", "Requests.", ("path", "status"), registry=self.registry)
        self.seconds = Histogram("lmtasks_request_seconds", "Time to answer.", ("path",), registry=self.registry)
        self.tokens = Counter("lmtasks_new_tokens", "Tokens of continuations.", registry=self.registry)
        self.registry.register(_OfWorker(worker))

    def text(self) -> bytes:
        """All of them."""
        told: bytes = generate_latest(self.registry)
        return told


class _OfWorker(Collector):
    """Figures that the worker has itself, read when they are asked for."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("lmtasks_waiting_texts", "Texts in line.", self.worker.waiting)
        yield CounterMetricFamily("lmtasks_batches", "Batches that were answered.", self.worker.batches)
        yield CounterMetricFamily("lmtasks_texts", "Texts that were answered.", self.worker.answered)
