"""What the processes say about themselves: structured logs and metrics.

Neither ever carries what was said in a chat, a token, a cookie or a key: log lines name sessions
and messages by id, and metrics have labels of few values.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO, cast

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

if TYPE_CHECKING:
    from structlog.typing import Processor

# At their lower levels these log statements with parameters, requests and answers: what was said.
# Alembic only chatters.
_TALKATIVE = ("alembic", "aiokafka", "aiosqlite", "httpcore", "httpx", "openai", "sqlalchemy")

_HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ANSWER_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_FLUSH_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_FLUSH_ENTRIES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class _Stderr:
    """Whatever stderr is at the moment; a log line that cannot be written ends nothing."""

    def write(self, text: str) -> None:
        # The terminal may be gone (SIGHUP), or the reader of the pipe.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def configure_logging(*, environment: str, level: str) -> None:
    """Send all logs of this process to stderr, once, at its start.

    ``environment`` ``production`` gives one JSON object a line, anything else lines for a person,
    in colour on a terminal. ``level`` is ``debug``, ``info``, ``warning`` or ``error``. What uses
    the standard library's logging comes out in the same form.
    """
    numeric_level = logging.getLevelNamesMapping()[level.upper()]
    stderr = _Stderr()
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor]
    if environment == "production":
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # The default traceback prints local variables where rich is installed: messages, tokens.
        plain = structlog.dev.plain_traceback
        render = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=plain, pad_event_to=0
            )
        ]
    structlog.configure(
        processors=[*before, *render],
        wrapper_class=structlog.make_filtering_bound_logger(numeric_level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", stderr)),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*before, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(numeric_level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(numeric_level, logging.WARNING))
    # The web node writes its own line a request: with ids, and without the query string.
    logging.getLogger("uvicorn.access").disabled = True
    uvicorn_errors = logging.getLogger("uvicorn.error")
    uvicorn_errors.addFilter(_without_traceback_of_a_client)


def _without_traceback_of_a_client(record: logging.LogRecord) -> bool:
    """Make a line of what uvicorn calls an exception and a client did: text that is no UTF-8.

    Anybody may send it, as often as they like: a traceback each would bury what matters.
    """
    if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        return logging.getLogger().isEnabledFor(logging.INFO)
    return True


@dataclass(frozen=True, slots=True)
class Metrics:
    """One process's metrics; the attribute is the exposed name without ``throughline_``."""

    registry: CollectorRegistry

    http_requests: Counter
    http_request_seconds: Histogram
    streams_open: Gauge
    events_delivered: Counter
    publications: Counter
    tail_gaps: Counter
    tail_checks: Counter
    histories: Counter
    history_reads: Counter
    limits_refused: Counter
    limits_uncounted: Counter

    answers: Counter
    answer_first_chunk_seconds: Histogram
    answer_seconds: Histogram
    chunks_appended: Counter
    flush_seconds: Histogram
    flush_entries: Histogram
    lease_lost: Counter
    jobs_claimed: Counter
    queue_depth: Gauge
    reconciled: Counter
    model_circuit: Gauge
    model_answering: Gauge
    model_waiting: Gauge

    def exposition(self) -> tuple[bytes, str]:
        """Give the body and the content type of the Prometheus endpoint."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


def create_metrics() -> Metrics:
    """Make a process's metrics, in a registry of their own."""
    registry = CollectorRegistry()
    ProcessCollector(namespace="throughline", registry=registry)

    def counter(name: str, text: str, *labels: str) -> Counter:
        return Counter(f"throughline_{name}", text, labels, registry=registry)

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"throughline_{name}", text, labels, registry=registry)

    def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"throughline_{name}", text, labels, buckets=buckets, registry=registry)

    return Metrics(
        registry=registry,
        http_requests=counter(
            "http_requests", "HTTP requests answered", "method", "route", "status"
        ),
        http_request_seconds=histogram(
            "http_request_seconds",
            "Time from an HTTP request to the end of its answer; streams are not counted",
            _HTTP_SECONDS,
            "method",
            "route",
        ),
        streams_open=gauge("streams_open", "Clients that follow a session", "transport"),
        events_delivered=counter("events_delivered", "Log entries handed to clients", "transport"),
        publications=counter("publications", "Publications received from Redis"),
        tail_gaps=counter("tail_gaps", "Holes found in a tail and filled from the log"),
        tail_checks=counter("tail_checks", "Comparisons of a tail with the log"),
        histories=counter("histories", "Clients given the whole state instead of events", "reason"),
        history_reads=counter(
            "history_reads",
            "Reads of stored messages: `hit` where tier `l1`, `l2` or `database` had them, `miss` "
            "where a tier did not, `failed` where Redis did not answer or what it had was broken",
            "tier",
            "outcome",
        ),
        limits_refused=counter(
            "limits_refused", "What a limit refused, by the bucket that was full", "bucket"
        ),
        limits_uncounted=counter(
            "limits_uncounted",
            "What Redis did not count in time: `requests` that went on uncounted, and tries to "
            "sign in (`sign_ins`) that this node counted for itself",
            "what",
        ),
        answers=counter("answers", "Answers that ended", "model", "outcome"),
        answer_first_chunk_seconds=histogram(
            "answer_first_chunk_seconds",
            "Time from an attempt's begin to its first piece of text",
            _ANSWER_SECONDS,
            "model",
        ),
        answer_seconds=histogram(
            "answer_seconds", "Time from an attempt's begin to its end", _ANSWER_SECONDS, "model"
        ),
        chunks_appended=counter(
            "chunks_appended", "Chunks and pieces of reasoning written to session logs"
        ),
        flush_seconds=histogram(
            "flush_seconds", "Time of one write of all sessions' chunks to Redis", _FLUSH_SECONDS
        ),
        flush_entries=histogram("flush_entries", "Log entries in one write", _FLUSH_ENTRIES),
        lease_lost=counter("lease_lost", "Sessions found to be written by another worker"),
        jobs_claimed=counter(
            "jobs_claimed", "Jobs taken: `new` ones, and `taken_over` from a dead worker", "how"
        ),
        queue_depth=gauge("queue_depth", "Jobs that wait or are being worked on"),
        reconciled=counter("reconciled", "Unfinished answers found uncovered and queued again"),
        model_circuit=gauge(
            "model_circuit",
            "Whether this worker asks a model's server: 0 it does, 1 one question tries whether it "
            "is back, 2 it is left alone",
            "model",
        ),
        model_answering=gauge(
            "model_answering", "Answers that this worker has a model generate", "model"
        ),
        model_waiting=gauge("model_waiting", "Answers that wait for a place at a model", "model"),
    )
