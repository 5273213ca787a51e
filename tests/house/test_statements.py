"""The ear at the database hears every statement of the service, and knows one that leaves its workspace."""

import os
import subprocess
import sys

import asyncpg
import psycopg
import pytest

from app.models import Base
from app.repositories.sessions import SESSION
from app.settings import ROOT, Settings
from tests.conftest import LOG
from tests.support import statements
from tests.support.api import Workspace, message
from tests.support.statements import EXCEPTIONS, ServerLog, check

STRAYS = {
    "no predicate": "SELECT * FROM messages",
    "another column": "SELECT * FROM messages WHERE conversation_id = $1",
    "the other alias": "SELECT 1 FROM conversations AS c JOIN messages AS m USING (conversation_id)"
    " WHERE c.workspace_id = $1",
    "a column of the same name elsewhere": "SELECT 1 FROM messages AS m, given AS g WHERE g.workspace_id = $1",
    "or": "SELECT 1 FROM messages WHERE workspace_id = $1 OR user_id = $2",
    "or in brackets": "SELECT 1 FROM messages WHERE (workspace_id = $1 OR true) AND user_id = $2",
    "not": "SELECT 1 FROM messages WHERE NOT workspace_id = $1",
    "unequal": "SELECT 1 FROM messages WHERE workspace_id <> $1",
    "greater": "SELECT 1 FROM messages WHERE workspace_id >= $1",
    "itself": "SELECT 1 FROM messages AS m WHERE m.workspace_id = m.workspace_id",
    "each other": "SELECT 1 FROM messages AS a, messages AS b WHERE a.workspace_id = b.workspace_id",
    "a list": "SELECT 1 FROM messages WHERE workspace_id = ANY ($1::bigint[])",
    "a text": "SELECT 1 FROM messages WHERE workspace_id = 7",
    "a table without a workspace": "SELECT 1 FROM memberships AS m JOIN users AS u ON u.user_id = m.user_id"
    " WHERE u.email = $1",
    "the kept side of a left join": "SELECT 1 FROM api_keys AS k LEFT JOIN sessions AS s ON k.workspace_id = $1"
    " AND s.workspace_id = k.workspace_id",
    "the kept side of a right join": "SELECT 1 FROM api_keys AS k RIGHT JOIN sessions AS s ON s.workspace_id = $1",
    "a full join": "SELECT 1 FROM api_keys AS k FULL JOIN sessions AS s ON s.workspace_id = $1 AND k.workspace_id = $1",
    "using": "SELECT 1 FROM conversations JOIN messages USING (workspace_id)",
    "a natural join": "SELECT 1 FROM conversations NATURAL JOIN messages",
    "a subquery": "SELECT (SELECT count(*) FROM messages) FROM conversations WHERE workspace_id = $1",
    "a subquery with the outer predicate": "SELECT 1 FROM conversations AS c WHERE EXISTS"
    " (SELECT 1 FROM messages AS m WHERE c.workspace_id = $1 AND m.conversation_id = c.conversation_id)",
    "a subquery of an unbound one": "SELECT 1 FROM conversations AS c WHERE EXISTS"
    " (SELECT 1 FROM messages AS m WHERE m.workspace_id = c.workspace_id)",
    "a derived table": "SELECT 1 FROM (SELECT * FROM messages) AS m WHERE m.workspace_id = $1",
    "a lateral one": "SELECT 1 FROM conversations AS c CROSS JOIN LATERAL (SELECT 1 FROM messages) AS m"
    " WHERE c.workspace_id = $1",
    "a CTE": "WITH all_of_them AS (SELECT * FROM messages) SELECT * FROM all_of_them WHERE workspace_id = $1",
    "a CTE by the name of a table": "WITH messages AS (SELECT 1) SELECT * FROM messages",
    "an arm of a union": "SELECT 1 FROM messages WHERE workspace_id = $1 UNION ALL SELECT 1 FROM messages",
    "having": "SELECT workspace_id FROM messages GROUP BY workspace_id HAVING workspace_id = $1",
    "another schema": "SELECT 1 FROM public.messages",
    "capitals": "SELECT 1 FROM MESSAGES",
    "all of the table": "TABLE messages",
    "update": "UPDATE messages SET user_id = $1",
    "update from": "UPDATE participants AS p SET user_id = $2 FROM conversations AS c WHERE c.workspace_id = $1",
    "update that moves": "UPDATE messages SET workspace_id = $2 WHERE workspace_id = $1",
    "delete": "DELETE FROM messages WHERE conversation_id = $1",
    "delete using": "DELETE FROM messages AS m USING conversations AS c WHERE c.workspace_id = $1",
    "delete in a CTE": "WITH gone AS (DELETE FROM messages RETURNING *) SELECT count(*) FROM gone",
    "delete by a bound subquery": "DELETE FROM messages WHERE message_id IN"
    " (SELECT message_id FROM messages WHERE workspace_id = $1)",
    "insert elsewhere": "INSERT INTO elsewhere (x) SELECT x FROM messages",
    "insert without the column": "INSERT INTO messages (conversation_id) VALUES ($1)",
    "insert without columns": "INSERT INTO messages VALUES ($1, $2)",
    "insert of a constant": "INSERT INTO messages (workspace_id) VALUES (1)",
    "insert of two rows": "INSERT INTO messages (workspace_id) VALUES ($1), (2)",
    "insert select": "INSERT INTO messages (workspace_id, user_id) SELECT workspace_id, user_id FROM participants",
    "insert select of all": "INSERT INTO messages (workspace_id, user_id) SELECT * FROM given",
    "insert select of a union": "INSERT INTO messages (workspace_id) SELECT $1 UNION SELECT 2",
    "upsert on another key": "INSERT INTO workspaces (workspace_id, name) VALUES ($1, $2)"
    " ON CONFLICT (name) DO UPDATE SET name = excluded.name",
    "upsert that moves": "INSERT INTO messages (workspace_id) VALUES ($1)"
    " ON CONFLICT (workspace_id) DO UPDATE SET workspace_id = $2",
    "merge": "MERGE INTO messages AS m USING given AS g ON m.workspace_id = $1 WHEN MATCHED THEN DELETE",
    "copy": "COPY messages TO STDOUT",
    "truncate": "TRUNCATE messages",
    "the second statement": "SELECT 1; SELECT 1 FROM messages",
    "an exception beside another table": "SELECT 1 FROM workspaces, users",
    "an exception or": "SELECT 1 FROM memberships WHERE user_id = $1 OR true",
    "an exception of another verb": "DELETE FROM memberships WHERE user_id = $1",
    "nothing that a parser knows": "SELECT FROM WHERE messages",
}
SOUND = {
    "bound": "SELECT * FROM messages WHERE workspace_id = $1",
    "the other way round": "SELECT * FROM messages AS m WHERE $1::BIGINT = (m.workspace_id)",
    "brackets": "SELECT 1 FROM messages WHERE ((user_id = $2) AND (workspace_id = $1))",
    "a chain": "SELECT 1 FROM summaries AS s JOIN conversations AS c ON c.workspace_id = s.workspace_id"
    " WHERE s.workspace_id = $1",
    "a left join": "SELECT 1 FROM api_keys AS k LEFT JOIN memberships AS m ON m.workspace_id = $1"
    " WHERE k.workspace_id = $2",
    "a right join": "SELECT 1 FROM api_keys AS k RIGHT JOIN sessions AS s ON k.workspace_id = s.workspace_id"
    " WHERE s.workspace_id = $1",
    "a correlated subquery": "SELECT (SELECT count(*) FROM messages WHERE workspace_id = c.workspace_id)"
    " FROM conversations AS c WHERE c.workspace_id = $1",
    "a CTE": "WITH hits AS (SELECT * FROM messages WHERE workspace_id = $1) SELECT * FROM hits",
    "both arms": "SELECT 1 FROM messages WHERE workspace_id = $1 UNION SELECT 1 FROM summaries WHERE workspace_id = $1",
    "update from": "UPDATE participants AS p SET user_id = c.x FROM conversations AS c"
    " WHERE c.workspace_id = $1 AND p.workspace_id = c.workspace_id",
    "delete using": "DELETE FROM conversations AS c USING doomed WHERE c.workspace_id = $1 AND c.x = doomed.x",
    "insert": "INSERT INTO messages (user_id, workspace_id) VALUES ($1::VARCHAR, $2::BIGINT)",
    "insert select": "INSERT INTO messages (workspace_id, user_id) SELECT m.workspace_id, 'x' FROM participants AS m"
    " WHERE m.workspace_id = $1",
    "upsert": "INSERT INTO messages AS m (workspace_id, x) VALUES ($1, $2) ON CONFLICT (workspace_id, x)"
    " DO UPDATE SET x = excluded.x WHERE m.x IS NULL",
    "a table without workspaces": "SELECT 1 FROM users WHERE email = $1",
    "an alias by the name of a table": "SELECT count(*) AS messages FROM users",
    "no table": "BEGIN",
}
ALLOWED = {
    ("SELECT", "memberships", "user_id"): "SELECT w.name FROM memberships AS m JOIN workspaces AS w"
    " ON w.workspace_id = m.workspace_id WHERE m.user_id = $1::BIGINT",
    ("UPDATE", "memberships", "invited_email"): "UPDATE memberships SET user_id = $1 WHERE invited_email = $2",
    (
        "SELECT",
        "trend_changes",
        None,
    ): "SELECT workspace_id FROM trend_changes WHERE workspace_id > $1 ORDER BY workspace_id LIMIT 1",
    ("SELECT", "webhooks", "enabled"): "SELECT 1 FROM webhooks AS w WHERE w.enabled = $1::boolean AND EXISTS (SELECT"
    " FROM webhook_deliveries AS d WHERE d.workspace_id = w.workspace_id)",
    ("SELECT", "workspaces", "name"): "SELECT * FROM workspaces WHERE name = $1",
    ("SELECT", "workspaces", None): "SELECT * FROM workspaces ORDER BY name",
}


