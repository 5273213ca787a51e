"""What lies in the database cannot be read, and is found all the same."""

import csv
import re
from collections.abc import Iterator

import psycopg
import pytest
from cryptography.exceptions import InvalidTag
from psycopg import sql

from app.errors import ConfigurationError
from app.factory import Services, build
from app.security.blind_index import keyed_hash, keyed_tsvector, search_pads
from app.security.encryption import MESSAGE, MasterKeys, new_workspace_keys
from app.settings import ROOT, Settings
from tests.conftest import MASTER_KEY
from tests.support.api import Workspace, message

TEXTS = [
    "The zeppelin reservation for Bartholomew never arrived in Reykjavik.",
    "Unfortunately the zeppelin was cancelled; we refund the full amount tomorrow.",
    "Thank you, that resolves everything splendidly!",
]


def sample_texts() -> list[str]:
    """Returns the texts of the sample conversations."""
    found: list[str] = []
    for file in sorted((ROOT / "data").glob("*_sample.csv")):
        with file.open(newline="") as lines:
            found += [row["message_content"] for row in csv.DictReader(lines)]
    return found


def tables(connection: psycopg.Connection) -> Iterator[tuple[str, bytes]]:
    """Yields every table as PostgreSQL's own binary dump, in which nothing is in hexadecimal."""
    names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    for (name,) in names:
        with connection.cursor().copy(
            sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(sql.Identifier(name))
        ) as copy:
            yield name, b"".join(map(bytes, copy))


async def test_a_dump_holds_no_word_of_what_was_said(workspace: Workspace, postgresql: psycopg.Connection) -> None:
    people = [("ana", "customer"), ("bob", "support_agent"), ("ana", "customer")]
    for number, (text, (user, side)) in enumerate(zip(TEXTS, people, strict=True)):
        sent = message(message_id=f"m{number}", user_id=user, user_type=side, message_content=text)
        assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    for kind in ("summarize", "insights"):
        made = await workspace.editor.post(f"/chats/{kind}", json={"conversation_id": "c1"})
        assert made.status_code == 200, made.text
    found = await workspace.viewer.get("/chats", params={"q": '"zeppelin reservation"'})
    assert [match["message_id"] for match in found.json()["data"][0]["matches"]] == ["m0"]

    words = {word for text in TEXTS for word in re.findall(r"[a-z]{5,}", text.lower())}
    stems = {
        row[0] for text in TEXTS for row in postgresql.execute("SELECT lexeme FROM unnest(to_tsvector(%s))", [text])
    }
    dump = dict(tables(postgresql))
    assert {"messages", "summaries", "insights"} <= {name for name, rows in dump.items() if len(rows) > 100}
    for name, rows in dump.items():
        seen = {word for word in words | {stem for stem in stems if len(stem) > 4} if word.encode() in rows.lower()}
        assert not seen, (name, seen)


async def test_the_same_text_looks_different_everywhere(workspace: Workspace, postgresql: psycopg.Connection) -> None:
    for place in (("c1", "m1"), ("c1", "m2"), ("c2", "m1")):
        await workspace.editor.post("/chats", json=message(*place))
    blobs = {bytes(row[0])[13:] for row in postgresql.execute("SELECT content FROM messages").fetchall()}
    assert len(blobs) == 3


