"""What is deployed speaks of things that exist: metrics, settings, commands, files."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import psycopg
import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from app.__main__ import cli
from app.settings import ROOT, Settings
from app.ui.__main__ import options
from tests.support.accounts import Accounts, open_accounts
from tests.support.api import message
from tests.support.metrics import Metrics, scrape
from tests.support.providers import failure, gemini_reply, open_providers, summary_answer

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
LOCK = (ROOT / "requirements.lock").read_text()
FOR_OTHERS = {"POSTGRES_PASSWORD", "APP_PASSWORD", "GRAFANA_PASSWORD", "PROMETHEUS_PORT", "GRAFANA_PORT"}
"""What .env may hold for the other services."""
OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"instance", "job", "le"}
WORDS = {"and", "or", "unless", "on", "by", "without", "ignoring", "offset"}


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / "deploy/grafana/dashboards/chat-insights.json").read_text())[
        "panels"
    ]
    return [panel for panel in found if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    for name, rule in alerts().items():
        yield name, rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


def metrics_in(expression: str) -> set[str]:
    """Returns the names of metrics in PromQL."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|without|ignoring)\s*\([^)]*\)|\"[^\"]*\"", " ", expression)
    return set(re.findall(r"\b[a-z_:][a-z0-9_:]*\b(?!\s*\()", bare)) - WORDS


def labels_in(expression: str) -> set[str]:
    """Returns the names of labels in PromQL."""
    matched = {
        name for inside in re.findall(r"\{([^}]*)\}", expression) for name in re.findall(r"(\w+)\s*[=!]~?", inside)
    }
    grouped = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    return matched | {name.strip() for listed in grouped for name in listed.split(",") if name.strip()}


@pytest.fixture
async def told(postgresql: psycopg.Connection, settings: Settings) -> Metrics:
    """Returns what an instance tells that has met a bit of everything."""
    async with open_providers() as models:
        models.grok.reply, models.gemini.reply = failure(401), gemini_reply(summary_answer())
        more = {**models.settings, "rate_limit_read": "5/day", "database_pool_size": 1}
        async with open_accounts(postgresql, settings.model_copy(update=more)) as accounts:
            return await driven(accounts, postgresql)


async def driven(accounts: Accounts, postgresql: psycopg.Connection) -> Metrics:
    admin = accounts.client(await accounts.key())
    await admin.post("/chats", json=[message("c1", "m1"), message("c1", "m2")])
    await admin.post("/chats/summarize", json={"conversation_id": "c1"})
    for _ in range(6):
        await admin.get("/chats")
    async with accounts.services.chats._db.read():  # the only connection
        assert (await admin.get("/chats/c1/summary")).status_code in (429, 503)
        assert (await admin.post("/chats", json=message("c2"))).status_code == 503
    return await scrape(admin)


async def test_every_alert_and_panel_is_about_metrics_and_labels_that_there_are(told: Metrics) -> None:
    names = {name for name, _ in told} | OF_PROMETHEUS
    labels = {label for _, has in told for label, _ in has} | LABELS_OF_PROMETHEUS
    for where, expression in expressions():
        assert metrics_in(expression), where
        assert metrics_in(expression) <= names, where
        assert labels_in(expression) <= labels, where
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for _, each in expressions() for name in metrics_in(each)}
    counted = {re.sub(r"_(bucket|count|sum)$", "", name) for name, _ in told}
    ours = {name for name in counted if not name.startswith("process_")}
    assert ours <= shown, "what is counted is shown"


def test_what_is_read_out_of_an_expression() -> None:
    expression = 'sum by (le, x) (rate(a_total{b=~"c|d", e!="f"}[5m])) / max(g) > 0.5 and on () h'
    assert metrics_in(expression) == {"a_total", "g", "h"}
    assert labels_in(expression) == {"le", "x", "b", "e"}


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    wanted = {"NotReady", "Errors", "Slow", "PoolExhausted", "QueueWaits", "BudgetNearlyGone", "Fallbacks"}
    assert wanted | {"WebhooksWait", "Defects"} <= set(alerts())
    for name, rule in alerts().items():
        assert set(rule["annotations"]) == {"summary", "action"}, name
        assert rule["labels"]["severity"] in ("critical", "warning"), name


