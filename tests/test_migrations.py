"""Migrations against a real PostgreSQL."""

import itertools
import os
import subprocess
import sys
import threading

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment
from psycopg import errors, sql
from sqlalchemy import create_engine

from app.models import Base
from app.repositories.queue import NAMES
from app.services.health import SCHEMA_VERSION
from app.settings import ROOT
from tests.conftest import migrate, url_of

OBJECTS = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic_version%'
    UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typname !~ 'alembic_version'
"""


def server(connection: psycopg.Connection) -> dict[str, object]:
    info = connection.info
    return {"host": info.host, "port": info.port, "user": info.user, "dbname": info.dbname, "password": info.password}


def test_models_and_migrations_agree(postgresql: psycopg.Connection) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**server(postgresql)))  # type: ignore[arg-type]
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
    engine.dispose()


def test_storage_parameters_are_those_of_the_models(postgresql: psycopg.Connection) -> None:
    found = postgresql.execute(
        "SELECT relname::text, option FROM pg_class, unnest(reloptions) AS option"
        " WHERE relnamespace = 'public'::regnamespace"
    ).fetchall()
    tables = Base.metadata.tables.values()
    described = [(table.name, table.dialect_options) for table in tables]
    described += [(str(index.name), index.dialect_options) for table in tables for index in table.indexes]
    wanted = [
        (name, f"{option}={value}")
        for name, options in described
        for option, value in (options["postgresql"]["with"] or {}).items()
    ]
    assert ("messages_search_vector_idx", "gin_pending_list_limit=1024") in wanted
    assert sorted(found) == sorted(wanted)


def test_the_service_asks_for_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).get_current_head() == SCHEMA_VERSION


def test_every_migration_goes_down_and_up_again(postgresql: psycopg.Connection) -> None:
    before = sorted(postgresql.execute(OBJECTS).fetchall())
    postgresql.commit()
    revisions = [
        script.revision for script in ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).walk_revisions()
    ]
    for _ in revisions:
        migrate("-1", **server(postgresql))
    assert postgresql.execute(OBJECTS).fetchall() == []
    postgresql.commit()
    migrate("head", **server(postgresql))
    migrate("head", **server(postgresql))
    assert sorted(postgresql.execute(OBJECTS).fetchall()) == before


def test_the_queue_is_made_as_its_library_would() -> None:
    made = (ROOT / "migrations/versions/2026_11_23_jobs.sql").read_text()
    wanted = QueryBuilderEnvironment(NAMES).build_install_query()
    assert made.splitlines()[1:] == wanted.splitlines()[1:]  # the first tells the library's version


def test_two_at_once_wait_for_each_other(postgresql: psycopg.Connection) -> None:
    before = sorted(postgresql.execute(OBJECTS).fetchall())
    postgresql.rollback()
    migrate("base", **server(postgresql))
    environment = {**os.environ, "DATABASE_URL": url_of(postgresql)}
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    both = [subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [each.communicate()[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert sorted(postgresql.execute(OBJECTS).fetchall()) == before


def test_a_migration_gives_up_on_a_lock_that_is_not_freed(postgresql: psycopg.Connection) -> None:
    postgresql.execute("LOCK TABLE messages")
    with pytest.raises(Exception, match="lock timeout"):
        migrate("base", **server(postgresql))
    postgresql.rollback()
    migrate("base", **server(postgresql))


@pytest.mark.parametrize("table", ["messages", "participants", "summaries", "insights"])
def test_a_row_cannot_reference_another_workspaces_conversation(postgresql: psycopg.Connection, table: str) -> None:
    for workspace_id in (1, 2):
        postgresql.execute("INSERT INTO workspaces VALUES (%s, %s, 'k', '')", [workspace_id, str(workspace_id)])
    insert_into(postgresql, "conversations", 1)
    postgresql.commit()
    insert_into(postgresql, table, 1)
    with pytest.raises(errors.ForeignKeyViolation):
        insert_into(postgresql, table, 2)


def test_every_key_and_index_of_a_workspaces_table_begins_with_the_workspace() -> None:
    # Their hashes are the workspace's own; what finds absent ids looks at the workspace's alone.
    gin = {"conversations_keyword_hashes_idx", "messages_search_vector_idx", "jobs_absent_idx"}
    for table in Base.metadata.tables.values():
        if "workspace_id" not in table.columns:
            assert table.name in ("users", "oauth_states")
            continue
        assert next(iter(table.primary_key.columns)).name == "workspace_id"
        for index in table.indexes:
            if index.name not in gin and table.name != "memberships":
                assert index.columns[0].name == "workspace_id", index.name


def insert_into(connection: psycopg.Connection, table: str, workspace_id: int) -> None:
    """Inserts a row whose every column has some value of its type."""
    columns = Base.metadata.tables[table].columns
    some = {"BIGINT": 1, "INTEGER": 1, "BYTEA": b"", "TSVECTOR": "", "TIMESTAMP WITH TIME ZONE": "2026-11-01"}
    words = {"user_type": "customer", "sentiment": "mixed", "outcome": "yes", "workspace_id": workspace_id}
    values = {
        column.name: words.get(column.name, some.get(str(column.type.compile(connection_dialect)), "x"))
        for column in columns
        if not column.nullable
    }
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(sql.Placeholder() * len(values)),
        ),
        list(values.values()),
    )
    connection.commit()


connection_dialect = create_engine("postgresql+psycopg://").dialect


CONVERSATIONS = """
    INSERT INTO conversations (workspace_id, conversation_id, message_count, first_message_at, last_message_at,
        sentiment, outcome, keyword_hashes)
    SELECT 1, 'c' || n, 1, '2026-11-01'::timestamptz + n * interval '7 minutes', '2026-11-20', 'mixed', 'yes',
        ARRAY['k' || n %% 7, 'k' || n %% 7] FROM generate_series(%s::int, %s::int) AS n
