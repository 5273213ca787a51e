"""The schema can be distributed by workspace, as ``deploy/citus.sql`` does: the conditions that Citus sets hold."""

import re
from typing import NamedTuple

import psycopg
import pytest

from app.models import Base
from app.settings import ROOT
from tests.conftest import LOG
from tests.support.api import Workspace, message
from tests.support.statements import EXCEPTIONS, TABLES, Verdict, check

SCRIPT = (ROOT / "deploy" / "citus.sql").read_text()
KEY = "workspace_id"
DISTRIBUTED = re.findall(rf"^SELECT create_distributed_table\('(\w+)', '{KEY}'", SCRIPT, re.MULTILINE)
REFERENCE = re.findall(r"^SELECT create_reference_table\('(\w+)'\)", SCRIPT, re.MULTILINE)
LOCAL = re.findall(r"\w+", re.search(r"^-- Stay on the coordinator: (.*?), and", SCRIPT, re.MULTILINE).group(1))  # type: ignore[union-attr]

_TABLES = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
_UNIQUE = """
    SELECT i.indrelid::regclass::text, i.indexrelid::regclass::text, array_agg(a.attname::text)
    FROM pg_index AS i JOIN pg_class AS t ON t.oid = i.indrelid AND t.relnamespace = 'public'::regnamespace
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indisunique OR i.indisexclusion GROUP BY i.indrelid, i.indexrelid
"""
_FOREIGN = """
    SELECT c.conname::text, c.conrelid::regclass::text, c.confrelid::regclass::text,
        ARRAY(SELECT attname::text FROM unnest(c.conkey) WITH ORDINALITY AS k (n, place)
            JOIN pg_attribute ON attrelid = c.conrelid AND attnum = n ORDER BY place),
        ARRAY(SELECT attname::text FROM unnest(c.confkey) WITH ORDINALITY AS k (n, place)
            JOIN pg_attribute ON attrelid = c.confrelid AND attnum = n ORDER BY place),
        c.confdeltype IN ('n', 'd') OR c.confupdtype IN ('n', 'd', 'c')
    FROM pg_constraint AS c WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace
"""
_TRIGGERS = """
    SELECT tgname::text FROM pg_trigger JOIN pg_class AS t ON t.oid = tgrelid
    WHERE NOT tgisinternal AND t.relnamespace = 'public'::regnamespace
"""
_REPLICA_IDENTITY = """
    SELECT relname::text FROM pg_class AS t WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = t.oid AND indisprimary)
"""


class Foreign(NamedTuple):
    """A foreign key, as PostgreSQL knows it."""

    name: str
    table: str
    to: str
    columns: list[str]
    others: list[str]
    sets: bool


def test_every_table_has_its_place(postgresql: psycopg.Connection) -> None:
    known = [name for (name,) in postgresql.execute(_TABLES).fetchall()]
    assert {*Base.metadata.tables} <= {*known}
    assert sorted([*DISTRIBUTED, *REFERENCE, *LOCAL]) == sorted(known), "name a new table in deploy/citus.sql"
    assert {*TABLES} == {*DISTRIBUTED, "workspaces"}


def test_every_distributed_table_is_with_the_conversations() -> None:
    first, *others = DISTRIBUTED
    assert first == "conversations"
    for table in others:
        assert f"create_distributed_table('{table}', '{KEY}', colocate_with => 'conversations')" in SCRIPT


def test_every_unique_key_holds_the_workspace(postgresql: psycopg.Connection) -> None:
    found = postgresql.execute(_UNIQUE).fetchall()
    assert len([each for each in found if each[0] in DISTRIBUTED]) >= len(DISTRIBUTED)
    assert [index for table, index, columns in found if table in DISTRIBUTED and KEY not in columns] == []
    assert [table for (table,) in postgresql.execute(_REPLICA_IDENTITY).fetchall()] == []


def test_every_foreign_key_holds_the_workspace_or_leads_to_what_is_everywhere(postgresql: psycopg.Connection) -> None:
    found = [Foreign(*row) for row in postgresql.execute(_FOREIGN).fetchall()]
    assert len(found) > len(DISTRIBUTED)
    for key in found:
        assert not key.sets, key.name  # Citus does not set columns of others
        if key.table not in DISTRIBUTED:
            assert key.to in REFERENCE, key.name
        elif key.to not in REFERENCE:
            assert key.to in DISTRIBUTED, key.name
            assert (KEY, KEY) in zip(key.columns, key.others, strict=True), key.name


def test_every_trigger_is_named(postgresql: psycopg.Connection) -> None:
    triggers = [name for (name,) in postgresql.execute(_TRIGGERS).fetchall()]
    assert [name for name in triggers if not re.search(rf"\b{name}\b", SCRIPT)] == [], "name it in deploy/citus.sql"


def test_what_asks_across_workspaces_is_sign_in_the_command_line_and_the_worker() -> None:
    assert {table for _, table, _ in EXCEPTIONS} - {*REFERENCE} == {"memberships", "trend_changes", "webhooks"}


async def test_every_hot_statement_goes_to_one_node(request: pytest.FixtureRequest, workspace: Workspace) -> None:
    log = request.config.stash[LOG]
    if log.file is None:
        pytest.skip("the log of the server that --postgresql-host names is not at hand")
    log.new()
    many = [message(f"c{number % 3}", f"m{number}") for number in range(40)]
    rows = "\n".join(
        f'{{"conversation_id": "s", "user_id": "u", "user_type": "customer", "message_content": "{n}"}}'
        for n in range(3)
    )
    asked = [
        await workspace.editor.post("/chats", json=message()),
        await workspace.editor.post("/chats", json=message(), headers={"Idempotency-Key": "k"}),
        await workspace.editor.post("/chats", json=many),
        await workspace.editor.post("/chats", json=many),
        await workspace.editor.post("/chats", content=rows, headers={"Content-Type": "application/x-ndjson"}),
        *[
            await workspace.viewer.get(path)
            for path in (
                *("/chats/c1", "/chats", "/chats?q=parcel", "/chats?keyword=parcel", "/chats?sentiment=positive"),
                *("/chats?user_id=ana&from=2020-01-01T00:00:00Z&to=2030-01-01T00:00:00Z", "/users/ana/chats?page=2"),
            )
        ],
        await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1"}),
        await workspace.editor.post("/chats/insights", json={"conversation_id": "c1"}),
        await workspace.viewer.get("/chats/c1/summary"),
        await workspace.admin.delete("/chats/c1"),
        await workspace.admin.delete("/chats", params={"user_id": "ana", "max_delete_count": 100}),
    ]
    assert [answer.status_code for answer in asked if not answer.is_success] == []
    heard = {record.statement for record in log.new() if record.statement}
    about = {text for text in heard if any(re.search(rf"\b{table}\b", text) for table in DISTRIBUTED)}
    assert len(about) > 20
    assert {text for text in about if check(text) != Verdict(())} == set()
