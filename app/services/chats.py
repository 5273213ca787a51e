"""Storing, reading and deleting conversations."""

import hashlib
import hmac
import uuid
from collections.abc import Callable, Sequence, Set
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import orjson

from app import metrics
from app.db import Database, Unit
from app.errors import FieldError, MessageConflict, NotFound, Unavailable
from app.schemas.chats import ConversationPage, DeletedConversation, Message, MessageIn, Stored
from app.schemas.enums import Role
from app.schemas.rows import ConversationRow, NewMessage, SealedMessage
from app.schemas.search import MessageQuery
from app.schemas.viewer import Viewer
from app.security.blind_index import keyed_tsvector, search_pads
from app.security.cursors import CursorSigner, time_at
from app.security.encryption import MESSAGE, ConversationCipher, WorkspaceKeys
from app.services.audit import conversation_target
from app.services.auth import confirm
from app.services.notices import announce
from app.services.workspaces import WorkspaceService

PAGE_BYTES = 8 * 2**20
"""A page of messages ends early once its long ones hold this much text; all short ones together never do."""

BEFORE_ALL = (datetime.min.replace(tzinfo=UTC), -1)
CONFLICT = "A message with this id and other content is stored already."

stored, duplicated, rejected = (metrics.messages.labels(word).inc for word in ("stored", "duplicate", "rejected"))


class StoredBatch(NamedTuple):
    """What came of a batch: each message's id, and the places of duplicates and conflicts."""

    message_ids: list[str]
    duplicates: list[int]
    conflicts: list[int]


class Prepared(NamedTuple):
    """Messages with what their storing needs; ``rows`` has each once, and may leave out those that are known."""

    keys: WorkspaceKeys
    messages: Sequence[MessageIn]
    ids: list[str]
    ciphers: dict[str, ConversationCipher]
    first: dict[tuple[str, str], int]
    rows: list[NewMessage]


class ChatService:
    """Conversations and messages of the viewer's workspace."""

    def __init__(self, db: Database, workspaces: WorkspaceService, cursors: CursorSigner) -> None:
        self._db = db
        self._workspaces = workspaces
        self._cursors = cursors

    async def store(self, viewer: Viewer, messages: list[MessageIn], *, single: bool = False) -> Stored:
        """Stores all the messages or none; ``single`` says that the body was one message, not an array.

        Raises:
            MessageConflict: if an id is taken by another content.
        """
        keys = await self._workspaces.keys(viewer.workspace_id)
        # One message is one statement: it needs no transaction around it.
        async with self._db.write() if len(messages) > 1 else self._db.read() as unit:
            batch = await _store(unit, _prepared(keys, messages))
            if batch.conflicts:
                rejected(len(messages))
                pointers = ["/message_id" if single else f"/{place}/message_id" for place in batch.conflicts]
                errors = tuple(FieldError(pointer, MessageConflict.code, CONFLICT) for pointer in pointers[:100])
                raise MessageConflict(f"{CONFLICT} Nothing was stored.", errors)
        duplicates = len(batch.duplicates)
        stored(len(messages) - duplicates)
        if duplicates:
            duplicated(duplicates)
        return Stored(
            stored=len(messages) - duplicates,
            duplicates=duplicates,
            conversations=len({message.conversation_id for message in messages}),
            message_ids=batch.message_ids,
        )

    async def prepare_chunk(self, viewer: Viewer, messages: Sequence[MessageIn]) -> Prepared:
        """Does what a stream's chunk needs before it can be stored, while the one before it may still be."""
        keys = await self._workspaces.keys(viewer.workspace_id)
        prepared = _prepared(keys, messages)
        async with self._db.read() as unit:
            rows = await unit.messages.hashed(keys.workspace_id, prepared.rows, _keyed(keys))
        return prepared._replace(rows=rows)

    async def store_chunk(self, viewer: Viewer, prepared: Prepared) -> StoredBatch:
        """Stores what is new of a stream's chunk; conflicts are left out and told.

        Raises:
            Unauthenticated, Forbidden: if the viewer may not do so any more; a stream can outlast a revocation.
        """
        async with self._db.write() as unit:
            batch = await _store(unit, prepared)
            await confirm(unit, viewer, Role.EDITOR)
        stored(len(prepared.messages) - len(batch.duplicates) - len(batch.conflicts))
        duplicated(len(batch.duplicates))
        return batch

    async def conversation(self, viewer: Viewer, conversation_id: str) -> ConversationRow:
        """Returns what is known of a conversation; raises ``NotFound``."""
        async with self._db.read() as unit:
            found = await unit.chats.conversation(viewer.workspace_id, conversation_id)
        if found is None:
            raise NotFound("There is no such conversation.")
        return found

    async def page(
        self, viewer: Viewer, conversation_id: str, query: MessageQuery, known: Set[str] = frozenset()
    ) -> tuple[ConversationPage | None, str]:
        """Returns a conversation with a page of its messages, oldest first, unless its tag is a known one; and the tag.

        Raises:
            NotFound: if there is no such conversation.
        """
        context = ["messages", viewer.workspace_id, conversation_id]
        after = BEFORE_ALL
        if query.cursor:
            time, sequence = self._cursors.read(context, query.cursor)
            after = (time_at(time), sequence)
        keys = await self._workspaces.keys(viewer.workspace_id)
        async with self._db.read() as unit:
            row = await unit.chats.page(viewer.workspace_id, conversation_id, after, query.limit, PAGE_BYTES)
        if row is None:
            raise NotFound("There is no such conversation.")
        state = orjson.dumps([row.created_at, row.conversation, query.limit, query.cursor])
        tag = hashlib.sha256(state).hexdigest()[:32]
        if {tag, "*"} & known:
            return None, tag
        cipher = keys.conversation(conversation_id)
        last = (row.messages[-1].timestamp, row.messages[-1].sequence) if row.has_more else None
        return {
            **row.conversation,
            "messages": [opened(cipher, message) for message in row.messages],
            "has_more": row.has_more,
            "next_cursor": self._cursors.sign(context, last) if last else None,
        }, tag

    async def delete(self, viewer: Viewer, conversation_id: str) -> DeletedConversation:
        """Removes a conversation and everything derived from it; raises ``NotFound``."""
        keys = await self._workspaces.keys(viewer.workspace_id)
        target = {conversation_id: conversation_target(keys, conversation_id)}
        async with self._db.read() as unit:
            announce(unit, keys, target)  # who is cancelled from here on may have deleted it all the same
            deleted = await unit.chats.delete(viewer.caller, target)
            if not deleted.conversations:
                unit.topics.clear()
                raise NotFound("There is no such conversation.")
        return DeletedConversation(conversation_id=conversation_id, deleted=deleted)