"""
COUNTED = """
    SELECT (SELECT count(*) FROM conversations), coalesce(sum(conversations) FILTER (WHERE keyword = ''), 0),
        coalesce(sum(conversations) FILTER (WHERE keyword <> ''), 0), (SELECT count(*) FROM trend_changes)
    FROM trend_counts WHERE span = 'day'
"""


def test_what_is_stored_is_counted_once_while_others_write_and_again_after_a_kill(
    postgresql: psycopg.Connection,
) -> None:
    migrate("0010", **server(postgresql))
    postgresql.execute("INSERT INTO workspaces VALUES (1, 'ours', 'k', '')")
    postgresql.execute(CONVERSATIONS, [1, 12_000])
    postgresql.commit()
    done = threading.Event()
    written: list[int] = []

    def write() -> None:
        with psycopg.connect(**server(postgresql), autocommit=True) as connection:  # type: ignore[arg-type]
            for n in itertools.count(20_000):
                connection.execute(CONVERSATIONS, [n, n])
                connection.execute("DELETE FROM conversations WHERE conversation_id = %s", [f"c{n - 19_000}"])
                connection.execute(
                    "UPDATE conversations SET keyword_hashes = '{k0}' WHERE conversation_id = %s", [f"c{n - 15_000}"]
                )
                written.append(n)
                if done.is_set():
                    return

    writer = threading.Thread(target=write)
    writer.start()
    migrate("head", **server(postgresql))
    done.set()
    writer.join()
    everything = 12_000  # each that came took one away
    for _ in range(2):
        while postgresql.execute("SELECT fold_trend_changes(1, 1000)").fetchone() != (0,):
            pass
        assert postgresql.execute(COUNTED).fetchall() == [(everything,) * 3 + (0,)]
        changed = postgresql.execute(
            "SELECT sum(conversations) FROM trend_counts WHERE keyword = 'k0' AND span = 'day'"
        )
        stored = postgresql.execute("SELECT count(*) FROM conversations WHERE keyword_hashes @> '{k0}'")
        assert changed.fetchone() == stored.fetchone()
        # What a migration leaves that was killed before it was written down.
        postgresql.commit()
        migrate("0011", **server(postgresql))
        postgresql.execute("UPDATE alembic_version SET version_num = '0010'")
        postgresql.commit()
        migrate("head", **server(postgresql))
    assert len(written) > 1
