"""Looks whether everything that the service needs is as it has to be, and says what to do about what is not."""

import shutil
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple

import asyncpg

from app.db import Database
from app.errors import ConfigurationError, Problem
from app.factory import configured_models, database_url, hop, limits_of, replica_of
from app.llm.prices import cost_usd
from app.llm.probe import probe
from app.models import Base
from app.repositories.health import QUEUE
from app.repositories.sessions import APP_ROLE
from app.schemas.rows import ServerRow
from app.security.encryption import MasterKeys
from app.services.health import check_database
from app.services.workspaces import WorkspaceService
from app.settings import Settings, master_keys, secret_keys
from app.telemetry import reporting

OLDEST = 150_000
"""The oldest version of PostgreSQL that is tried, as its ``server_version_num``."""
LITTLE_BYTES, NEARLY_NONE_BYTES = 2**30, 100 * 2**20
SKEW_S, TOO_MUCH_SKEW_S = 2.0, 30.0
"""By how much the clocks may differ: tokens are believed that much later or earlier, and limits begin anew then."""
TAKEN = 0.8
"""Which part of PostgreSQL's connections the service may take; migrations and people need some."""
BESIDE_POOL, QUEUE_CONNECTIONS = 2, 2
"""Connections of each process beside its pool, for notices and to see how the database is; a worker's queue."""
OTHERS_FILE = stat.S_IRWXG | stat.S_IRWXO


class State(StrEnum):
    """How grave a finding is: with a warning the service works."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(NamedTuple):
    """What was looked at, what it is like, and what to do; never a secret."""

    check: str
    state: State
    found: str
    action: str = ""


async def examine(settings: Settings, *, call: bool = False, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Returns what was found; ``call`` spends a call on each model, ``clock`` returns seconds since 1970."""
    found = [Finding("settings", State.OK, "Each can be read."), *_secrets(settings), _disk(settings)]
    found += [*await _database(settings, clock), *await _replica(settings), *_reports(settings)]
    found += [*await _rate_limits(settings), *_sign_in(settings)]
    return found + [finding async for finding in _models(settings, call)]


def _secrets(settings: Settings) -> Iterator[Finding]:
    for name, read in (("master_key", master_keys), ("secret_key", secret_keys)):
        try:
            read(settings)
        except ConfigurationError as error:
            lost = not (settings.data_dir / name).exists()
            if settings.has_embedded_database and lost:
                action = f"Restore {settings.data_dir / name} from a backup: the database beside it needs that one."
                yield Finding(name, State.FAILED, "It is lost.", action)
            elif settings.database_url is None and lost:
                yield Finding(name, State.WARNING, "It is not made yet.", "./scripts/run makes it.")
            else:
                yield Finding(name, State.FAILED, str(error), f"Set {name.upper()}.")
            continue
        file = settings.data_dir / name
        if getattr(settings, name):
            yield Finding(name, State.OK, "It is set.")
        elif file.stat().st_mode & OTHERS_FILE:
            yield Finding(name, State.WARNING, f"Others may read {file}.", f"chmod 600 {file}")
        else:
            yield Finding(name, State.OK, f"It is in {file}.")