def opened(cipher: ConversationCipher, message: SealedMessage) -> Message:
    """Returns a message with its text."""
    return {
        "message_id": message.message_id,
        "user_id": message.user_id,
        "user_type": message.user_type,
        "message_content": cipher.open(MESSAGE, message.message_id, message.content),
        "timestamp": message.timestamp,
    }


def identified(message: MessageIn, seed: bytes | None, place: int) -> MessageIn:
    """Returns a message with an id that follows from ``seed`` and its place, if it has none and there is a seed."""
    if message.message_id is not None or seed is None:
        return message
    digest = hmac.digest(seed, str(place).encode(), hashlib.sha256)
    return message.model_copy(update={"message_id": digest.hex()[:32]})


def _place(message: SealedMessage) -> tuple[datetime, int]:
    return message.timestamp, message.sequence


def _prepared(keys: WorkspaceKeys, messages: Sequence[MessageIn]) -> Prepared:
    now = datetime.now(UTC)
    ids = [message.message_id or uuid.uuid4().hex for message in messages]
    ciphers = {name: keys.conversation(name) for name in {message.conversation_id for message in messages}}
    first: dict[tuple[str, str], int] = {}
    for place, message in enumerate(messages):
        first.setdefault((message.conversation_id, ids[place]), place)
    rows = [_sealed(ciphers[key[0]], key[1], messages[place], now) for key, place in first.items()]
    return Prepared(keys, messages, ids, ciphers, first, rows)


def _keyed(keys: WorkspaceKeys) -> Callable[[str], str]:
    return partial(keyed_tsvector, keys.search_key)


async def _store(unit: Unit, prepared: Prepared) -> StoredBatch:
    keys, messages, ids, ciphers, first, rows = prepared
    announce(unit, keys, ciphers)  # who is cancelled from here on may have stored them all the same
    places = await unit.messages.insert(keys.workspace_id, rows, search_pads(keys.search_key), _keyed(keys))
    batch = StoredBatch(ids, [], [])
    if len(places) == len(messages):
        return batch
    stored = {rows[place][:2] for place in places}
    unit.topics.clear()
    announce(unit, keys, {conversation_id for conversation_id, _ in stored})
    known = await unit.messages.stored(keys.workspace_id, [key for key in first if key not in stored])
    if len(stored) + len(known) < len(first):
        raise Unavailable("A conversation was deleted while messages came for it. Send them again.")
    for place, message in enumerate(messages):
        key = message.conversation_id, ids[place]
        if key in stored and first[key] == place:
            continue
        earlier = messages[first[key]] if key in stored else _as_sent(key[0], opened(ciphers[key[0]], known[key]))
        (batch.duplicates if _same(message, earlier) else batch.conflicts).append(place)
    return batch


def _sealed(cipher: ConversationCipher, message_id: str, message: MessageIn, now: datetime) -> NewMessage:
    content = cipher.seal(MESSAGE, message_id, message.message_content)
    time = message.timestamp or now
    return NewMessage(
        message.conversation_id,
        message_id,
        message.user_id,
        message.user_type,
        time,
        content,
        message.message_content,
    )


def _as_sent(conversation_id: str, message: Message) -> MessageIn:
    return MessageIn.model_construct(conversation_id=conversation_id, **message)


def _same(sent: MessageIn, stored: MessageIn) -> bool:
    """Says whether a message is the stored one sent again; a time that was left out is no difference."""
    return (
        (sent.user_id, sent.user_type, sent.message_content)
        == (stored.user_id, stored.user_type, stored.message_content)
    ) and (sent.timestamp is None or stored.timestamp is None or sent.timestamp == stored.timestamp)