@pytest.mark.parametrize("sql", STRAYS.values(), ids=STRAYS)
def test_a_statement_that_leaves_its_workspace_is_known(sql: str) -> None:
    assert check(sql).problems


@pytest.mark.parametrize("sql", SOUND.values(), ids=SOUND)
def test_a_statement_that_stays_in_its_workspace_is_not_suspected(sql: str) -> None:
    assert check(sql) == ((), frozenset())


def test_every_exception_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(ALLOWED) == set(EXCEPTIONS)
    for exception, sql in ALLOWED.items():
        assert check.__wrapped__(sql) == ((), frozenset({exception}))
    monkeypatch.setattr(statements, "EXCEPTIONS", {})
    for sql in ALLOWED.values():
        assert check.__wrapped__(sql).problems


def test_every_table_is_of_workspaces_but_three() -> None:
    others = set(Base.metadata.tables) - statements.TABLES
    assert others == {"users", "oauth_states"}


@pytest.fixture
def log(request: pytest.FixtureRequest) -> ServerLog:
    if request.config.stash[LOG].file is None:
        pytest.skip("the log of the server that --postgresql-host names is not at hand")
    return request.config.stash[LOG]


def heard(log: ServerLog, part: str) -> list[str]:
    records = log.new()
    assert log.strays(records) == []
    return [record.statement for record in records if record.statement and part in record.statement]


