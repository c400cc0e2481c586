"""Operations facts: one call for each, one table for what it logs and what it counts."""

import logging
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.values import ValueClass

SECONDS = (.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)  # fmt: skip
ITEMS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The time at which a counter began is a second series for each, and says nothing here.
disable_created_metrics()  # type: ignore[no-untyped-call] # theirs

# API keys, claim tokens, tickets, and passwords inside connection strings.
SECRETS = re.compile(
    r"wl_[\w.:-]{8,}|whsec_[\w+/=]{20,}|wlt_\d+_[\w-]{20,}|(?<=password=)[^\s&]+|(?<=ticket=)[^\s&]+|(?<=:)[^\s:@/]+(?=@)"
)
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": 30, "error": logging.ERROR}

Fact = str | int | float | bool | None | BaseException | list[str]
Record = Callable[[float], None]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A metric, and how one of its children takes a number; children are kept by label values."""

    metric: Counter | Gauge | Histogram
    labels: tuple[str, ...]
    recorder: Callable[[Any], Record]
    children: dict[tuple[Fact, ...], Record] = field(default_factory=dict)

    def record(self, number: float, facts: dict[str, Fact]) -> None:
        """Counts, observes or sets the number under the labels that the facts name."""
        values = tuple([facts[label] for label in self.labels])
        child = self.children.get(values)
        if child is None:
            labelled = self.metric.labels(*values) if values else self.metric
            child = self.children[values] = self.recorder(labelled)
        child(number)


@dataclass(frozen=True, slots=True, eq=False)
class Occurrence:
    """A row of the table: its name, its log level (None: never logged), what it counts."""

    name: str
    level: int | None = None
    counted: Series | None = None
    valued: Series | None = None


def _counter(name: str, help_text: str, *labels: str) -> Series:
    return Series(Counter(name, help_text, labels), labels, lambda child: child.inc)


def _histogram(
    name: str, help_text: str, *labels: str, buckets: Iterable[float] = SECONDS
) -> Series:
    metric = Histogram(name, help_text, labels, buckets=tuple(buckets))
    return Series(metric, labels, lambda child: child.observe)


def _number(name: str, help_text: str, *labels: str) -> Series:
    """A gauge of something whole that any process may measure; the newest measure counts."""
    metric = Gauge(name, help_text, labels, multiprocess_mode="mostrecent")
    return Series(metric, labels, lambda child: child.set)


def _own(name: str, help_text: str, *labels: str) -> Series:
    """A gauge of something that each process has some of; the living processes add up."""
    metric = Gauge(name, help_text, labels, multiprocess_mode="livesum")
    return Series(metric, labels, lambda child: child.set)


def _level(name: str, help_text: str, *labels: str) -> Series:
    """A gauge as `_own`, moved up and down by the count instead of set."""
    metric = Gauge(name, help_text, labels, multiprocess_mode="livesum")
    return Series(metric, labels, lambda child: child.inc)


def _stamp(name: str, help_text: str, *labels: str) -> Series:
    metric = Gauge(name, help_text, labels, multiprocess_mode="max")
    return Series(metric, labels, lambda child: lambda _: child.set_to_current_time())


# ── The table ───────────────────────────────────────────────────────────────────────────────────
# `count` (1 unless given) goes to `counted`, `value` to `valued`; label values are facts.

DEBUG, INFO, WARN, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

ServerStarted = Occurrence("server_started", INFO)
ServerDraining = Occurrence("server_draining", INFO)
# Connections are lent per transaction, and no DATABASE_DIRECT_URL leads past who lends them.
NotificationsMissing = Occurrence("notifications_missing", WARN)
ServerStopped = Occurrence("server_stopped", INFO)

BuildKnown = Occurrence(
    "build_known",
    valued=_number("worklease_build_info", "What runs here.", "version", "schema_version"),
)
RequestBegan = Occurrence(
    "request_began",
    counted=_level("worklease_http_requests_in_flight", "Requests being answered."),
)  # count -1 when it has ended
RequestServed = Occurrence(
    "request_served",
    DEBUG,
    _counter("worklease_http_requests", "Requests answered.", "method", "route", "status"),
    _histogram(
        "worklease_http_request_duration_seconds", "Time to answer.", "method", "route", "status"
    ),
)
RequestFailed = Occurrence("request_failed", ERROR)
AuthFailed = Occurrence(
    "auth_failed", INFO, _counter("worklease_auth_failures", "Requests refused.", "reason")
)
RateLimited = Occurrence(
    "rate_limited", DEBUG, _counter("worklease_rate_limited", "Requests slowed down.")
)

ClaimServed = Occurrence(
    "claim_served", DEBUG, _counter("worklease_claims", "Claims answered.", "kind", "result")
)
ClaimWaited = Occurrence(
    "claim_waited", valued=_histogram("worklease_claim_wait_seconds", "Time a claim waited.")
)
LeaseOperation = Occurrence(
    "lease_operation",
    DEBUG,
    _counter("worklease_lease_operations", "Calls of lease holders.", "operation", "result"),
)
LeaseExpired = Occurrence(
    "lease_expired", INFO, _counter("worklease_lease_expiries", "Leases ended by the sweep.")
)
RunQuarantined = Occurrence(
    "run_quarantined", WARN, _counter("worklease_runs_quarantined", "Crash loops stopped.")
)
RunsEnded = Occurrence(
    "runs_ended", None, _counter("worklease_runs_ended", "Runs ended.", "outcome", "failure_kind")
)
RunHeld = Occurrence(
    "run_held",
    valued=_histogram("worklease_run_duration_seconds", "Time from claim to end.", "outcome"),
)
RunTaken = Occurrence(
    "run_taken",
    valued=_histogram("worklease_queue_latency_seconds", "Time until a claim.", "priority"),
)
StarvedMeasured = Occurrence(
    "starved_measured", valued=_number("worklease_starved_runs", "Runs that starve.")
)
ReviewRecorded = Occurrence(
    "review_recorded", DEBUG, _counter("worklease_reviews", "Reviews that ended.", "outcome")
)
BatchServed = Occurrence(
    "batch_served",
    counted=_histogram("worklease_batch_size", "Requests in a batch.", "operation", buckets=ITEMS),
    valued=_histogram("worklease_batch_duration_seconds", "Time of a batch.", "operation"),
)
PoolWaited = Occurrence(
    "pool_waited",
    valued=_histogram("worklease_db_pool_wait_seconds", "Time until a connection was free."),
)
EventsWritten = Occurrence(
    "events_written", counted=_counter("worklease_events_written", "Events in the logs.")
)
PoolMeasured = Occurrence(
    "pool_measured", valued=_own("worklease_db_pool_connections", "Connections.", "state")
)
LoopRan = Occurrence(
    "loop_ran",
    DEBUG,
    _counter("worklease_loop_runs", "Passes of the loops.", "loop", "result"),
    _stamp("worklease_loop_last_run_timestamp_seconds", "Last pass.", "loop"),
)  # any value: the metric takes the time itself
LoopFailed = Occurrence("loop_failed", ERROR)
ProbeMeasured = Occurrence(
    "probe_measured",
    valued=_number("worklease_notify_probe_age_seconds", "Since a notification came back."),
)
StreamOpened = Occurrence(
    "stream_opened", DEBUG, _level("worklease_sse_connections", "Open streams.", "stream")
)  # count -1 when it closes
StreamResync = Occurrence(
    "stream_resync", INFO, _counter("worklease_sse_resyncs", "Streams told to resync.", "reason")
)
DeliveryMade = Occurrence(
    "delivery_made",
    DEBUG,
    _counter("worklease_deliveries", "Attempts to notify a bridge.", "result"),
    _histogram("worklease_delivery_duration_seconds", "Time of an attempt to notify."),
)
TasksCounted = Occurrence(
    "tasks_counted", valued=_number("worklease_tasks", "Tasks, by status.", "status")
)
RunsCounted = Occurrence(
    "runs_counted", valued=_number("worklease_runs", "Runs, by status.", "status")
)
QueueMeasured = Occurrence(
    "queue_measured", valued=_number("worklease_queue_depth", "Claimable runs.", "priority")
)
QueueAged = Occurrence(
    "queue_aged",
    valued=_number(
        "worklease_queue_oldest_age_seconds", "Age of the oldest claimable run.", "priority"
    ),
)
RunsStuck = Occurrence(
    "runs_stuck", valued=_number("worklease_stuck_runs", "Runs that missed a heartbeat.")
)


def occur(what: Occurrence, /, count: float = 1, value: float | None = None, **facts: Fact) -> None:
    """Notes that something happened: in the metrics, and in the log if its level is on."""
    if what.counted is not None:
        what.counted.record(count, facts)
    if what.valued is not None and value is not None:
        what.valued.record(value, facts)
    if what.level is not None and what.level >= _minimum:
        if count != 1:
            facts["count"] = count
        if value is not None:
            facts["value"] = value
        structlog.get_logger().log(what.level, what.name, **facts)


_minimum = logging.INFO


def configure(level: str, form: str) -> None:
    """Sends the log of the server and of its libraries to stderr, as JSON lines or as text."""
    global _minimum
    _minimum = LEVELS[level]
    renderer = (
        structlog.processors.JSONRenderer(serializer=_encode)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    chain: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact,
    ]
    structlog.configure(
        processors=[*chain, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_minimum),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=max(_minimum, logging.INFO), handlers=[handler], force=True)
    # One line of our own tells of a start and a stop; uvicorn's dozen would repeat it.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _encode(line: object, **_: object) -> str:
    return msgspec.json.encode(line, enc_hook=str).decode()


def _redact(_: object, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name, fact in line.items():
        if isinstance(fact, str):
            line[name] = SECRETS.sub("[redacted]", fact)
        elif isinstance(fact, BaseException):
            line[name] = SECRETS.sub("[redacted]", f"{type(fact).__name__}: {fact}")
    return line


def exposition() -> bytes:
    """The metrics of every process of this server, in Prometheus' text form."""
    if ValueClass.__name__ == "MmapedValue":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # theirs
        return generate_latest(registry)
    return generate_latest(REGISTRY)
