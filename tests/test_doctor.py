"""The doctor: finds what was broken, says what to do, and shows no secret."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from app import doctor
from app.__main__ import cli
from app.commands.common import out
from app.doctor import Finding, State, examine
from app.embedded import embedded_server
from app.repositories.sessions import APP_ROLE
from app.settings import ROOT, Settings
from tests.conftest import MASTER_KEY, migrate, url_of
from tests.support.api import Workspace, message
from tests.support.canaries import CANARIES, Kind
from tests.support.pooler import Pooler, url_through
from tests.support.providers import Providers, failure, grok_reply, open_providers, summary_answer
from tests.support.valkey import SilentServer, valkey_server

PASSWORD = "canary-doctor-password"
OTHER_KEY = "5f" * 8 + MASTER_KEY[16:]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(settings: Settings, tmp_path: Path) -> dict[str, str]:
    """Returns the variables of the command, on the database of the settings."""
    secrets = {name: getattr(settings, name) for name in ("database_url", "master_key", "secret_key")}
    own = {name.upper(): value.get_secret_value() for name, value in secrets.items()}
    return {**own, "DATA_DIR": str(tmp_path), "COLUMNS": "400"}


@pytest.fixture
def run(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Returns the command in this process, which has loaded by now what takes a process a second."""
    monkeypatch.setattr(out, "width", 400)

    def command(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        CANARIES.learn(Kind.PASSWORD, PASSWORD)  # in logs as well, which are this process's own
        given = {**environment, **more}
        found = CliRunner(env=given).invoke(cli, ["doctor", *arguments])
        assert isinstance(found.exception, SystemExit | None), found.exception
        return looked_at(subprocess.CompletedProcess(arguments, found.exit_code, found.stdout, found.stderr), given)

    return command


@pytest.fixture
def process(environment: dict[str, str]) -> Run:
    """Returns the command as a process."""

    def command(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        given = {**environment, **more}
        found = subprocess.run(
            [sys.executable, "-m", "app", "doctor", *arguments],
            cwd=ROOT,
            env={**os.environ, **given},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return looked_at(found, given)

    return command


def looked_at(found: subprocess.CompletedProcess[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Returns what was printed, in which there is no secret."""
    printed = found.stdout + found.stderr
    for secret in (*environment.values(), PASSWORD):
        if "canary" in secret:
            assert secret not in printed
    assert "Traceback" not in found.stderr
    return found


def line(found: subprocess.CompletedProcess[str], check: str) -> str:
    """Returns what is said about something."""
    return next(each for each in found.stdout.splitlines() if each.startswith(f"│ {check} "))


async def look(settings: Settings, check: str, **more: Any) -> list[Finding]:
    """Returns what is found about something, in this process."""
    return [finding for finding in await examine(settings, **more) if finding.check == check]


def test_a_sound_set_up_is_told_so(process: Run) -> None:
    found = process()
    assert found.returncode == 0, found.stdout + found.stderr
    for check in ("database", "migrations", "privileges", "stored data", "clock", "connections", "worker", "models"):
        assert " ok " in line(found, check), check
    assert "superuser" in line(found, "role"), "the tests' user is one"


def test_each_fault_has_its_line_and_its_advice(run: Run, process: Run, postgresql: psycopg.Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    info = postgresql.info
    nowhere = f"postgresql://u:{PASSWORD}@127.0.0.1:{free}/x"
    no_database = url_of(postgresql).replace(f"/{info.dbname}?", "/no_such_database?")
    for environment, check, says in [
        ({"DATABASE_URL": nowhere}, "database", "Start it; correct host and port"),
        ({"DATABASE_URL": no_database}, "database", "CREATE DATABASE"),
        ({"MASTER_KEY": "", "DATABASE_URL": nowhere}, "master_key", "Set MASTER_KEY"),
        ({"RATE_LIMIT_READ": "often"}, "rate limits", "RATE_LIMIT_READ"),
        ({"SENTRY_DSN": "nonsense"}, "reports", "Correct SENTRY_DSN"),
        (
            {"RATE_LIMIT_STORAGE_URL": f"valkey://:{PASSWORD}@127.0.0.1/x"},
            "rate limits",
            "RATE_LIMIT_STORAGE_URL is wrong",
        ),
    ]:
        found = run(**environment)
        assert found.returncode == 1, environment
        assert " failed " in line(found, check), found.stdout
        assert says in line(found, check), found.stdout
        if "DATABASE_URL" not in environment:
            for other in ("migrations", "privileges", "stored data", "worker"):
                assert " ok " in line(found, other), "it has nothing to do with that"
    failed = process(DATABASE_URL=nowhere)
    assert (failed.returncode, line(failed, "database")) == (1, line(run(DATABASE_URL=nowhere), "database"))
    wrong = process(PORT="0", SENTRY_DSN="")
    assert (wrong.returncode, "PORT: " in wrong.stderr) == (1, True)


async def test_another_master_key_is_found_out(workspace: Workspace, run: Run) -> None:
    await workspace.editor.post("/chats", json=message())
    found = await asyncio.to_thread(run, MASTER_KEY=OTHER_KEY)
    assert found.returncode == 1
    assert " failed " in line(found, "stored data")
    assert "PREVIOUS_MASTER_KEYS" in line(found, "stored data")


def test_a_database_that_was_not_migrated_or_lost_its_grants(run: Run, postgresql: psycopg.Connection) -> None:
    postgresql.autocommit = True
    postgresql.execute(f"REVOKE SELECT ON messages FROM {APP_ROLE}".encode())
    found = run()
    assert (found.returncode, "messages" in line(found, "privileges")) == (1, True)
    postgresql.execute(f"GRANT SELECT ON messages TO {APP_ROLE}".encode())
    for what in ("ALL ON pgqueuer.pgqueuer", "USAGE ON SCHEMA pgqueuer"):
        postgresql.execute(f"REVOKE {what} FROM {APP_ROLE}".encode())
        found = run()
        assert (found.returncode, "pgqueuer.pgqueuer" in line(found, "privileges")) == (1, True)
    info = postgresql.info
    migrate("base", host=info.host, port=info.port, user=info.user, dbname=info.dbname, password=info.password)
    found = run()
    assert found.returncode == 1
    assert "python -m app migrate" in line(found, "migrations")


async def test_jobs_that_no_worker_takes(workspace: Workspace, run: Run, postgresql: psycopg.Connection) -> None:
    await workspace.editor.post("/chats", json=message())
    await workspace.editor.post("/jobs/summarize", json={"conversation_ids": ["c1"]})
    assert " ok " in line(await asyncio.to_thread(run), "worker")
    postgresql.autocommit = True
    ago = "now() - interval '1 minute'"
    postgresql.execute(f"UPDATE pgqueuer.pgqueuer SET updated = {ago}, execute_after = {ago}".encode())
    found = await asyncio.to_thread(run)
    assert found.returncode == 1
    assert "Start one: python -m app work" in line(found, "worker")


@pytest.fixture
def storage() -> Iterator[str]:
    with valkey_server() as server:
        yield f"unix://{server.unix_socket_path}?db=0"


async def test_what_rate_limits_are_counted_in(settings: Settings, storage: str) -> None:
    [alone] = await look(settings, "rate limits")
    [several] = await look(settings.model_copy(update={"web_concurrency": 2}), "rate limits")
    [shared] = await look(settings.model_copy(update={"rate_limit_storage_url": SecretStr(storage)}), "rate limits")
    with SilentServer() as server:
        [silent] = await look(
            settings.model_copy(update={"rate_limit_storage_url": SecretStr(server.url)}), "rate limits"
        )
    assert [each.state for each in (alone, several, shared, silent)] == ["ok", "warning", "ok", "warning"]
    assert "RATE_LIMIT_STORAGE_URL" in several.action
    assert "does not answer" in silent.found


async def test_a_pooler_is_known(settings: Settings, postgresql: psycopg.Connection) -> None:
    postgresql.autocommit = True
    info = postgresql.info
    for revision in ("base", "head"):  # a copy of a template lacks the database's settings
        migrate(revision, host=info.host, port=info.port, user=info.user, dbname=info.dbname, password=info.password)
    postgresql.execute(f"ALTER ROLE {APP_ROLE} LOGIN".encode())
    try:
        door = Pooler(postgresql, silently=True)
        async with door.running() as port:
            url = SecretStr(url_through(port, postgresql, APP_ROLE))
            pooled = settings.model_copy(update={"database_url": url})
            assert [each.state for each in await look(pooled, "pooler")] == ["ok"]
            assert [each.state for each in await look(pooled, "role")] == ["ok"]
            url = SecretStr(url_through(port, postgresql, info.user))
            [refused] = await look(settings.model_copy(update={"database_url": url}), "database")
            assert (refused.state, APP_ROLE in refused.found) == ("failed", True)
    finally:
        postgresql.execute(f"ALTER ROLE {APP_ROLE} NOLOGIN".encode())


async def test_clocks_connections_disks_and_versions(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    [late] = await look(settings, "clock", clock=lambda: time.time() - 10)
    [wrong] = await look(settings, "clock", clock=lambda: time.time() + 3_600)
    assert [late.state, wrong.state] == ["warning", "failed"]
    assert "NTP" in wrong.action
    [many] = await look(settings.model_copy(update={"database_pool_size": 1_000}), "connections")
    assert many.state is State.WARNING
    # Two processes and a worker, each with one for notices and one to look by; a worker's queue has two.
    [some] = await look(settings.model_copy(update={"database_pool_size": 3, "web_concurrency": 2}), "connections")
    assert (some.state, f" {3 * (3 + 2) + 2} of " in some.found) == ("ok", True)
    monkeypatch.setattr(doctor, "OLDEST", 990_000)
    [old] = await look(settings, "database")
    assert (old.state, "Use PostgreSQL 99" in old.action) == ("failed", True)
    embedded = settings.model_copy(update={"database_url": None})
    monkeypatch.setattr(doctor, "LITTLE_BYTES", 2**60)
    assert [each.state for each in await look(embedded, "disk")] == ["warning"]
    monkeypatch.setattr(doctor, "NEARLY_NONE_BYTES", 2**60)
    [full] = await look(embedded, "disk")
    assert (full.state, "Make room" in full.action) == ("failed", True)


async def test_where_secrets_are_kept_and_sign_in_leads_back_to(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "master_key"
    file.write_text(MASTER_KEY)
    file.chmod(0o644)
    kept = settings.model_copy(update={"master_key": None})
    [finding] = await look(kept, "master_key")
    assert (finding.state, finding.action) == ("warning", f"chmod 600 {file}")
    file.chmod(0o600)
    assert [each.state for each in await look(kept, "master_key")] == ["ok"]
    google = {"google_client_id": "id", "google_client_secret": SecretStr("canary-secret-of-google")}
    [finding] = await look(settings.model_copy(update=google), "sign-in")
    assert (finding.state, "Set PUBLIC_BASE_URL" in finding.action) == ("warning", True)
    google["public_base_url"] = "https://chat.example.com"
    [finding] = await look(settings.model_copy(update=google), "sign-in")
    assert "https://chat.example.com/auth/callback/google" in finding.found


@pytest.fixture
async def models() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        yield opened


async def test_models_are_asked_only_if_it_is_said(settings: Settings, models: Providers) -> None:
    asked = settings.model_copy(update=models.settings)
    [finding] = await look(asked, "xai/grok-4.3")
    assert (finding.state, models.requests) == ("ok", [])
    models.grok.reply, models.gemini.reply = grok_reply(summary_answer()), failure(401)
    [grok] = await look(asked, "xai/grok-4.3", call=True)
    assert (grok.state, grok.found) == ("ok", "It answers.")
    assert models.grok.requests[0].body["max_tokens"] == 1
    [gemini] = await look(asked, "gemini/gemini-2.5-flash", call=True)
    assert (gemini.state, gemini.action) == ("failed", "Correct GEMINI_API_KEY.")
    unknown = asked.model_copy(update={"xai_model": "xai/no-such-model"})
    [priceless] = await look(unknown, "xai/no-such-model")
    assert priceless.state is State.WARNING
    assert [each.state for each in await look(unknown, "xai/no-such-model", call=True)] == ["warning"]
    for status, says in ((404, "Correct XAI_MODEL."), (401, "Correct XAI_API_KEY."), (503, "status page")):
        models.grok.reply = failure(status)
        [wrong] = await look(unknown, "xai/no-such-model", call=True)
        assert (wrong.state, says in wrong.action) == ("failed", True), status


async def test_a_replica_that_is_none_or_does_not_answer(settings: Settings, postgresql: psycopg.Connection) -> None:
    assert await look(settings, "replica") == []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nowhere = f"postgresql://u:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/x"
    for url, says in ((nowhere, "correct host and port"), (url_of(postgresql), "leave it out")):
        [found] = await look(settings.model_copy(update={"database_replica_url": SecretStr(url)}), "replica")
        assert (found.state, says in found.action) == ("warning", True)
        assert "DATABASE_REPLICA_URL" in found.action


def test_secrets_that_are_lost_are_not_made_anew_beside_their_database(settings: Settings) -> None:
    with TemporaryDirectory(prefix="chat-") as folder:
        with embedded_server(Path(folder) / "postgres"):
            pass
        lost = {"database_url": None, "master_key": None, "secret_key": None, "data_dir": Path(folder)}
        found = asyncio.run(examine(settings.model_copy(update=lost)))
        made = {each.name for each in Path(folder).iterdir()}
    for name in ("master_key", "secret_key"):
        [finding] = [each for each in found if each.check == name]
        assert (finding.state, "from a backup" in finding.action, name in made) == ("failed", True, False)


def test_before_the_first_start_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    monkeypatch.setenv("DATA_DIR", str(folder))
    monkeypatch.setattr(out, "width", 200)
    found = CliRunner().invoke(cli, ["doctor"])
    assert found.exit_code == 0, found.output
    assert "./scripts/run" in found.output
    assert not folder.exists()