async def test_the_services_statements_are_heard(log: ServerLog, workspace: Workspace) -> None:
    await workspace.editor.post("/chats", json=message())
    assert len(heard(log, "INSERT INTO messages")) == 1


async def test_a_stray_is_heard_and_values_are_not(
    log: ServerLog, settings: Settings, postgresql: psycopg.Connection
) -> None:
    assert settings.database_url
    connection = await asyncpg.connect(settings.database_url.get_secret_value(), server_settings=SESSION)
    await connection.fetch("SELECT 1\nFROM messages\n\tWHERE user_id = $1", "somebody")
    await connection.close()
    postgresql.execute("SELECT 2 FROM messages")  # a test's own
    records = log.new()
    assert log.strays(records) == [
        "SELECT messages AS messages: no workspace_id = $n\nSELECT 1\nFROM messages\n\tWHERE user_id = $1"
    ]
    assert not [record for record in records if "somebody" in record.text]


def test_another_processs_statements_are_heard(log: ServerLog, settings: Settings) -> None:
    secrets = {
        name: getattr(settings, name).get_secret_value() for name in ("database_url", "master_key", "secret_key")
    }
    environment = {**os.environ, **{name.upper(): value for name, value in secrets.items()}}
    command = [sys.executable, "-m", "app", "workspaces", "create", "acme"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert len(heard(log, "INSERT INTO workspaces")) == 1
