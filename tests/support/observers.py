"""Whom the service tells of itself, on loopback: an OpenTelemetry collector and Sentry, by their real protocols."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATIENCE_S = 20.0


@dataclass
class Observer:
    """What was received, with the headers it came with."""

    url: str = ""
    bodies: list[tuple[str, str, bytes]] = field(default_factory=list)
    changed: Condition = field(default_factory=Condition)

    @property
    def dsn(self) -> str:
        """Where Sentry is, with a key as long as real ones."""
        return f"{self.url.replace('//', '//canary0123456789abcdef012345678@')}/1"

    @property
    def raw(self) -> bytes:
        """Everything, as it is without compression."""
        return b"\n".join(head.encode() + body for _, head, body in self.bodies)

    def wait_for(self, path: str) -> None:
        """Waits until something came to a path."""
        with self.changed:
            assert self.changed.wait_for(lambda: any(each[0] == path for each in self.bodies), PATIENCE_S), path

    def spans(self) -> list[Span]:
        """Returns the spans, in the order they ended."""
        requests = [ExportTraceServiceRequest.FromString(body) for path, _, body in self.bodies if path == "/v1/traces"]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def events(self) -> list[dict[str, Any]]:
        """Returns the events of Sentry's envelopes."""
        found = []
        for path, _, body in self.bodies:
            if path == "/api/1/envelope/":
                _, *items = body.split(b"\n")
                for head, item in zip(items[::2], items[1::2], strict=False):
                    assert json.loads(head)["type"] == "event"
                    found.append(json.loads(item))
        return found


@contextmanager
def observer() -> Iterator[Observer]:
    """Yields one that takes everything."""
    received = Observer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            with received.changed:
                received.bodies.append((self.path, str(self.headers), body))
                received.changed.notify_all()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


def attributes(span: Span) -> dict[str, Any]:
    """Returns what a span says."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
