"""Storing: one message, an array, all or nothing, exactly once."""

import asyncio
import random
import re
from typing import Any

import httpx
import psycopg
import pytest

from app.factory import build
from app.repositories import messages
from app.schemas.base import CONTENT_BYTES
from app.schemas.chats import BATCH_SIZE, MessageIn
from app.schemas.enums import Role
from app.schemas.search import DeleteQuery
from app.schemas.viewer import Viewer
from app.settings import Settings
from tests.conftest import url_of
from tests.support.api import Workspace, message

CONTENTS = {
    "emoji": "Grüße 👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301",
    "right to left": "\u202eשלום مرحبا\u202c \ufeff",
    "whitespace": " \t\r\n\x0b\x0c\x85\u2028 x \n\n",
    "a space": " ",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\ufffe\uffff\U0010ffff",
    "quotes": """'"\\'' \\u0000 %00 ' OR 1=1; -- $1 {} <b>&amp;""",
    "one byte": "x",
}


async def stored(workspace: Workspace, conversation_id: str = "c1") -> list[dict[str, Any]]:
    answer = await workspace.viewer.get(f"/chats/{conversation_id}")
    return answer.json()["messages"] if answer.status_code == 200 else []


async def post(workspace: Workspace, body: object) -> httpx.Response:
    return await workspace.editor.post("/chats", json=body)


async def test_one_message_and_an_array_of_one_answer_alike(workspace: Workspace) -> None:
    receipt = {"stored": 1, "duplicates": 0, "conversations": 1, "message_ids": ["m1"]}
    answer = await post(workspace, message())
    assert (answer.status_code, answer.json()) == (201, receipt)
    answer = await post(workspace, [message("c2")])
    assert (answer.status_code, answer.json()) == (201, receipt)
    answer = await post(workspace, [message()])
    assert (answer.status_code, answer.json()) == (201, {**receipt, "stored": 0, "duplicates": 1})


async def test_a_text_comes_back_as_it_was_sent(workspace: Workspace) -> None:
    for kind, content in CONTENTS.items():
        assert (await post(workspace, message(kind, message_content=content))).status_code == 201
        assert [m["message_content"] for m in await stored(workspace, kind)] == [content]
        assert (await post(workspace, message(kind, message_content=content))).json()["duplicates"] == 1


async def test_ids_are_made_up_when_left_out(workspace: Workspace) -> None:
    bare = {name: value for name, value in message().items() if name != "message_id"}
    ids = (await post(workspace, [bare, bare, {**bare, "message_id": None}])).json()["message_ids"]
    assert len(set(ids)) == 3
    assert [m["message_id"] for m in await stored(workspace)] == ids


async def test_a_time_left_out_is_now_and_sending_again_is_a_duplicate(workspace: Workspace) -> None:
    bare = {name: value for name, value in message().items() if name != "timestamp"}
    assert (await post(workspace, bare)).json()["stored"] == 1
    [before] = await stored(workspace)
    assert (await post(workspace, bare)).json()["duplicates"] == 1
    assert (await post(workspace, {**bare, "timestamp": before["timestamp"]})).json()["duplicates"] == 1
    assert (await post(workspace, {**bare, "timestamp": "2026-01-01T00:00:00Z"})).status_code == 409
    assert await stored(workspace) == [before]


@pytest.mark.parametrize(
    "other",
    [
        {"message_content": "Other."},
        {"message_content": "My parcel has not arrived yet. "},
        {"user_id": "Ana"},
        {"user_type": "support_agent"},
        {"timestamp": "2026-11-01T10:00:00.000001Z"},
    ],
    ids=["text", "space", "sender", "side", "microsecond"],
)
async def test_the_same_id_with_other_content_is_told_and_nothing_is_stored(
    workspace: Workspace, other: dict[str, str]
) -> None:
    await post(workspace, message())
    answer = await post(workspace, message(**other))
    assert answer.status_code == 409
    assert answer.json()["code"] == "message_conflict"
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/message_id"]
    answer = await post(workspace, [message("new"), message(), message("c2", **other), message(**other)])
    assert answer.status_code == 409
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/3/message_id"]
    assert (await workspace.viewer.get("/chats")).json()["data"][0]["message_count"] == 1
    assert (await workspace.viewer.get("/chats/new")).status_code == 404


