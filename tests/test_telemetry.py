"""Traces and reports of defects: what they say, and that no contents are in them."""

import asyncio
import dataclasses
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from app import worker
from app.errors import ConfigurationError, Unavailable
from app.factory import build
from app.logs import configure_logs
from app.main import create_app
from app.schemas.enums import Role
from app.settings import ROOT, Settings
from app.telemetry import reporting, tracing
from tests.support.api import create_key, message
from tests.support.metrics import scrape, since
from tests.support.observers import Observer, attributes, observer
from tests.support.process import serving
from tests.support.providers import Providers, failure, grok_reply, open_providers, summary_answer

PERSONAL = "canary-personal-words"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def received() -> Iterator[Observer]:
    with observer() as opened:
        yield opened


@pytest.fixture
async def models() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        opened.grok.reply = grok_reply(summary_answer())
        yield opened


@pytest.fixture
async def client(
    settings: Settings, models: Providers, received: Observer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Yields an admin of an instance that tells both of itself."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    settings = settings.model_copy(update=models.settings)
    with tracing(received.url), reporting(received.dsn) as processors:
        configure_logs("error", processors)
        try:
            async with opened(settings) as (app, key):
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://t", headers={"X-API-Key": key}
                ) as client:
                    client.app = app  # type: ignore[attr-defined]
                    yield client
        finally:
            configure_logs("warning")


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[FastAPI, str]]:
    assert settings.database_url
    url = settings.database_url.get_secret_value()
    app = create_app(lambda: build(settings, url))
    async with app.router.lifespan_context(app):
        services = app.state.services
        row, _ = await services.workspaces.get_or_create("ours")
        yield app, await create_key(services, row.workspace_id, Role.ADMIN)


async def test_requests_and_calls_of_models_are_spans_without_contents(
    client: httpx.AsyncClient, models: Providers, received: Observer
) -> None:
    parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    sent = message(PERSONAL, PERSONAL, user_id=PERSONAL, message_content=f"{PERSONAL} are said.")
    assert (await client.post("/chats", json=sent, headers=parent)).status_code == 201
    asked = await client.post("/chats/summarize", json={"conversation_id": PERSONAL})
    assert asked.json()["provenance"]["provider"] == "xai"
    models.grok.reply = failure(503)
    await client.post("/chats/summarize", json={"conversation_id": PERSONAL, "force": True})
    await client.get("/chats", params={"q": PERSONAL})
    await client.get(f"/{PERSONAL}")
    await client.request(PERSONAL.upper(), f"/chats/{PERSONAL}")
    received.wait_for("/v1/traces")
    while not {"GET", "_OTHER /chats/{conversation_id}"} < {span.name for span in received.spans()}:
        with received.changed:
            assert received.changed.wait(20), [span.name for span in received.spans()]
    spans = received.spans()
    first = next(span for span in spans if span.name == "POST /chats")
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(first) == {
        "http.request.method": "POST",
        "http.route": "/chats",
        "http.response.status_code": 201,
    }
    answered, *failed = [span for span in spans if span.name == "chat xai/grok-4.3"]
    assert attributes(answered) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "x_ai",
        "gen_ai.request.model": "xai/grok-4.3",
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 100,
    }
    summarize = [span for span in spans if span.name == "POST /chats/summarize"]
    assert answered.parent_span_id in {span.span_id for span in summarize}
    assert failed
    assert {attributes(span)["error.type"] for span in failed} == {"unavailable"}
    assert {span.status.code for span in failed} == {2}
    assert PERSONAL.encode() not in received.raw
    assert PERSONAL.upper().encode() not in received.raw


async def test_a_defect_is_reported_without_any_text(client: httpx.AsyncClient, received: Observer) -> None:
    app: FastAPI = client.app  # type: ignore[attr-defined]

    class Broken:
        async def page(self, *_: object) -> None:
            local = f"{PERSONAL} in a variable"
            error = ValueError(f"{PERSONAL} in the text of {local}")
            error.add_note(f"{PERSONAL} in a note")
            raise error from KeyError(PERSONAL)

    app.state.services = dataclasses.replace(app.state.services, chats=Broken())
    answer = await client.get(f"/chats/{PERSONAL}", params={"limit": "7"}, headers={"X-Request-Id": PERSONAL})
    assert answer.status_code == 500
    assert (await client.get("/nothing")).status_code == 404
    received.wait_for("/api/1/envelope/")
    [event] = received.events()
    cause, error = event["exception"]["values"]
    assert (cause["type"], error["type"]) == ("KeyError", "ValueError")
    where = error["stacktrace"]["frames"][-1]
    assert (where["function"], where["lineno"] > 0) == ("page", True)
    assert event["tags"] == {"event": "defect"}
    for frame in error["stacktrace"]["frames"]:
        assert not {"vars", "context_line"} & set(frame)
    assert not {"request", "user", "breadcrumbs", "extra", "modules", "server_name", "message"} & set(event)
    assert PERSONAL.encode() not in received.raw


async def test_a_workers_defect_is_reported_and_counted_and_what_a_dependency_does_is_not(
    client: httpx.AsyncClient, received: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    app: FastAPI = client.app  # type: ignore[attr-defined]
    stopping = asyncio.Event()
    errors = [
        Unavailable(PERSONAL),
        ExceptionGroup(PERSONAL, [Unavailable(PERSONAL), ConnectionError(PERSONAL)]),
        ExceptionGroup(PERSONAL, [Unavailable(PERSONAL), TypeError(PERSONAL)]),
    ]

    async def fail(_: object, stopping: asyncio.Event) -> None:
        if len(errors) == 1:
            stopping.set()
        raise errors.pop(0)

    monkeypatch.setattr(worker, "CHORES", [worker.Chore("broken", 0.0, fail)])
    before = await scrape(client)
    await worker.work(app.state.services, stopping)
    assert since(before, await scrape(client)).of("defects_total") == 1
    received.wait_for("/api/1/envelope/")
    [event] = received.events()
    assert event["tags"] == {"event": "defect"}
    assert {each["type"] for each in event["exception"]["values"]} >= {"ExceptionGroup", "TypeError"}
    assert PERSONAL.encode() not in received.raw


def test_a_wrong_dsn_is_one_readable_message_without_it() -> None:
    with pytest.raises(ConfigurationError) as error, reporting("http://canary-key-4711@"):
        pass
    assert "SENTRY_DSN" in str(error.value)
    assert "canary" not in str(error.value)


def test_a_real_process_tells_both_before_it_ends(settings: Settings, received: Observer) -> None:
    more = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
        "SENTRY_DSN": received.dsn,
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
    }
    with serving(settings, **more) as running:
        assert httpx.get(f"{running.url}/livez").status_code == 200
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(timeout=30)
    assert [span.name for span in received.spans()] == ["GET /livez"]


def test_nobody_is_told_who_is_not_configured() -> None:
    code = "import sys, app.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"opentelemetry.sdk", "sentry_sdk", "requests", "urllib3"} & set(loaded.stdout.split())
