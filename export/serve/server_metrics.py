"""What the development server counts, in Prometheus's format."""

import contextlib
import time
from collections.abc import Iterator

import prometheus_client

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class RequestOutcome:
    """How a request ended. A signature is named only once it is known to exist: labels must stay few."""

    def __init__(self) -> None:
        self.signature = "none"
        self.code = "CANCELLED"


class ServerMetrics:
    """Requests, their time and the rows of a run; a registry of its own, so that two servers do not mix."""

    def __init__(self) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        options = dict(registry=self._registry)
        self._requests = prometheus_client.Counter(
            "pivae_requests", "Requests by their outcome.", ["protocol", "signature", "code"], **options
        )
        self._seconds = prometheus_client.Histogram(
            "pivae_request_seconds", "From arrival to answer.", ["protocol", "signature"], buckets=_SECONDS, **options
        )
        self._rows = prometheus_client.Histogram(
            "pivae_batch_rows", "Rows of one run of the model.", ["signature"], buckets=_ROWS, **options
        )
        self._version = prometheus_client.Gauge("pivae_model_version", "The version that answers.", **options)

    def observe_rows(self, signature: str, rows: int) -> None:
        """Counts a run of the model."""
        self._rows.labels(signature).observe(rows)

    @contextlib.contextmanager
    def request(self, protocol: str) -> Iterator[RequestOutcome]:
        """Counts and times a request. The context's value is to be filled in."""
        outcome = RequestOutcome()
        start = time.perf_counter()
        try:
            yield outcome
        finally:
            self._requests.labels(protocol, outcome.signature, outcome.code).inc()
            self._seconds.labels(protocol, outcome.signature).observe(time.perf_counter() - start)

    def exposition(self, version: int) -> bytes:
        """The text that Prometheus scrapes."""
        self._version.set(version)
        return prometheus_client.generate_latest(self._registry)
