"""Traces by OpenTelemetry and reports of defects by Sentry: imported only if configured, and without any contents."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from app.errors import ConfigurationError, Internal, Problem
from app.metrics import METHODS, defects

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from sentry_sdk.types import Event, Hint
    from structlog.typing import EventDict, Processor

SERVICE = "chat-insights"
FLUSH_S = 2.0
"""How long the end waits for what is not sent yet."""
SHOWN_OF_EVENT = ("event_id", "timestamp", "platform", "level", "tags", "sdk")
SHOWN_OF_FRAME = ("module", "function", "filename", "lineno", "in_app")
Attributes = Mapping[str, str | int | float]

_tracer: "Tracer | None" = None


@contextmanager
def tracing(endpoint: str | None) -> Iterator[None]:
    """Sends spans to an OTLP receiver until the block ends; without one there are none.

    The variables that OpenTelemetry defines besides, such as OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER, work.
    """
    global _tracer  # as with logs, whoever is traced needs nothing handed down
    if endpoint is None:
        yield
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=FLUSH_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer(SERVICE)
    try:
        yield
    finally:
        _tracer = None
        provider.shutdown()


@contextmanager
def span(name: str, attributes: Attributes) -> Iterator[Callable[[Attributes], None]]:
    """Times what is asked of somebody else; yields what notes more of it. An ``error.type`` makes it a failure."""
    if _tracer is None:
        yield lambda _: None
        return
    from opentelemetry.trace import SpanKind, StatusCode

    # Neither the error nor its trace: its text may hold anything.
    with _tracer.start_as_current_span(
        name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:

        def note(more: Attributes) -> None:
            current.set_attributes(more)
            if "error.type" in more:
                current.set_status(StatusCode.ERROR)

        yield note


def traced(app: Any) -> Any:
    """Returns an ASGI application that traces requests, or the same one if there is nobody to tell.

    A caller's trace goes on (W3C Trace Context). Sockets are left out: they are open for hours.
    """
    if _tracer is None:
        return app
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer, propagator = _tracer, TraceContextTextMapPropagator()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        status = 0

        async def note(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        with tracer.start_as_current_span(
            method,
            context=propagator.extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method},
            record_exception=False,
            set_status_on_exception=False,
        ) as current:
            try:
                await app(scope, receive, note)
            finally:
                if route := getattr(scope.get("route"), "path", None):
                    current.update_name(f"{method} {route}")
                    current.set_attribute("http.route", route)
                if status:
                    current.set_attribute("http.response.status_code", status)
                if status >= 500:
                    current.set_attribute("error.type", str(status))
                    current.set_status(StatusCode.ERROR)

    return answer


@contextmanager
def reporting(dsn: str | None) -> Iterator["list[Processor]"]:
    """Yields what among the processors of the log reports defects until the block ends.

    Raises:
        ConfigurationError: for a wrong DSN.
    """
    if dsn is None:
        yield []
        return
    import sentry_sdk
    from sentry_sdk.utils import BadDsn

    try:
        client = sentry_sdk.Client(
            dsn,
            before_send=_without_texts,
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            include_source_context=False,
            max_breadcrumbs=0,
            max_request_body_size="never",
            send_client_reports=False,
            server_name="",
        )
    except BadDsn:
        raise ConfigurationError("SENTRY_DSN is wrong: copy it from the project's settings.") from None

    def report(_: Any, method: str, entry: "EventDict") -> "EventDict":
        error = sys.exc_info()[1]
        if method == "error" and error is not None:
            event, hint = sentry_sdk.utils.event_from_exception(error, client.options)
            client.capture_event({**event, "level": "error", "tags": {"event": str(entry.get("event"))}}, hint)
        return entry

    try:
        yield [report]
    finally:
        client.close(timeout=FLUSH_S)


def log_failure(log: Any, event: str, error: Exception, **details: str) -> None:
    """Logs what failed where nobody waits for an answer, without its text; call it where the error is handled.

    What a dependency does is a warning; everything else is a defect of ours, which is reported and counted.
    """
    if _is_ours(error):
        defects.inc()
        log.error("defect", where=event, error=type(error).__name__, **details)
    else:
        log.warning(event, error=type(error).__name__, **details)


def _is_ours(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_ours(each) for each in error.exceptions)
    return isinstance(error, Internal) or not isinstance(error, Problem | ConfigurationError | OSError)


def _without_texts(event: "Event", _: "Hint") -> "Event":
    """Returns which kinds of errors they were and where; the rest, such as an error's text, may hold data."""
    values: list[dict[str, Any]] = []
    for value in event.get("exception", {}).get("values", ()):
        frames = (value.get("stacktrace") or {}).get("frames", ())
        shown = [{name: frame[name] for name in SHOWN_OF_FRAME if name in frame} for frame in frames]
        values.append({"type": value["type"], "module": value["module"], "stacktrace": {"frames": shown}})
    given: Mapping[str, Any] = event
    kept = {name: given[name] for name in SHOWN_OF_EVENT if name in given}
    kept["exception"] = {"values": values}
    return cast("Event", kept)
