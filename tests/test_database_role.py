"""The service works as a role that owns nothing: what PostgreSQL itself keeps it from doing, and who may become it."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from typing import Any

import asyncpg
import psycopg
import pytest

from app.db import Database
from app.errors import ConfigurationError
from app.factory import build
from app.main import create_app
from app.models import Base
from app.repositories.sessions import APP_ROLE, SESSION
from app.services.health import SCHEMA_VERSION
from app.settings import Settings
from tests.conftest import migrate, url_of
from tests.support.api import message, open_workspace

ALL = {"SELECT", "INSERT", "UPDATE", "DELETE"}
PRIVILEGES = {
    "alembic_version": {"SELECT"},
    "analysis_claims": ALL,
    "api_keys": ALL,
    "audit_log": {"SELECT"},
    "budgets": ALL,
    "conversation_topics": ALL,
    "conversations": ALL,
    "idempotency_keys": ALL,
    "insights": ALL,
    "llm_calls": {"SELECT", "INSERT", "UPDATE"},
    "job_items": {"SELECT", "INSERT", "UPDATE"},
    "jobs": ALL,
    "feedback": {"SELECT", "INSERT", "UPDATE"},
    "memberships": ALL,
    "message_batches": {"USAGE"},
    "messages": ALL,
    "oauth_states": {"SELECT", "INSERT", "DELETE"},
    "participants": ALL,
    "sessions": ALL,
    "spending": {"SELECT", "INSERT", "UPDATE"},
    "summaries": ALL,
    "topic_models": ALL,
    "trend_changes": ALL,
    "trend_counts": ALL,
    "users": {"SELECT", "INSERT", "UPDATE"},
    "webhook_deliveries": ALL,
    "webhooks": ALL,
    "workspaces": {"SELECT", "INSERT", "UPDATE"},
}
"""What the service needs of each table and sequence, and has."""
QUEUE_PRIVILEGES = {
    "pgqueuer.pgqueuer": ALL,
    "pgqueuer.pgqueuer_id_seq": {"USAGE"},
    "pgqueuer.pgqueuer_log": {"INSERT"},
    "pgqueuer.pgqueuer_statistics": {"SELECT"},
}
AUDIT_COLUMNS = ("workspace_id", "actor", "action", "target", "details")
"""What an entry may be given: not when it was, nor its number."""

REFUSED = [
    "CREATE TABLE t ()",
    "CREATE TEMPORARY TABLE t ()",
    "CREATE TABLE t AS SELECT 1",
    "SELECT * INTO t FROM messages",
    "CREATE SCHEMA s",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION keyed_lexeme(bytea, bytea, text) RETURNS text LANGUAGE sql AS 'SELECT $3'",
    "CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'",
    "CREATE VIEW v AS SELECT 1",
    "CREATE MATERIALIZED VIEW v AS SELECT 1",
    "CREATE SEQUENCE s",
    "CREATE TYPE t AS (x int)",
    "CREATE DOMAIN d AS int",
    "CREATE INDEX i ON messages (user_id)",
    "CREATE STATISTICS s ON user_id, user_type FROM messages",
    "CREATE TRIGGER t BEFORE DELETE ON audit_log EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE r AS ON DELETE TO messages DO INSTEAD NOTHING",
    "CREATE POLICY p ON messages",
    "CREATE PUBLICATION p",
    "CREATE FOREIGN DATA WRAPPER w",
    "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()",
    "CREATE DATABASE d",
    "CREATE TABLESPACE t LOCATION '/tmp'",
    "CREATE ROLE r",
    "ALTER TABLE messages ADD COLUMN x int",
    "ALTER TABLE messages DISABLE TRIGGER ALL",
    "ALTER TABLE audit_log OWNER TO chat_insights_app",
    "ALTER TABLE messages RENAME TO m",
    "ALTER INDEX messages_order_idx RENAME TO i",
    "ALTER FUNCTION keyed_lexeme(bytea, bytea, text) RENAME TO k",
    "ALTER SEQUENCE message_batches RESTART",
    "ALTER SCHEMA public RENAME TO p",
    "ALTER ROLE chat_insights_app CREATEDB",
    "ALTER ROLE chat_insights_app LOGIN",
    "ALTER SYSTEM SET log_statement = 'all'",
    "DROP TABLE messages",
    "DROP INDEX messages_order_idx",
    "DROP FUNCTION keyed_lexeme(bytea, bytea, text)",
    "DROP SEQUENCE message_batches",
    "DROP SCHEMA public CASCADE",
    "DROP ROLE chat_insights_app",
    "DROP EXTENSION plpgsql",
    "COMMENT ON TABLE messages IS 'x'",
    "COMMENT ON COLUMN messages.content IS 'x'",
    "GRANT pg_read_all_data TO chat_insights_app",
    "REINDEX TABLE messages",
    "CLUSTER messages USING messages_pkey",
    "SELECT setval('message_batches', 1)",
    "SELECT setval(pg_get_serial_sequence('audit_log', 'entry_id'), 1)",
    "COPY messages TO '/tmp/messages'",
    "COPY messages TO PROGRAM 'cat'",
    "COPY audit_log FROM '/etc/passwd'",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT rolpassword FROM pg_authid",
    "SET session_replication_role = 'replica'",
    "SET log_statement = 'all'",
    "SET SESSION AUTHORIZATION postgres",
    "SET ROLE pg_read_all_data",
    "UPDATE audit_log SET actor = 'nobody'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "SELECT 1 FROM audit_log FOR UPDATE",
    "INSERT INTO audit_log (workspace_id, actor, action, details, created_at) VALUES (1, '', '', '{}', 'yesterday')",
    "INSERT INTO audit_log (entry_id, workspace_id, actor, action, details) OVERRIDING SYSTEM VALUE"
    " VALUES (1, 1, '', '', '{}')",
    "INSERT INTO audit_log (workspace_id, actor, action, details) VALUES (1, '', '', '{}')"
    " ON CONFLICT (workspace_id, created_at, entry_id) DO UPDATE SET actor = ''",
    "MERGE INTO audit_log USING (SELECT) AS s ON true WHEN MATCHED THEN DELETE",
    "DELETE FROM workspaces",
    "DELETE FROM users",
    "UPDATE oauth_states SET browser_digest = ''",
    "UPDATE alembic_version SET version_num = '9999'",
    "DELETE FROM alembic_version",
    "DELETE FROM pgqueuer.pgqueuer_log",
    "SELECT * FROM pgqueuer.pgqueuer_schedules",
    "TRUNCATE pgqueuer.pgqueuer",
    "TRUNCATE messages",
    "TRUNCATE workspaces CASCADE",
]
IN_VAIN = [
    "GRANT ALL ON messages TO PUBLIC",
    "GRANT USAGE ON SCHEMA public TO PUBLIC",
    "REVOKE INSERT ON audit_log FROM chat_insights_app",
]
"""What PostgreSQL answers with a warning, and does not do."""


class Server:
    """The tests' server, as its superuser sees it; what is made on it goes at the end."""

    def __init__(self, superuser: psycopg.Connection, stack: ExitStack) -> None:
        superuser.autocommit = True
        self.superuser = superuser
        self._stack = stack

    def do(self, statement: str) -> None:
        self.superuser.execute(statement.encode())

    def user(self, name: str, options: str = "") -> str:
        """Makes a user who may log in."""
        self.do(f"CREATE ROLE {name} LOGIN PASSWORD '{name}-password' {options}")
        self._stack.callback(self.do, f"DROP ROLE {name}")
        return name

    def database(self, name: str, owner: str) -> str:
        """Makes an empty database of somebody's."""
        self.do(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE template0")
        self._stack.callback(self.do, f"DROP DATABASE {name} WITH (FORCE)")
        return name

    def without_role(self) -> None:
        """Makes the server one that was never migrated: roles belong to all of its databases."""
        self.do(f"ALTER ROLE {APP_ROLE} RENAME TO set_aside")
        self._stack.callback(self.do, f"ALTER ROLE set_aside RENAME TO {APP_ROLE}")
        self._stack.callback(self.do, f"DROP ROLE IF EXISTS {APP_ROLE}")

    def address(self, user: str | None = None, database: str | None = None) -> dict[str, Any]:
        info = self.superuser.info
        where = {"host": info.host, "port": info.port, "dbname": database or info.dbname}
        return {**where, "user": user or info.user, "password": f"{user}-password" if user else info.password}

    def url(self, user: str, database: str | None = None) -> str:
        found = self.address(user, database)
        return "postgresql://{user}:{password}@/{dbname}?host={host}&port={port}".format(**found)


@pytest.fixture
def server(postgresql: psycopg.Connection) -> Iterator[Server]:
    with ExitStack() as stack:
        yield Server(postgresql, stack)


@pytest.fixture
def migrated(server: Server) -> str:
    """Returns a database that was migrated itself: a copy of a template lacks the privileges on the database."""
    name = server.database("migrated", server.user("owner", "CREATEROLE"))
    migrate(**server.address("owner", name))
    return name


async def connect(url: str) -> asyncpg.Connection:
    """Returns a connection as the service has it, by another name: it is not the service that asks."""
    return await asyncpg.connect(url, server_settings={**SESSION, "application_name": "tests"})


async def test_the_service_works_as_the_role(postgresql: psycopg.Connection) -> None:
    db = Database(url_of(postgresql))
    for unit in (db.read, db.write):
        async with unit() as opened:
            assert await opened.chats._driver.fetchval("SELECT current_user") == APP_ROLE
            await opened.chats._driver.execute("RESET ROLE")
            assert await opened.chats._driver.fetchval("SELECT current_user") == APP_ROLE
    await db.close()


def test_the_role_owns_nothing_and_is_nobody_special(postgresql: psycopg.Connection) -> None:
    flags = "rolsuper, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls"
    found = postgresql.execute(f"SELECT {flags} FROM pg_roles WHERE rolname = '{APP_ROLE}'".encode())
    assert found.fetchone() == (False,) * 6
    for count in (
        "pg_shdepend WHERE deptype = 'o' AND refobjid = %s::regrole",
        "pg_auth_members WHERE member = %s::regrole",
        "pg_db_role_setting WHERE setrole = %s::regrole",
        "pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace AND %s <> ''",
    ):
        assert postgresql.execute(f"SELECT count(*) FROM {count}".encode(), [APP_ROLE]).fetchone() == (0,)


def test_the_role_has_exactly_the_privileges_it_needs(server: Server, migrated: str) -> None:
    with psycopg.connect(**server.address("owner", migrated)) as connection:
        found = privileges(connection)
    assert found == {
        **{("table", name): held for name, held in {**PRIVILEGES, **QUEUE_PRIVILEGES}.items()},
        **{("column", f"audit_log.{name}"): {"INSERT"} for name in AUDIT_COLUMNS},
        ("column", "oauth_states.expires_at"): {"UPDATE"},
        ("schema", "pgqueuer"): {"USAGE"},
        ("schema", "public"): {"USAGE"},
        ("database", migrated): {"CONNECT"},
    }
    assert set(PRIVILEGES) == {*Base.metadata.tables, "message_batches", "alembic_version"}


def privileges(connection: psycopg.Connection) -> dict[tuple[str, str], set[str]]:
    """Returns what the role may do with each object, by itself or as anybody."""
    lists = {
        "table": "oid::regclass::text, relacl FROM pg_class WHERE relnamespace IN"
        " ('public'::regnamespace, 'pgqueuer'::regnamespace)",
        "column": "attrelid::regclass || '.' || attname, attacl FROM pg_attribute WHERE attrelid >= 16384",
        "schema": "nspname, nspacl FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema'",
        "database": "datname, datacl FROM pg_database WHERE datname = current_database()",
    }
    parts = [
        f"SELECT '{kind}', name, array_agg(DISTINCT privilege_type)"
        f" FROM (SELECT {what}) AS o (name, acl), aclexplode(acl)"
        " WHERE grantee IN (0, (SELECT oid FROM pg_roles WHERE rolname = %(role)s)) GROUP BY name"
        for kind, what in lists.items()
    ]
    rows = connection.execute(" UNION ALL ".join(parts).encode(), {"role": APP_ROLE}).fetchall()
    return {(kind, name): set(held) for kind, name, held in rows}


@pytest.mark.parametrize("role", [APP_ROLE, "NONE"])
async def test_nothing_is_made_changed_or_opened_up(server: Server, migrated: str, role: str) -> None:
    server.user("member")
    server.do(f"GRANT {APP_ROLE} TO member")
    connection = await connect(server.url("member", migrated))
    await connection.execute(f"SET ROLE {role}")
    allowed = []
    for statement in REFUSED:
        with suppress(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
            allowed.append(statement)
    assert allowed == []
    with psycopg.connect(**server.address("owner", migrated)) as owner:
        before = privileges(owner)
        for statement in IN_VAIN:
            await connection.execute(statement)
        assert privileges(owner) == before
    await connection.close()


STEPS: list[tuple[str, str, object]] = [
    ("POST", "/webhooks", {"url": "https://hooks.example.com/", "events": ["conversation.deleted"]}),
    ("POST", "/chats", message()),
    ("POST", "/chats", message(message_id="m2")),
    ("POST", "/chats/summarize", {"conversation_id": "c1"}),
    ("POST", "/chats/insights", {"conversation_id": "c1"}),
    ("POST", "/jobs/summarize", {"conversation_ids": ["c1"]}),
    ("GET", "/chats?q=parcel", None),
    ("POST", "/auth/token", None),
    ("POST", "/workspace/members", {"email": "ana@example.com", "role": "viewer"}),
    ("DELETE", "/chats/c1", None),
    ("GET", "/audit", None),
    ("GET", "/readyz", None),
]


async def works(settings: Settings, url: str) -> bool:
    """Does a bit of everything with a database, as the service."""
    async with build(settings, url) as services:
        app = create_app(lambda: nullcontext(services))
        async with app.router.lifespan_context(app), open_workspace(app, services, "ours") as workspace:
            for number, (method, path, body) in enumerate(STEPS):
                headers = {"Idempotency-Key": f"role-canary-4711-{number}"} if method == "POST" else {}
                answer = await workspace.admin.request(method, path, json=body, headers=headers)
                assert answer.is_success, (path, answer.text)
    return True


async def refused(settings: Settings, url: str) -> str:
    """Returns why the service does not start."""
    with pytest.raises(ConfigurationError) as error:
        async with build(settings, url):
            pass
    return str(error.value)


async def test_a_database_that_is_not_migrated_far_enough_is_refused(
    server: Server, postgresql: psycopg.Connection, settings: Settings
) -> None:
    url = url_of(postgresql)
    migrate("-1", **server.address())
    said = rf"The database is at migration \w+, not {SCHEMA_VERSION} yet\. Run `alembic upgrade head`\."
    assert re.fullmatch(said, await refused(settings, url))
    migrate("base", **server.address())
    assert re.fullmatch(said, await refused(settings, url))
    migrate(**server.address())
    assert await works(settings, url)


async def test_a_server_that_was_never_migrated_is_refused(
    server: Server, postgresql: psycopg.Connection, settings: Settings
) -> None:
    server.without_role()
    assert "Run `alembic upgrade head`" in await refused(settings, url_of(postgresql))


async def test_a_user_who_may_only_become_the_role_is_enough(server: Server, settings: Settings) -> None:
    user = server.user("member")
    assert f"cannot work as the role {APP_ROLE}" in await refused(settings, server.url(user))
    server.do(f"GRANT {APP_ROLE} TO {user}")
    assert await works(settings, server.url(user))


async def test_an_owner_who_may_create_roles_needs_nobody(server: Server, settings: Settings) -> None:
    server.without_role()
    owner = server.user("owner", "CREATEROLE")
    database = server.database("theirs", owner)
    migrate(**server.address(owner, database))
    assert await works(settings, server.url(owner, database))
    migrate("base", **server.address(owner, database))
    migrate(**server.address(owner, database))
    assert await works(settings, server.url(owner, database))


async def test_an_owner_who_may_not_create_roles_is_told_what_to_ask_for(server: Server, settings: Settings) -> None:
    server.without_role()
    owner = server.user("owner")
    database = server.database("theirs", owner)
    with pytest.raises(SystemExit) as told:
        migrate(**server.address(owner, database))
    assert str(told.value) == (
        f"The migration's user may not create roles. As a superuser, run: CREATE ROLE {APP_ROLE};"
        f" GRANT {APP_ROLE} TO <the user of DATABASE_URL>; then migrate again."
    )
    server.do(f"CREATE ROLE {APP_ROLE}")
    server.do(f"GRANT {APP_ROLE} TO {owner}")
    migrate(**server.address(owner, database))
    assert await works(settings, server.url(owner, database))


async def test_an_owner_whom_nobody_let_become_the_role_is_told_so(server: Server, settings: Settings) -> None:
    owner = server.user("owner")  # the role is there: another database of the server has it
    database = server.database("theirs", owner)
    migrate(**server.address(owner, database))
    assert f"GRANT {APP_ROLE} TO <the user of DATABASE_URL>" in await refused(settings, server.url(owner, database))
    server.do(f"GRANT {APP_ROLE} TO {owner}")
    assert await works(settings, server.url(owner, database))