async def test_duplicates_within_one_body_count_once(workspace: Workspace) -> None:
    same_time = message(timestamp="2026-11-01T12:00:00.000+02:00")
    answer = await post(workspace, [message(), same_time, message("c2"), message()])
    assert answer.json() == {
        "stored": 2,
        "duplicates": 2,
        "conversations": 2,
        "message_ids": ["m1"] * 4,
    }
    answer = await post(workspace, [message("c3"), message("c3", message_content="Other.")])
    assert answer.status_code == 409
    assert (await workspace.viewer.get("/chats/c3")).status_code == 404


async def test_one_invalid_message_keeps_the_others_out(workspace: Workspace) -> None:
    answer = await post(workspace, [message(), message(message_id="m2", message_content="")])
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/1/message_content"]
    assert (await workspace.viewer.get("/chats/c1")).status_code == 404


async def test_ten_thousand_messages_are_taken_and_one_more_is_not(workspace: Workspace) -> None:
    batch = [message(f"c{n % 7}", f"m{n}") for n in range(BATCH_SIZE + 1)]
    for body in (batch, []):
        answer = await post(workspace, body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert (await workspace.viewer.get("/chats")).json()["data"] == []
    answer = await post(workspace, batch[:BATCH_SIZE])
    assert (answer.json()["stored"], answer.json()["conversations"]) == (BATCH_SIZE, 7)
    assert answer.json()["message_ids"] == [each["message_id"] for each in batch[:BATCH_SIZE]]
    assert (await post(workspace, batch[:BATCH_SIZE])).json()["duplicates"] == BATCH_SIZE


async def test_the_order_is_by_time_then_by_arrival(workspace: Workspace) -> None:
    chance = random.Random(7)
    sent = [message(message_id=f"m{n}", timestamp=f"2026-11-01T10:00:0{chance.randrange(4)}Z") for n in range(60)]
    for start in range(0, 60, 20):
        assert (await post(workspace, sent[start : start + 20])).status_code == 201
    expected = [each["message_id"] for each in sorted(sent, key=lambda each: each["timestamp"])]
    assert [m["message_id"] for m in await stored(workspace)] == expected


async def test_counts_times_and_participants_are_those_of_the_messages(workspace: Workspace) -> None:
    await post(workspace, [message(message_id="2", timestamp="2026-11-02T00:00:00Z")])
    await post(
        workspace,
        [
            message(message_id="3", timestamp="2026-11-03T00:00:00.5+01:00", user_id="bo", user_type="support_agent"),
            message(message_id="1", timestamp="2026-11-01T00:00:00Z", user_id="bo", user_type="support_agent"),
            message(message_id="0", timestamp="2026-11-02T00:00:00Z", user_id="bo", user_type="support_agent"),
        ],
    )
    found = (await workspace.viewer.get("/chats/c1")).json()
    assert [m["message_id"] for m in found["messages"]] == ["1", "2", "0", "3"]
    assert (found["message_count"], found["first_message_at"], found["last_message_at"]) == (
        *(4, "2026-11-01T00:00:00.000000Z"),
        "2026-11-02T23:00:00.500000Z",
    )
    assert found["participants"] == [
        {"user_id": "bo", "user_type": "support_agent", "message_count": 3},
        {"user_id": "ana", "user_type": "customer", "message_count": 1},
    ]


def _short_words() -> str:
    # Every CJK character is a word of its own: as many different short lexemes as fit.
    return " ".join(chr(0x4E00 + n % 20_000) + chr(0x61 + n // 20_000) for n in range(200_000))


HUGE = {
    "plain": "word " * 300_000,
    "short words": _short_words(),
    "two letters": " ".join(chr(0x100 + n % 400) + chr(0x400 + n // 400 % 200) for n in range(300_000)),
    "urls": " ".join(f"a{n}.de/b{n}?c={n}" for n in range(80_000)),
    "hyphens": "-".join(f"{chr(0x4E00 + n % 20_000)}" for n in range(300_000)),
    "hyphen pairs": " ".join(f"{chr(0x4E00 + n)}-{chr(0x3500 + n % 6_000)}" for n in range(20_000)) * 8,
    "one word": "x" * CONTENT_BYTES,
    "one wide word": "𐐀" * (CONTENT_BYTES // 4),
    "cjk": "".join(chr(0x4E00 + n % 20_000) for n in range(349_000)),
    "quotes": "'\\' a'b\\c /x'y\\z \\\\ '' " * 50_000,
    "paths": " ".join(f"/{n}/'{n}\\{n}" for n in range(90_000)),
    "tags": "<a b='c'>" * 110_000 + "<" * 5_000,
    "mails": " ".join(f"{n}@x-{n}.co" for n in range(80_000)),
    "numbers": " ".join(f"-{n}.{n}e{n}" for n in range(70_000)),
    "spaces": " " * CONTENT_BYTES,
}


def cut(text: str) -> str:
    return text.encode()[:CONTENT_BYTES].decode(errors="ignore")


@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE)
async def test_a_mebibyte_of_anything_is_stored_and_its_beginning_found(workspace: Workspace, text: str) -> None:
    content = cut("Zebra crossing. " + text)
    answer = await post(workspace, message(message_content=content))
    assert answer.status_code == 201, answer.text
    found = (await workspace.viewer.get("/chats", params={"q": '"zebra crossing"'})).json()["data"]
    assert [match["message_id"] for match in found[0]["matches"]] == ["m1"]
    assert [m["message_content"] == content for m in await stored(workspace)] == [True]


async def test_a_mebibyte_is_the_most_in_bytes_not_characters(workspace: Workspace) -> None:
    for size, status in ((CONTENT_BYTES, 201), (CONTENT_BYTES + 1, 422), (CONTENT_BYTES // 4 * 4 + 4, 422)):
        for character in ("x", "😀") if size % 4 == 0 else ("x",):
            content = character * (size // len(character.encode()))
            answer = await post(workspace, message(f"{size}{ord(character)}", message_content=content))
            assert answer.status_code == status
            assert len(answer.content) < 1_000


async def test_simultaneous_batches_lose_and_double_nothing(
    workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    chance = random.Random(11)
    messages = [
        message(f"c{n % 5}", f"m{n}", user_id=f"u{n % 3}", timestamp=f"2026-11-01T10:00:{n % 60:02}Z")
        for n in range(300)
    ]
    batches = [chance.sample(messages, 150) for _ in range(20)]
    answers = await asyncio.gather(*(post(workspace, batch) for batch in batches))
    assert {answer.status_code for answer in answers} == {201}
    sent = {(each["conversation_id"], each["message_id"]) for batch in batches for each in batch}
    assert sum(answer.json()["stored"] for answer in answers) == len(sent)
    assert sum(answer.json()["duplicates"] for answer in answers) == 20 * 150 - len(sent)
    for name in {conversation_id for conversation_id, _ in sent}:
        found = (await workspace.viewer.get(f"/chats/{name}")).json()
        assert {(name, m["message_id"]) for m in found["messages"]} == {each for each in sent if each[0] == name}
        assert found["message_count"] == len(found["messages"])
        assert sum(p["message_count"] for p in found["participants"]) == len(found["messages"])
    rows = postgresql.execute(
        "SELECT count(*) FROM participants AS p JOIN conversations AS c USING (workspace_id, conversation_id)"
        " WHERE p.last_message_at <> c.last_message_at"
    )
    assert rows.fetchone() == (0,)


def test_storing_finds_its_rows_by_index_however_many_there_are(postgresql: psycopg.Connection) -> None:
    for statement in (
        "INSERT INTO workspaces (workspace_id, name, master_key_id, wrapped_key) VALUES (1, 'w', '', '')",
        "INSERT INTO conversations (workspace_id, conversation_id, message_count, first_message_at, last_message_at)"
        " SELECT 1, 'c' || n, 10, now(), now() FROM generate_series(1, 1000) AS n",
        "INSERT INTO messages SELECT 1, 'c' || n % 1000 + 1, n::text, n, 'u', 'customer', now(), '', ''"
        " FROM generate_series(1, 10000) AS n",
        "INSERT INTO participants SELECT 1, 'c' || n % 1000 + 1, n::text, 'customer', 1, now()"
        " FROM generate_series(1, 10000) AS n",
        "ANALYZE conversations, messages, participants",
        "SET plan_cache_mode = force_generic_plan",
    ):
        postgresql.execute(statement)
    body = postgresql.execute("SELECT prosrc FROM pg_proc WHERE proname = 'align_participants'").fetchone()
    [align] = re.findall(r"UPDATE [^;]+", body[0] if body else "")
    align = align.replace("= of_workspace", "= $1").replace("= id", "= $2")
    for name, text in {"words": messages._WORDS, "insert": messages._INSERT, "align": align}.items():
        postgresql.execute(f"PREPARE {name}_plan AS {text}".encode())
        nulls = ", ".join(["NULL"] * len(set(re.findall(r"\$\d", text))))
        rows = postgresql.execute(f"EXPLAIN EXECUTE {name}_plan ({nulls})".encode()).fetchall()
        plan = "\n".join(row[0] for row in rows)
        assert "Seq Scan" not in plan, plan
        looked_up = re.findall(r"Index Only Scan using messages_pkey.*\n *Index Cond: (.*)", plan)
        assert len(looked_up) == (name == "words"), plan
        assert all("message_id = " in condition for condition in looked_up), plan


async def test_deleting_while_messages_come_leaves_whole_conversations(
    workspace: Workspace, postgresql: psycopg.Connection
) -> None:
    batches = [[message(f"c{n % 3}", f"m{n}-{k % 40}") for k in range(60)] for n in range(12)]

    async def insert(batch: list[dict[str, str]]) -> int:
        return (await post(workspace, batch)).status_code

    async def delete(number: int) -> int:
        return (await workspace.admin.delete(f"/chats/c{number % 3}")).status_code

    work = [each for n in range(12) for each in (insert(batches[n]), delete(n), insert(batches[n]))]
    statuses = await asyncio.gather(*work)
    # 503 says "send them again": the conversation went while its known messages were looked up.
    assert set(statuses) <= {200, 201, 404, 503}
    rows = postgresql.execute(
        "SELECT count(*) FROM conversations AS c WHERE message_count <> (SELECT count(*) FROM messages AS m"
        " WHERE m.workspace_id = c.workspace_id AND m.conversation_id = c.conversation_id)"
    )
    assert rows.fetchone() == (0,)
    assert (await post(workspace, batches[0])).status_code == 201


async def test_a_write_that_is_called_off_at_whichever_step_takes_no_other_along(
    workspace: Workspace, settings: Settings, postgresql: psycopg.Connection
) -> None:
    """All go through one connection, on which the one called off may have begun a transaction."""
    alone = settings.model_copy(update={"database_pool_size": 1})
    async with build(alone, url_of(postgresql)) as services:
        viewer = Viewer((await services.workspaces.all())[0].workspace_id, Role.EDITOR)
        nothing = DeleteQuery(user_id="nobody", max_delete_count=1)
        for step in range(60):
            writing = asyncio.create_task(services.search.delete(viewer, nothing))
            for _ in range(step):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait({writing})
            assert writing.cancelled() or writing.result().deleted.conversations == 0
            await services.chats.store(viewer, [MessageIn(**message(message_id=f"m{step}"))])
            postgresql.rollback()
            assert postgresql.execute("SELECT count(*) FROM messages").fetchone() == (step + 1,)