def _disk(settings: Settings) -> Finding:
    folder = next(each for each in (settings.data_dir, *settings.data_dir.parents) if each.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB are free in {settings.data_dir}."
    if settings.database_url:
        return Finding("disk", State.OK, f"{found} The database has its own.")
    if free < NEARLY_NONE_BYTES:
        return Finding("disk", State.FAILED, found, "Make room: PostgreSQL stops when the disk is full.")
    state = State.WARNING if free < LITTLE_BYTES else State.OK
    return Finding("disk", state, found, "Make room, or set DATA_DIR to another disk." if state is not State.OK else "")


async def _database(settings: Settings, clock: Callable[[], float]) -> list[Finding]:
    if settings.database_url is None and not settings.has_embedded_database:
        return [Finding("database", State.WARNING, "PostgreSQL is not set up in DATA_DIR.", "Run ./scripts/run.")]
    found: list[Finding] = []
    with _failing(found, "database", "Look at DATABASE_URL and at the server."), database_url(settings) as url:
        db = Database(url, pool_size=1, timeout_s=settings.database_timeout_s)
        try:
            async with db.read() as unit:
                before = clock()
                server = await unit.health.server()
                skew_s = abs(server.now.timestamp() - (before + clock()) / 2)
            found += [*_server(server, settings), _clocks(skew_s)]
            if server.role == APP_ROLE:
                found += await _contents(db, settings)
        finally:
            await db.close()
    return found


async def _replica(settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    if (db := replica_of(settings)) is None:
        return found
    setting = "DATABASE_REPLICA_URL"
    with _failing(found, "replica", f"Look at {setting} and at the server.", setting):
        try:
            async with db.read() as unit:
                if await unit.health.replayed() is None:
                    action = f"Correct {setting}, or leave it out."
                    found.append(Finding("replica", State.FAILED, "It is none: the primary is asked.", action))
                else:
                    found.append(Finding("replica", State.OK, "It answers."))
        finally:
            await db.close()
    # Everything is read from the primary then.
    return [each._replace(state=State.WARNING) if each.state is State.FAILED else each for each in found]


@contextmanager
def _failing(found: list[Finding], check: str, action: str, setting: str = "DATABASE_URL") -> Iterator[None]:
    try:
        yield
    except (Problem, ConfigurationError) as error:
        text, cause = str(error), error.__cause__
        if isinstance(cause, asyncpg.InvalidAuthorizationSpecificationError):
            text, action = f"It refuses the user of {setting}.", f"Correct user and password in {setting}."
        elif isinstance(cause, asyncpg.InvalidCatalogNameError):
            text, action = "It has no such database.", f"CREATE DATABASE, or correct the name in {setting}."
        elif isinstance(cause, OSError):  # a time-out as well
            text, action = "It does not answer.", f"Start it; correct host and port in {setting}; open the firewall."
        found.append(Finding(check, State.FAILED, text, action))


def _server(server: ServerRow, settings: Settings) -> Iterator[Finding]:
    found = f"PostgreSQL {server.version_text} answers."
    if server.version < OLDEST:
        yield Finding("database", State.FAILED, found, f"Use PostgreSQL {OLDEST // 10_000} or newer.")
    elif server.read_only:
        yield Finding("database", State.FAILED, f"{found} It is a replica.", "Set DATABASE_URL to the primary.")
    else:
        yield Finding("database", State.OK, found)
    if server.role != APP_ROLE:
        action = f"Let the pooler log in as {APP_ROLE}; see the README."
        yield Finding("role", State.FAILED, f"The service works as {server.role}.", action)
    elif server.superuser and settings.database_url:
        action = f"Let {APP_ROLE} LOGIN with a password, and put both into DATABASE_URL of the API and the worker."
        yield Finding("role", State.WARNING, f"It logs in as the superuser {server.login}.", action)
    else:
        yield Finding("role", State.OK, f"It logs in as {server.login} and works as {server.role}.")
    process = settings.database_pool_size + BESIDE_POOL
    wanted = process * settings.web_concurrency + process + QUEUE_CONNECTIONS
    if server.pooled:
        found = "Sessions are a pooler's: changes are seen by asking, up to some seconds later."
        yield Finding("pooler", State.OK, f"{found} Its mode must be `transaction`.")
    elif wanted > TAKEN * server.max_connections:
        found = f"API and worker take up to {wanted} connections, and PostgreSQL has {server.max_connections}."
        action = "Lower DATABASE_POOL_SIZE or WEB_CONCURRENCY, raise max_connections, or put PgBouncer before it."
        yield Finding("connections", State.WARNING, found, action)
    else:
        yield Finding(
            "connections", State.OK, f"API and worker take up to {wanted} of {server.max_connections}; no pooler."
        )


def _clocks(skew_s: float) -> Finding:
    state = State.OK if skew_s <= SKEW_S else State.WARNING if skew_s <= TOO_MUCH_SKEW_S else State.FAILED
    action = "" if state is State.OK else "Let NTP set the clocks of both machines."
    return Finding("clock", state, f"It differs by {skew_s:.1f} s from the database's.", action)


async def _contents(db: Database, settings: Settings) -> list[Finding]:
    """Returns what is found in a database that answers, up to what makes the rest meaningless."""
    async with db.read() as unit:
        forbidden = await unit.health.forbidden([*Base.metadata.tables, QUEUE])
    if forbidden:
        action = f"As the owner of the tables, GRANT {APP_ROLE} what the migrations grant; a restored dump has it."
        return [Finding("privileges", State.FAILED, f"It may not read {', '.join(forbidden)}.", action)]
    found: list[Finding] = []
    with _failing(found, "migrations", "Run `python -m app migrate` as the owner of the tables."):
        await check_database(db)
        found.append(Finding("migrations", State.OK, "The database is at the schema that this version needs."))
    if found[-1].state is not State.OK:
        return found
    found.append(Finding("privileges", State.OK, f"{APP_ROLE} may read each table."))
    with _failing(found, "stored data", "Set MASTER_KEY to the one before, or put that into PREVIOUS_MASTER_KEYS."):
        await WorkspaceService(db, MasterKeys(master_keys(settings))).check_master_keys()
        found.append(Finding("stored data", State.OK, "The master key opens it."))
    async with db.read() as unit:
        queue = await unit.health.queue()
    if queue is None:
        return [*found, Finding("worker", State.FAILED, "The queue is not there.", "Restore the schema pgqueuer.")]
    waiting = f"{queue.waiting} jobs wait, {queue.running} run."
    if queue.delivery_oldest_s:
        waiting += f" An event for a webhook waits since {queue.delivery_oldest_s:.0f} s."
    if queue.overdue and not queue.heard:
        action = "Start one: python -m app work"
        return [*found, Finding("worker", State.FAILED, f"{waiting} No worker is heard of.", action)]
    seen = "A worker is at work." if queue.heard else "None has waited long enough to miss a worker."
    return [*found, Finding("worker", State.OK, f"{waiting} {seen}")]


async def _rate_limits(settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    with _failing(found, "rate limits", "Correct it; .env.example shows how."):
        limits = limits_of(settings)
        try:
            together = await limits.shared()
        finally:
            await limits.close()
        if together is False:
            action = "Start it, or correct RATE_LIMIT_STORAGE_URL; until then each instance counts alone."
            found.append(Finding("rate limits", State.WARNING, "Their storage does not answer.", action))
        elif together is None and settings.web_concurrency > 1:
            action = "Set RATE_LIMIT_STORAGE_URL to a Valkey or Redis."
            text = (
                f"Each of {settings.web_concurrency} processes counts alone: a caller may do that many times as much."
            )
            found.append(Finding("rate limits", State.WARNING, text, action))
        else:
            found.append(Finding("rate limits", State.OK, "Together." if together else "In the one process."))
    return found


def _reports(settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    if settings.sentry_dsn:
        with _failing(found, "reports", "Correct SENTRY_DSN."), reporting(settings.sentry_dsn.get_secret_value()):
            found.append(Finding("reports", State.OK, "Defects are reported to Sentry."))
    return found


def _sign_in(settings: Settings) -> Iterator[Finding]:
    configured = [name for name in ("google", "github") if getattr(settings, f"{name}_client_id")]
    if not configured:
        yield Finding("sign-in", State.OK, "Off: neither Google nor GitHub is configured.")
    for name in configured:
        url = f"{settings.base_url}/auth/callback/{name}"
        if settings.public_base_url:
            yield Finding("sign-in", State.OK, f"{name}: {url} has to be registered there.")
        else:
            action = "Set PUBLIC_BASE_URL to where browsers reach the service."
            yield Finding("sign-in", State.WARNING, f"{name} sends browsers back to {url}.", action)


async def _models(settings: Settings, call: bool) -> AsyncIterator[Finding]:
    models = configured_models(settings)
    if not models:
        action = "Set XAI_API_KEY or GEMINI_API_KEY for summaries in a model's words."
        yield Finding("models", State.OK, "None is configured: the built-in engine answers.", action)
    for model in models:
        provider = model.partition("/")[0].upper()
        correct = {"unauthorized": f"Correct {provider}_API_KEY.", "rejected": f"Correct {provider}_MODEL."}
        if call and (reason := await probe(hop(settings, model))):
            action = correct.get(reason, "Look at the provider's status page, and at the way there.")
            yield Finding(model, State.FAILED, f"It does not answer: {reason}.", action)
        elif await cost_usd(model, 1, 1) is None:
            action = "Correct the name, or set no budgets: a call whose price nobody knows fits into none."
            yield Finding(model, State.WARNING, "Its price is not known.", action)
        elif not call:
            yield Finding(model, State.OK, "A key is set.", "python -m app doctor --call asks it one word.")
        else:
            yield Finding(model, State.OK, "It answers.")