def test_each_service_is_hardened_and_bounded_and_looked_after() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"], name
        assert "healthcheck" in service or name in ("api", "ui"), name  # whose images have one
        assert "build" in service or re.search(r":v?\d+\.\d+(\.\d+)?$", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert "configs" not in service, "a read-only container cannot take them"
        mounted = [volume.split(":") for volume in service.get("volumes", ())]
        for source, *_, last in mounted:
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                assert last == "ro", source
            else:
                assert source in COMPOSE["volumes"], source


def test_each_image_is_nobodys_and_the_apis_is_without_what_only_the_interface_needs() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", dockerfile, re.MULTILINE | re.DOTALL))
    targets = {service["build"]["target"] for service in SERVICES.values() if "build" in service}
    assert targets == {"api", "ui"}
    for target in targets:
        assert re.search(r"^USER chat\n.*^HEALTHCHECK ", stages[target], re.MULTILINE | re.DOTALL), target
    needed_by: dict[str, set[str]] = {}
    for name, comment in re.findall(r"^(\S+)==(?:.*\n)*?((?:    #.*\n?)+)", LOCK, re.MULTILINE):
        needed_by[name] = set(re.findall(r"[\w.-]+", comment.replace("# via", ""))) - {"pyproject.toml"}
    only = {"streamlit"}
    while more := {name for name, by in needed_by.items() if by <= only} - only:
        only |= more
    listed = re.search(r"uninstall .*\\\n(.*)", stages["packages-api"])
    assert listed
    assert set(listed[1].split()) == only


@contextmanager
def answering(body: str, path: str = "/metrics") -> Iterator[str]:
    """Answers with a text at one path, and with 404 elsewhere; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield str(server.server_port)
        finally:
            server.shutdown()
            thread.join()


def healthy(command: list[str], **environment: str) -> bool:
    """Returns what a container's own look at itself says; it is Python's."""
    assert command[0] == "python"
    found = subprocess.run(
        [sys.executable, *command[1:]], env={**os.environ, **environment}, capture_output=True, check=False
    )
    return found.returncode == 0


@pytest.mark.parametrize(
    ("ui_url", "path"),
    [
        ("", ""),
        ("https://chat.example.com", ""),
        ("https://chat.example.com/ui", "/ui"),
        ("https://example.com/a/ui/", "/a/ui"),
    ],
)
def test_the_interface_is_looked_for_where_it_is(ui_url: str, path: str) -> None:
    ui = (ROOT / "Dockerfile").read_text().partition(" AS ui\n")[2]
    command = re.search(r"^HEALTHCHECK .*\\\n    CMD (.*)", ui, re.MULTILINE)
    assert command
    with answering("ok", f"{path}/_stcore/health") as port:
        assert healthy(json.loads(command[1]), UI_URL=ui_url, UI_PORT=port)
    assert options("127.0.0.1", 8501, ui_url or "http://localhost:8501")["server.baseUrlPath"] == path.strip("/")


def test_a_worker_that_has_not_seen_for_half_a_minute_that_it_can_work_is_unhealthy() -> None:
    port = SERVICES["worker"]["environment"]["WORKER_METRICS_PORT"]
    kind, *command = SERVICES["worker"]["healthcheck"]["test"]
    assert kind == "CMD"
    registry = CollectorRegistry()
    seen = Gauge("worker_ready_timestamp_seconds", "-", registry=registry)
    for seconds, well in ((0, True), (60, False)):
        seen.set(time.time() - seconds)
        with answering(generate_latest(registry).decode()) as other:
            assert healthy([part.replace(str(port), other) for part in command]) is well
    assert not healthy([part.replace(str(port), other) for part in command]), "nobody answers"


def test_grafana_does_not_start_without_a_password() -> None:
    [shell, option, script] = SERVICES["grafana"]["entrypoint"]
    assert script.endswith("exec /run.sh"), "what the image begins with"
    script = script.replace("$$", "$").replace("exec /run.sh", "echo begun")
    for password, begins in (("", False), ("a-password", True)):
        found = subprocess.run(
            [shell, option, script],
            env={"GF_SECURITY_ADMIN_PASSWORD": password},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (found.returncode == 0, "begun" in found.stdout) == (begins, begins)
        assert ("set GRAFANA_PASSWORD in .env" in found.stderr) != begins


def test_the_proxy_keeps_metrics_inside() -> None:
    text = re.sub(r"#.*", "", (ROOT / "deploy/nginx.conf").read_text())
    places = dict(re.findall(r"location (.*?) \{\s*(.*?)\s*\}", text, re.DOTALL))
    assert places.pop("= /metrics") == "return 404;"
    assert list(places) == ["/"]


def test_what_the_services_are_given_are_settings_and_what_they_run_are_commands() -> None:
    known = {name.upper() for name in Settings.model_fields} | FOR_OTHERS
    for name, service in OURS.items():
        assert set(service.get("environment", {})) <= known, name
        if (command := service.get("command", [])[:3]) == ["python", "-m", "app"]:
            assert service["command"][3] in typer.main.get_command(cli).commands, name  # type: ignore[attr-defined]
        else:
            assert command in ([], ["alembic", "upgrade", "head"]), name
        for other, wait in service["depends_on"].items():
            assert other in SERVICES
            if wait["condition"] == "service_healthy":
                assert other == "api" or "test" in SERVICES[other]["healthcheck"], name
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", text)) <= known
    assert "env_file" not in SERVICES["ui"], "it needs no secrets"


def test_prometheus_asks_where_the_services_answer(settings: Settings) -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    asked = {
        (name, place["port"])
        for job in config["scrape_configs"]
        for place in job["dns_sd_configs"]
        for name in place["names"]
    }
    ports = {name: service.get("environment", {}) for name, service in SERVICES.items()}
    assert asked == {("api", ports["api"]["PORT"]), ("worker", ports["worker"]["WORKER_METRICS_PORT"])}
    paths = [path.split(":")[1] for path in SERVICES["prometheus"]["volumes"]]
    assert config["rule_files"] == [next(path for path in paths if "alerts" in path)]