async def test_a_workspace_hashes_words_its_own_way(
    workspace: Workspace, other_workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    for each in (workspace, other_workspace):
        await each.editor.post("/chats", json=message())
    vectors = postgresql.execute("SELECT DISTINCT search_vector::text FROM messages").fetchall()
    assert len(vectors) == 2
    assert not set(re.findall(r"'([^']+)'", vectors[0][0])) & set(re.findall(r"'([^']+)'", vectors[1][0]))


@pytest.mark.parametrize(
    "change", ["message_id = 'm2'", "content = set_byte(content, 20, 255 - get_byte(content, 20))"]
)
async def test_a_text_that_was_moved_or_changed_does_not_open(
    workspace: Workspace, postgresql: psycopg.Connection, change: str
) -> None:
    await workspace.editor.post("/chats", json=message())
    postgresql.execute(sql.SQL("UPDATE messages SET ") + sql.SQL(change))
    postgresql.commit()
    answer = await workspace.viewer.get("/chats/c1")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"


@pytest.mark.parametrize("lexeme", ["parcel", "o'clock", "back\\slash", "naïve", "日本", "a b"])
def test_sql_and_python_hash_a_lexeme_alike(postgresql: psycopg.Connection, lexeme: str) -> None:
    key = bytes(range(32))
    row = postgresql.execute("SELECT keyed_lexeme(%s, %s, %s)", [*search_pads(key), lexeme]).fetchone()
    assert row == (f"'{keyed_hash(key, lexeme)}'",)


ODD_TEXTS = [
    "",
    "the of and",
    "O'Neil's '' path /usr/'bin' C:\\dir\\x \\\\ \\' a'b'c",
    "naïve Grüße 日本語 😀 e\u0301 \x01\x7f\ufffe",
    "mail a.b@c.de, https://x.y/z?q='1', 1.5e-7, well-known, 'quoted' ''twice''",
    "'quoted':1,2 'like':3A a 'tsvector' \n\t",
    "word " * 20_000,
]


def test_sql_and_python_hash_texts_alike(postgresql: psycopg.Connection) -> None:
    key = bytes(range(32))
    for text in ODD_TEXTS + sample_texts():
        row = postgresql.execute(
            "SELECT to_tsvector('pg_catalog.english', left(%s, 50000))::text, keyed_tsvector(%s, %s, %s)::text",
            [text, *search_pads(key), text],
        ).fetchone()
        assert row
        assert sorted(keyed_tsvector(key, row[0]).split()) == sorted(row[1].split())


async def test_many_texts_are_indexed_like_one(workspace: Workspace, postgresql: psycopg.Connection) -> None:
    texts = [text for text in ODD_TEXTS if text] + sample_texts()[::40] + TEXTS
    sent = [message("many", f"m{place}", message_content=text) for place, text in enumerate(texts)]
    assert (await workspace.editor.post("/chats", json=sent)).json()["stored"] == len(texts) > 100
    for each in sent:
        assert (await workspace.editor.post("/chats", json={**each, "conversation_id": "one"})).status_code == 201
    rows = postgresql.execute(
        "SELECT message_id, count(*), count(DISTINCT search_vector) FROM messages GROUP BY message_id"
    ).fetchall()
    assert sorted(rows) == sorted((each["message_id"], 2, 1) for each in sent)
    dump = dict(tables(postgresql))["messages"].lower()
    assert not [word for word in ("zeppelin", "bartholomew", "reykjavik", "splendid") if word.encode() in dump]


async def test_master_keys_rotate_while_texts_stay(
    settings: Settings, workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    await workspace.editor.post("/chats", json=message())
    before = postgresql.execute("SELECT content FROM messages").fetchall()
    postgresql.commit()
    url = settings.database_url.get_secret_value() if settings.database_url else ""
    both = settings.model_copy(update=secrets(master_key="0123456789abcdef" * 4, previous_master_keys=MASTER_KEY))
    async with build(both, url) as rotating:
        seen: list[tuple[int, int]] = []
        assert await rotating.workspaces.rewrap(lambda done, total: seen.append((done, total))) == 1
        assert seen == [(1, 1)]
        assert await rotating.workspaces.rewrap(lambda *_: None) == 0
    async with build(settings.model_copy(update=secrets(master_key="0123456789abcdef" * 4)), url) as rotated:
        [row] = await rotated.workspaces.all()
        cipher = (await rotated.workspaces.keys(row.workspace_id)).conversation("c1")
    assert postgresql.execute("SELECT content FROM messages").fetchall() == before
    assert cipher.open(MESSAGE, "m1", before[0][0]) == message()["message_content"]
    # The instance that was running before the rotation goes on.
    assert (await workspace.viewer.get("/chats/c1")).status_code == 200


async def test_a_wrong_master_key_refuses_to_start(settings: Settings, workspace: Workspace) -> None:
    url = settings.database_url.get_secret_value() if settings.database_url else ""
    with pytest.raises(ConfigurationError, match="neither MASTER_KEY nor PREVIOUS_MASTER_KEYS"):
        async with build(settings.model_copy(update=secrets(master_key="fedcba9876543210" * 4)), url):
            pass


def test_a_wrapped_key_opens_for_its_own_workspace_only() -> None:
    master = MasterKeys([bytes(32)])
    keys = new_workspace_keys(1)
    wrapped = master.wrap(keys)
    assert master.unwrap(1, master.current_id, wrapped) == keys
    with pytest.raises(ConfigurationError):
        master.unwrap(2, master.current_id, wrapped)
    with pytest.raises(InvalidTag):
        new_workspace_keys(1).conversation("c").open(MESSAGE, "m", keys.conversation("c").seal(MESSAGE, "m", "text"))


@pytest.mark.parametrize("place", ["kind", "name", "conversation", "key id"])
def test_a_blob_opens_only_as_what_it_was_sealed(place: str) -> None:
    keys = new_workspace_keys(1)
    blob = keys.conversation("c").seal("summary", "keywords", "text")
    assert keys.conversation("c").open("summary", "keywords", blob) == "text"
    with pytest.raises(InvalidTag):
        keys.conversation("d" if place == "conversation" else "c").open(
            MESSAGE if place == "kind" else "summary",
            "decisions" if place == "name" else "keywords",
            b"\2" + blob[1:] if place == "key id" else blob,
        )


def secrets(**texts: str) -> dict[str, object]:
    return dict(Settings(_env_file=None, **texts).model_dump(include=set(texts)))  # type: ignore[arg-type]
