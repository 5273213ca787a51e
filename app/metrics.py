"""What is counted, for Prometheus: no label is anything that a client may choose.

One process counts in memory. Several that serve together count in files of PROMETHEUS_MULTIPROC_DIR, so that whichever
answers ``GET /metrics`` tells the sum.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import psutil
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The library's variable; it looks at it when it is imported."""
SAMPLE_S = 1.0
"""How old a level of another process may be."""
METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "WEBSOCKET"}
REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
WAIT_S = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 1.5)
CALL_S = (0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)

disable_created_metrics()  # type: ignore[no-untyped-call]  # when each began says nothing to anybody
registry = CollectorRegistry()

_requests = Histogram(
    "http_request_duration_seconds",
    "Time from a request to the end of its answer; open sockets are not in it.",
    ("method", "route", "status"),
    buckets=REQUEST_S,
    registry=registry,
)
problems = Counter("http_problems", "Answers that are problems, by code.", ("code",), registry=registry)
rate_limited = Counter("rate_limited_requests", "Requests over a limit, by the limit.", ("limit",), registry=registry)

units = Counter("database_units", "Units of work that ended: reads, or transactions.", ("kind",), registry=registry)
database_errors = Counter(
    "database_errors", "Units of work that PostgreSQL, or the way to it, failed.", ("reason",), registry=registry
)
pool_waits = Histogram(
    "database_pool_wait_seconds",
    "Waits for a connection; those that had one at once are not in it.",
    buckets=WAIT_S,
    registry=registry,
)

messages = Counter("messages", "Messages that came, by what became of them.", ("result",), registry=registry)
analyses = Counter(
    "analyses",
    "Summaries and insights: stored ones that were good still, and those that a model or the engine made.",
    ("kind", "source"),
    registry=registry,
)
calls = Histogram(
    "llm_call_duration_seconds", "Calls of models.", ("model", "outcome"), buckets=CALL_S, registry=registry
)
tokens = Counter("llm_tokens", "Tokens; those cached are among those of prompts.", ("model", "kind"), registry=registry)
cost = Counter("llm_cost_usd", "What calls cost, in US dollars.", ("model",), registry=registry)
fallbacks = Counter(
    "llm_fallbacks", "Answers that a model did not give, by the reason.", ("model", "reason"), registry=registry
)
deliveries = Counter(
    "webhook_deliveries",
    "Attempts to deliver events: delivered, failed (it is tried again), or given_up with the last one.",
    ("result",),
    registry=registry,
)
defects = Counter("defects", "Errors of ours where nobody waits for an answer.", registry=registry)
near_budget = Counter(
    "llm_calls_near_budget",
    "Calls that left less than a tenth of a budget, or were more than is left.",
    registry=registry,
)


def _gauge(name: str, text: str, *labels: str, together: Literal["livesum", "livemax", "max"] = "livesum") -> Gauge:
    return Gauge(name, text, labels, registry=registry, multiprocess_mode=together)


requests_in_flight = _gauge("http_requests_in_flight", "Requests and sockets that are being answered.")
pool_size = _gauge("database_pool_size", "Connections that requests and jobs may have.", "server")
pool_in_use = _gauge("database_pool_in_use", "Connections that they have.", "server")
breaker_open = _gauge(
    "llm_breaker_open", "1 while one of the processes leaves a model alone.", "model", together="livemax"
)
worker_ready = _gauge(
    "worker_ready_timestamp_seconds", "When a worker last saw that it can work; 0 if it is none.", together="max"
)
live_sockets = _gauge("live_sockets", "Open sockets.")

_levels: dict[Gauge, Callable[[], float]] = {}
_observe: dict[tuple[str, str, int], Callable[[float], None]] = {}


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Counts a request that was answered; ``route`` is a route's own path, or empty."""
    found = _observe.get((method, route, status))
    if found is None:
        # The library takes longer to look for labels than for all the rest.
        known = method if method in METHODS else "other"
        labels = known, route or "none", str(status)
        found = _observe[labels[0], route, status] = _requests.labels(*labels).observe
    found(seconds)


def read_level(gauge: Gauge, level: Callable[[], float]) -> None:
    """Says how a level is to be read, when somebody asks: cheaper than to count it up and down."""
    _levels[gauge] = level
    if not _folder():
        gauge.set_function(level)


@asynccontextmanager
async def counted() -> AsyncIterator[None]:
    """Tells the others this process's levels until the block ends; a process that serves alone has nobody to tell."""
    if not _folder():
        yield
        return
    sampling = asyncio.create_task(_sample())
    try:
        yield
    finally:
        sampling.cancel()
        mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


async def _sample() -> None:
    while True:
        for gauge, level in _levels.items():
            gauge.set(level())
        await asyncio.sleep(SAMPLE_S)


def exposition(more: Iterable[Metric] = ()) -> bytes:
    """Returns everything in Prometheus's text format. It reads files: call it in a thread."""
    own, pids = registry, [os.getpid()]
    if folder := _folder():
        pids = [int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_livesum_*.db")]
        for dead in [pid for pid in pids if not psutil.pid_exists(pid)]:
            mark_process_dead(dead)  # type: ignore[no-untyped-call]
            pids.remove(dead)
        own = CollectorRegistry()
        MultiProcessCollector(own)  # type: ignore[no-untyped-call]
    return generate_latest(own) + generate_latest(_Given([*_processes(pids), *more]))


def levels(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """Returns levels that are known when they are asked for; with one label, or none if that is empty."""
    family = GaugeMetricFamily(name, text, labels=[label] if label else [])
    for value, level in values.items():
        family.add_metric([value] if label else [], level)
    return family


class _Given:
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def _folder() -> Path | None:
    folder = os.environ.get(FOLDER)
    return Path(folder) if folder else None


def _processes(pids: Iterable[int]) -> Iterable[Metric]:
    """Returns time, memory and files of the processes together, and when the youngest was started."""
    found: dict[str, Metric] = {}
    for pid in pids:
        for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
            if (known := found.get(metric.name)) is None:
                found[metric.name] = metric
                continue
            together = max if "start_time" in metric.name else sum
            for place, (ours, theirs) in enumerate(zip(known.samples, metric.samples, strict=True)):
                known.samples[place] = ours._replace(value=together((ours.value, theirs.value)))
    return found.values()
