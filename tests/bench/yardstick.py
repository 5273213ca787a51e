"""The yardstick: the same answers from a bare ASGI application on a raw asyncpg pool.

It authenticates, limits, encrypts, validates and audits nothing, and takes messages with all their fields only: what a
service with all of that is compared with. ``to`` bounds a conversation's last message, which one index knows, where the
service's bounds the first: the same unless conversations overlap.

``DATABASE_URL``, ``POOL_SIZE``, ``STATEMENT_CACHE_SIZE`` and ``POOLED`` configure it.
"""

import base64
import math
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import asyncpg
import orjson

from tests.bench import yardstick_sql as sql

WORKSPACE = 1
RECEIPT = ("conversations", "messages", "participants", "summaries", "insights", "feedback")
SESSION = {"application_name": "yardstick", "jit": "off", "work_mem": "64MB"}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Yardstick:
    """The application; ``open`` and ``close`` are its lifespan."""

    def __init__(self, url: str, pool_size: int, statement_cache_size: int, *, pooled: bool = False) -> None:
        self._url, self._pool_size, self._cache, self._pooled = url, pool_size, statement_cache_size, pooled
        self._common: dict[str, bool] = {}

    async def open(self) -> None:
        """Connects."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=self._pool_size,
            max_size=self._pool_size,
            statement_cache_size=self._cache,
            max_inactive_connection_lifetime=0,
            server_settings=None if self._pooled else SESSION,
        )

    async def close(self) -> None:
        """Disconnects."""
        await self._pool.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        _, noun, *rest = scope["path"].split("/")
        method = scope["method"]
        status = 200
        if method == "POST":
            status = 201
            answer: dict[str, object] | None = await self._store(await _body(receive))
        else:
            query = dict(parse_qsl(scope["query_string"].decode())) if scope["query_string"] else {}
            if noun == "users":
                answer = await self._history(unquote(rest[0]), query)
            elif rest:
                answer = await (self._read if method == "GET" else self._delete)(rest[0])
            elif noun == "chats":
                answer = await (self._find if method == "GET" else self._delete_many)(query)
            else:
                answer = {}
            if answer is None:
                status, answer = 404, {}
        body = orjson.dumps(answer, option=orjson.OPT_UTC_Z)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _store(self, body: bytes) -> dict[str, object]:
        messages = orjson.loads(body)
        if isinstance(messages, dict):
            values = [messages[name] for name in ("conversation_id", "message_id", "user_id", "user_type", "timestamp")]
            stored = await self._pool.fetchval(sql.INSERT_ONE, WORKSPACE, *values, messages["message_content"])
            messages = [messages]
        else:
            stored, grown = await self._pool.fetchrow(sql.INSERT_MANY, WORKSPACE, body)
            if grown:
                await self._pool.execute(sql.ALIGN, WORKSPACE, grown)
        return {
            "stored": stored,
            "duplicates": len(messages) - stored,
            "conversations": len({message["conversation_id"] for message in messages}),
            "message_ids": [message["message_id"] for message in messages],
        }

    async def _read(self, conversation_id: str) -> dict[str, object] | None:
        row = await self._pool.fetchrow(sql.CONVERSATION, WORKSPACE, conversation_id, 1_001)
        if row is None:
            return None
        answer = _conversation(row)
        answer["messages"] = [
            {
                "message_id": m[0],
                "user_id": m[1],
                "user_type": m[2],
                "message_content": m[3].decode(),
                "timestamp": m[4],
            }
            for m in row[7][:1_000]
        ]
        answer["has_more"], answer["next_cursor"] = len(row[7]) > 1_000, None
        return answer

    async def _history(self, user_id: str, query: dict[str, str]) -> dict[str, object]:
        limit = int(query.get("limit", 10))
        if cursor := query.get("cursor"):
            page, total, time, after = orjson.loads(base64.urlsafe_b64decode(cursor))
            rows = await self._pool.fetch(sql.FROM_POSITION, WORKSPACE, user_id, 0, limit, time, after)
        elif (page := int(query.get("page", 1))) == 1:
            rows = await self._pool.fetch(sql.FIRST, WORKSPACE, user_id, 0, limit)
            total = rows[0][7] if rows else 0
        else:
            async with self._pool.acquire() as connection:
                total = await connection.fetchval(sql.TOTAL, WORKSPACE, user_id)
                start, end = limit * (page - 1), max(total - limit * page, 0)
                if start <= end:
                    rows = await connection.fetch(sql.FROM_START, WORKSPACE, user_id, start, limit)
                else:
                    count = min(limit, max(total - start, 0))
                    rows = await connection.fetch(sql.FROM_END, WORKSPACE, user_id, end, count)
        pages = math.ceil(total / limit)
        place = (page + 1, total, rows[-1][3], rows[-1][0]) if page < pages else None
        return {
            "data": [{**_conversation(row), "matches": None} for row in rows],
            "has_more": page < pages,
            "next_cursor": base64.urlsafe_b64encode(orjson.dumps(place)).decode() if place else None,
            "page": page,
            "total": total,
            "pages": pages,
        }

    async def _find(self, query: dict[str, str]) -> dict[str, object]:
        limit, q = int(query.get("limit", 10)), query.get("q")
        values: list[object] = [WORKSPACE]

        def bind(value: object) -> str:
            values.append(value)
            return f"${len(values)}"

        source, conditions = "conversations AS k", ["k.workspace_id = $1"]
        if "user_id" in query:
            source = "participants AS k"
            conditions.append(f"k.user_id = {bind(query['user_id'])}")
        if "from" in query:
            conditions.append(f"k.last_message_at >= {bind(query['from'])}::text::timestamptz")
        if "to" in query:
            conditions.append(f"k.last_message_at < {bind(query['to'])}::text::timestamptz")
        parts = {"source": source, "conditions": " AND ".join(conditions)}
        if q is None:
            found, matches, words = "{source} WHERE {conditions}".format(**parts), "NULL", "''"
        else:
            words = f"{bind(q)}::text"
            found = (sql.WALK if await self._is_common(q, limit + 1) else sql.HITS).format(q=words, **parts)
            matches = sql.MATCHES.format(q=words)
        statement = sql.FIND.format(
            columns=sql.COLUMNS, matches=matches, found=found, limit=bind(limit + 1) + "::int", q=words
        )
        rows = await self._pool.fetch(statement, *values)
        last = rows[limit - 1] if len(rows) > limit else None
        return {
            "data": [
                {
                    **_conversation(row),
                    "matches": None if row[7] is None else [{"message_id": m[0], "snippet": m[1]} for m in row[7]],
                }
                for row in rows[:limit]
            ],
            "has_more": last is not None,
            "next_cursor": base64.urlsafe_b64encode(orjson.dumps((last[3], last[0]))).decode() if last else None,
        }

    async def _is_common(self, q: str, wanted: int) -> bool:
        """Says, by PostgreSQL's estimate, whether walking back meets enough conversations before hits are sorted."""
        if q not in self._common:
            quoted = await self._pool.fetchval("SELECT quote_literal($1::text)", q)
            plan = await self._pool.fetchval(sql.ESTIMATE.format(workspace=WORKSPACE, q=quoted))
            hits = orjson.loads(plan)[0]["Plan"]["Plan Rows"]
            self._common[q] = hits * hits > wanted * await self._pool.fetchval(sql.SIZE)
        return self._common[q]

    async def _delete(self, conversation_id: str) -> dict[str, object] | None:
        row = await self._pool.fetchrow(sql.DELETE, WORKSPACE, [conversation_id])
        return {"conversation_id": conversation_id, "deleted": dict(zip(RECEIPT, row, strict=True))} if row[0] else None

    async def _delete_many(self, query: dict[str, str]) -> dict[str, object]:
        most = int(query["max_delete_count"])
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(sql.OF_SENDER, WORKSPACE, query["user_id"], most + 1)
            doomed = [row[0] for row in rows] if len(rows) <= most else []
            row = await connection.fetchrow(sql.DELETE, WORKSPACE, doomed)
        return {"deleted": dict(zip(RECEIPT, row, strict=True))}


def _conversation(row: asyncpg.Record) -> dict[str, object]:
    return {
        "conversation_id": row[0],
        "message_count": row[1],
        "first_message_at": row[2],
        "last_message_at": row[3],
        "participants": [{"user_id": p[0], "user_type": p[1], "message_count": p[2]} for p in row[4]],
        "sentiment": row[5],
        "outcome": row[6],
    }


async def _body(receive: Receive) -> bytes:
    message = await receive()
    if not message["more_body"]:
        return bytes(message["body"])
    parts = [message["body"]]
    while message["more_body"]:
        message = await receive()
        parts.append(message["body"])
    return b"".join(parts)


def create() -> Yardstick:
    """Returns the application that the environment configures."""
    sizes = int(os.environ["POOL_SIZE"]), int(os.environ["STATEMENT_CACHE_SIZE"])
    return Yardstick(os.environ["DATABASE_URL"], *sizes, pooled=bool(os.environ["POOLED"]))
