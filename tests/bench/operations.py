"""What is measured: the requests of each operation."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from urllib.parse import quote, urlencode

import orjson

from tests.bench.data import MESSAGES_EACH, SPAN, START, Data, Message, Words
from tests.bench.load import Failed
from tests.bench.servers import Side

PAGE = 10
READ_PATHS = 200
EXISTING = 256
"""How many conversations single messages go to."""
STREAMS = {"stream ndjson": ("application/x-ndjson", "messages.ndjson"), "stream csv": ("text/csv", "messages.csv")}
COPY = "copy"
LATER = (START + SPAN).replace(tzinfo=None).isoformat()


Ask = Callable[[str], dict[str, object]]
"""Returns a server's answer to a path."""


@dataclass(frozen=True)
class Operation:
    """An operation; ``lines`` are paths, or bodies of ``POST /chats`` with ``batch`` messages each.

    They may follow from a server's answers, as cursors do. A deletion takes ``doomed`` conversations of
    ``messages_each`` messages at a time.
    """

    name: str
    method: str = "GET"
    lines: Callable[[Ask], list[str]] = lambda _: []
    batch: int = 0
    doomed: int = 0
    messages_each: int = 0


def operations(data: Data, words: Words, fresh: Callable[[], "list[Message]"]) -> list[Operation]:
    """Returns all operations on the data; ``fresh`` returns messages that are not stored."""
    ids = list(data.conversations)
    some = [f"/chats/{quote(name, safe='')}" for name in ids[:: max(1, len(ids) // READ_PATHS)]]
    history = f"/users/{quote(data.sender, safe='')}/chats?"
    total = sum(data.sender in each.senders for each in data.conversations.values())
    deep = [max(total // PAGE // 2, 1), max(-(-total // PAGE), 1)]
    senders = Counter(sender for each in data.conversations.values() for sender in each.senders)
    rarest = sorted(senders, key=lambda sender: (senders[sender], sender))[:READ_PATHS]
    times = sorted(each.first for each in data.conversations.values())
    starts = [len(times) * tenths // 10 for tenths in (1, 5, 9)]
    width = max(len(times) // 50, 1)
    ends = [*times, max(each.last for each in data.conversations.values()) + timedelta(microseconds=1)]
    last = len(times)
    ranges = [(times[start].isoformat(), ends[min(start + width, last)].isoformat()) for start in starts]
    half = {"from": times[len(times) // 4].isoformat(), "to": times[len(times) * 3 // 4].isoformat()}

    def find(*queries: dict[str, str]) -> Callable[[Ask], list[str]]:
        possible = [query for query in queries if all(query.values())]
        return lambda _: [f"/chats?{urlencode({**query, 'limit': str(PAGE)})}" for query in possible]

    def by_cursor(ask: Ask) -> list[str]:
        pages = deep[0], max(deep[1] - 1, 1)
        cursors = [ask(f"{history}page={page}&limit={PAGE}")["next_cursor"] for page in pages]
        return [f"{history}{urlencode({'cursor': cursor, 'limit': PAGE})}" for cursor in cursors if cursor]

    return [
        Operation("read conversation", lines=lambda _: some),
        Operation("history first", lines=lambda _: [f"{history}page=1&limit={PAGE}"]),
        Operation("history deep", lines=lambda _: [f"{history}page={page}&limit={PAGE}" for page in deep]),
        Operation("history cursor", lines=by_cursor),
        Operation("history cold", lines=lambda _: [f"/users/{quote(each, safe='')}/chats" for each in rarest]),
        Operation("search rare", lines=find(*({"q": word} for word in words.rare))),
        Operation("search common", lines=find({"q": words.common})),
        Operation("search two words", lines=find({"q": words.pair})),
        Operation("search phrase", lines=find({"q": words.phrase})),
        Operation("date range", lines=find(*({"from": start, "to": end} for start, end in ranges))),
        Operation("combined", lines=find({"user_id": data.sender, "q": words.pair.partition(" ")[0], **half})),
        Operation("insert 1", "POST", lambda _: _bodies(fresh(), 1), batch=1),
        Operation("insert 100", "POST", lambda _: _bodies(fresh(), 100), batch=100),
        Operation("insert 1000", "POST", lambda _: _bodies(fresh(), 1_000), batch=1_000),
        *(Operation(name) for name in (*STREAMS, COPY)),
        Operation("delete 1", "DELETE", doomed=1, messages_each=5),
        Operation("delete 1000", "DELETE", doomed=1_000, messages_each=2),
    ]


def _bodies(messages: list[Message], size: int) -> list[str]:
    """Returns bodies whose conversations are new with each request, or ``existing`` if messages come one by one."""
    bodies = []
    for place in range(0, min(len(messages), 100 * size) - size + 1, size):
        batch = [message._asdict() for message in islice(messages, place, place + size)]
        for each, message in enumerate(batch):
            message["message_content"] = message["message_content"].replace("@", " ")
            if size > 1:
                message |= {"conversation_id": f"new-RUN-@N@-{each // MESSAGES_EACH}", "message_id": f"m-{each}"}
            else:
                # The newest of its conversation every time, by one of its two senders, however many there are.
                message |= {"conversation_id": "new-RUN-@C@", "message_id": "m-@N@", "timestamp": f"{LATER}.@N@Z"}
                message |= {"user_id": "of-new-RUN-@C@-@S@", "user_type": "customer"}
        bodies.append(orjson.dumps(batch[0] if size == 1 else batch, option=orjson.OPT_UTC_Z).decode())
    return bodies


def existing(run: str) -> list[dict[str, str]]:
    """Returns the first messages, one of each sender, of the conversations that single messages go to."""
    return [
        {
            "conversation_id": f"new-{run}-{number}",
            "message_id": f"first-{sender}",
            "user_id": f"of-new-{run}-{number}-{sender}",
            "user_type": "customer",
            "timestamp": f"{LATER}Z",
            "message_content": "Hello.",
        }
        for number in range(EXISTING)
        for sender in range(2)
    ]


def doom(side: Side, operation: Operation, count: int, run: str) -> list[str]:
    """Makes the conversations that ``count`` deletions take, as copies of stored messages; returns their paths."""
    columns = "user_type, timestamp, content, search_vector"
    name = f"'del-{run}-' || request || '-' || each"
    sender = f"'gone-{run}-' || request"
    series = f"generate_series(1, {count}) AS request, generate_series(1, {operation.doomed}) AS each"
    with side.database.transaction():
        side.database.execute(
            f"""INSERT INTO conversations (workspace_id, conversation_id, message_count, first_message_at,
                last_message_at) SELECT {side.workspace_id}, {name}, {operation.messages_each}, now(), now()
                FROM {series}""".encode()
        )
        side.database.execute(
            f"""INSERT INTO participants (workspace_id, conversation_id, user_id, user_type, message_count,
                last_message_at) SELECT {side.workspace_id}, {name}, {sender}, 'customer',
                {operation.messages_each}, now() FROM {series}""".encode()
        )
        side.database.execute(
            f"""INSERT INTO messages (workspace_id, conversation_id, message_id, sequence, user_id, {columns})
                SELECT {side.workspace_id}, {name}, place, place, {sender}, {columns} FROM {series},
                (SELECT row_number() OVER () AS place, {columns} FROM (
                    SELECT {columns} FROM messages WHERE workspace_id = {side.workspace_id} LIMIT
                    {operation.messages_each}) AS m) AS m""".encode()
        )
    if operation.doomed == 1:
        return [f"/chats/del-{run}-{request}-1" for request in range(1, count + 1)]
    limit = operation.doomed
    return [f"/chats?user_id=gone-{run}-{request}&max_delete_count={limit}" for request in range(1, count + 1)]


def check(operation: Operation, sides: list[Side]) -> None:
    """Raises ``Failed`` unless all answer the same to each of some requests, and find something."""
    for place in range(min(10, *(len(operation.lines(side.get)) for side in sides))):
        paths = [operation.lines(side.get)[place] for side in sides]
        one, other = (plain(side.get(path)) for side, path in zip(sides, paths, strict=True))
        if one != other:
            differing = [name for name in one if one[name] != other.get(name)]
            shown = [{name: str(answer.get(name))[:1_000] for name in differing} for answer in (one, other)]
            raise Failed(f"{paths[0]} is answered differently: {shown}")
        if not one.get("data", one.get("messages")):
            raise Failed(f"{paths[0]} finds nothing")


def plain(answer: dict[str, object]) -> dict[str, object]:
    """Returns an answer without its cursor, and its times without the zeros at their end."""
    text = orjson.dumps({**answer, "next_cursor": None}).decode().replace('.000000Z"', 'Z"')
    parsed: dict[str, object] = orjson.loads(text)
    return parsed


def copy(side: Side, folder: Path) -> None:
    """Fills the tables of schema ``copy`` from a folder's files through COPY, in one transaction."""
    names = {
        "conversations": "workspace_id, conversation_id, message_count, first_message_at, last_message_at",
        "participants": "workspace_id, conversation_id, user_id, user_type, message_count, last_message_at",
        "messages": "workspace_id, conversation_id, message_id, user_id, user_type, timestamp, content, sequence",
    }
    with side.database.transaction():
        for table, columns in names.items():
            with (
                (folder / f"{table}.copy").open("rb") as stream,
                side.database.cursor().copy(f"COPY copy.{table} ({columns}) FROM STDIN".encode()) as copying,
            ):
                while block := stream.read(2**18):
                    copying.write(block)


def prepare_copy(side: Side) -> None:
    """Makes copies of the tables, with their indexes and foreign keys, whose ``search_vector`` PostgreSQL generates."""
    side.database.execute("CREATE SCHEMA copy")
    for table in ("conversations", "participants", "messages"):
        side.database.execute(f"CREATE TABLE copy.{table} (LIKE public.{table} INCLUDING ALL)".encode())
    key = "workspace_id, conversation_id"
    side.database.execute(
        f"""
        ALTER TABLE copy.conversations ADD FOREIGN KEY (workspace_id) REFERENCES workspaces ON DELETE CASCADE;
        ALTER TABLE copy.participants ADD FOREIGN KEY ({key}) REFERENCES copy.conversations ON DELETE CASCADE;
        ALTER TABLE copy.messages DROP COLUMN search_vector, ALTER COLUMN content TYPE text USING '',
            ADD FOREIGN KEY ({key}) REFERENCES copy.conversations ON DELETE CASCADE;
        ALTER TABLE copy.messages ADD COLUMN search_vector tsvector
            GENERATED ALWAYS AS (to_tsvector('pg_catalog.english', content)) STORED;
        CREATE INDEX ON copy.messages USING gin (search_vector);
        """.encode()
    )


def take_over(side: Side) -> None:
    """Stores what was copied in the yardstick's own tables."""
    for table in ("conversations", "participants"):
        side.database.execute(f"INSERT INTO {table} SELECT * FROM copy.{table}".encode())
    columns = "workspace_id, conversation_id, message_id, user_id, user_type, timestamp, sequence"
    side.database.execute(
        f"INSERT INTO messages ({columns}, content, search_vector)"
        f" SELECT {columns}, convert_to(content, 'UTF8'), search_vector FROM copy.messages".encode()
    )
    side.database.execute("SELECT setval('message_batches', (SELECT max(sequence) + 1 FROM messages))")
