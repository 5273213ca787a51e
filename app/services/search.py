"""Finding conversations, and deleting what was found."""

import math
from collections.abc import Sequence
from datetime import datetime

from cachetools import TTLCache

from app.db import Database, Unit
from app.errors import FieldError, Invalid, TooManyToDelete
from app.reads import Reads
from app.repositories.criteria import STEP, Criteria
from app.repositories.search import MATCHES_SHOWN, Places
from app.repositories.trends import FORGOTTEN_AT_ONCE
from app.schemas.chats import (
    Conversation,
    ConversationItem,
    ConversationList,
    DeletedConversations,
    DeletedRows,
    Match,
    NumberedConversationList,
)
from app.schemas.search import ConversationFilter, ConversationQuery, DeleteQuery, UserQuery
from app.schemas.viewer import RETENTION, Viewer
from app.security.blind_index import keyword_hash, search_pads
from app.security.cursors import CursorSigner, time_at
from app.security.encryption import MESSAGE, WorkspaceKeys
from app.services.audit import conversation_target
from app.services.notices import announce
from app.services.trends import TrendService
from app.services.workspaces import WorkspaceService

SNIPPET_CHARACTERS = 2_000_000
"""How much text the snippets of a page are looked for in: PostgreSQL takes a third of a second for a million."""

OPENED_AT_ONCE = 10
"""Of how many conversations the matches, at most a mebibyte each, are in memory together."""

EXPIRED_AT_ONCE, EXPIRED_MESSAGES = 500, 20_000
"""How many conversations go in one transaction because of their age, and how many messages, but for a longer one."""

KEPT = 1_000
"""How many conversations a sender has of whom it is remembered how many, and which place is where."""

KEPT_S = 4.0
"""For how long."""

KEPT_AT_MOST = 10_000_000
"""Of how many conversations, all senders together: of them, each 200th is in memory."""


class SearchService:
    """Conversations of the viewer's workspace by filter. What is shown may be behind; what is acted upon is not."""

    def __init__(
        self, db: Database, reads: Reads, workspaces: WorkspaceService, cursors: CursorSigner, trends: TrendService
    ) -> None:
        self._db = db
        self._reads = reads
        self._workspaces = workspaces
        self._cursors = cursors
        self._trends = trends
        self._places: TTLCache[Criteria, Places] = TTLCache(KEPT_AT_MOST, KEPT_S, getsizeof=lambda each: each.total)

    async def page(self, viewer: Viewer, query: ConversationQuery) -> ConversationList:
        """Returns a page of conversations, newest first."""
        wanted = ConversationFilter.of(query)
        context = ["conversations", viewer.workspace_id, wanted.model_dump_json()]
        after = None
        if query.cursor:
            time, conversation_id = self._cursors.read(context, query.cursor)
            after = time_at(time), conversation_id
        keys = await self._workspaces.keys(viewer.workspace_id)
        criteria = _criteria(keys, wanted)

        async def look(unit: Unit) -> tuple[list[Conversation], list[ConversationItem]]:
            found = await unit.search.page(criteria, after, query.limit + 1)
            return found, await _items(unit, keys, criteria, found[: query.limit])

        found, data = await self._reads.of(look)
        shown = found[: query.limit]
        has_more = len(found) > len(shown)
        position = [shown[-1]["last_message_at"], shown[-1]["conversation_id"]] if has_more else None
        return {
            "data": data,
            "has_more": has_more,
            "next_cursor": self._cursors.sign(context, position) if position else None,
        }

    async def history(self, viewer: Viewer, user_id: str, query: UserQuery) -> NumberedConversationList:
        """Returns a numbered page of a sender's conversations, newest first."""
        wanted = ConversationFilter.of(query, user_id=user_id)
        keys = await self._workspaces.keys(viewer.workspace_id)
        criteria = _criteria(keys, wanted)

        async def look(unit: Unit) -> tuple[Places, list[ConversationItem]]:
            mark, skip = divmod((query.page - 1) * query.limit, STEP)
            found: list[Conversation] = []
            if not mark:
                found = await unit.search.page(criteria, None, query.limit, skip)
                if len(found) < query.limit and (found or not skip):  # the last page tells how many there are
                    return Places(skip + len(found), []), await _items(unit, keys, criteria, found)
            places = self._places.get(criteria)
            if places is None:
                deep = query.page * query.limit > STEP
                places = Places(KEPT if deep else await unit.search.count(criteria), [])
                if places.total >= KEPT:
                    places = await unit.search.places(criteria, STEP)
                if KEPT <= places.total < KEPT_AT_MOST:
                    self._places[criteria] = places
            if 0 < mark <= len(places.marks):
                found = await unit.search.page(criteria, places.marks[mark - 1], query.limit, skip)
            return places, await _items(unit, keys, criteria, found)

        places, data = await self._reads.of(look)
        total, pages = places.total, math.ceil(places.total / query.limit)
        return {
            "data": data,
            "has_more": query.page < pages,
            "next_cursor": None,
            "page": query.page,
            "total": total,
            "pages": pages,
        }

    async def ids(self, viewer: Viewer, wanted: ConversationFilter, limit: int) -> list[str]:
        """Returns the ids of up to ``limit`` conversations that a filter lets through."""
        keys = await self._workspaces.keys(viewer.workspace_id)
        async with self._db.read() as unit:
            return await unit.search.ids(_criteria(keys, wanted), limit)

    async def delete(self, viewer: Viewer, query: DeleteQuery) -> DeletedConversations:
        """Removes the conversations that a filter lets through and everything derived from them.

        Raises:
            Invalid: if there is no filter.
            TooManyToDelete: if there are more than the caller allowed.
        """
        wanted = ConversationFilter.of(query)
        if wanted.is_empty():
            detail = "Name at least one filter: deleting everything by accident would be too easy."
            raise Invalid(detail, (FieldError("", "missing_filter", detail),))
        keys = await self._workspaces.keys(viewer.workspace_id)
        async with self._db.write() as unit:
            ids = await unit.search.ids(_criteria(keys, wanted), query.max_delete_count + 1)
            if len(ids) > query.max_delete_count:
                detail = "More conversations match than max_delete_count allows. Nothing was deleted."
                raise TooManyToDelete(detail, (FieldError("max_delete_count", TooManyToDelete.code, detail),))
            filters = sorted(name for name, value in wanted if value is not None)
            deleted = await _delete(unit, keys, viewer.caller, ids, filters=filters)
        if deleted.conversations > FORGOTTEN_AT_ONCE:
            self._trends.fold_soon(keys.workspace_id)
        return DeletedConversations(deleted=deleted)

    async def expire(self, workspace_id: int, before: datetime) -> int:
        """Removes some of the conversations whose last message is older than a time; returns how many."""
        keys = await self._workspaces.keys(workspace_id)
        async with self._db.write() as unit:
            ids = await unit.search.expired(workspace_id, before, EXPIRED_AT_ONCE, EXPIRED_MESSAGES)
            if ids:
                await _delete(unit, keys, (workspace_id, RETENTION), ids, before=before)
        return len(ids)


async def _delete(
    unit: Unit, keys: WorkspaceKeys, caller: tuple[int, str], ids: Sequence[str], **details: object
) -> DeletedRows:
    """Removes conversations and everything derived from them; the audit log gets the details."""
    targets = {conversation_id: conversation_target(keys, conversation_id) for conversation_id in ids}
    deleted = await unit.chats.delete(caller, targets, details)
    announce(unit, keys, ids)
    return deleted


def _criteria(keys: WorkspaceKeys, wanted: ConversationFilter) -> Criteria:
    keyword = keyword_hash(keys.search_key, wanted.keyword) if wanted.keyword is not None else None
    return Criteria(keys.workspace_id, wanted, search_pads(keys.search_key), keyword)


async def _items(
    unit: Unit, keys: WorkspaceKeys, criteria: Criteria, shown: Sequence[Conversation]
) -> list[ConversationItem]:
    q = criteria.filter.q
    if q is None:
        return [{**conversation, "matches": None} for conversation in shown]
    longest = SNIPPET_CHARACTERS // (MATCHES_SHOWN * max(len(shown), 1))
    matches: list[tuple[str, str]] = []
    texts: list[str] = []
    for start in range(0, len(shown), OPENED_AT_ONCE):
        names = [conversation["conversation_id"] for conversation in shown[start : start + OPENED_AT_ONCE]]
        for name, messages in (await unit.search.matches(criteria, names)).items():
            cipher = keys.conversation(name)
            matches += [(name, message.message_id) for message in messages]
            texts += [cipher.open(MESSAGE, message.message_id, message.content)[:longest] for message in messages]
    snippets: dict[str, list[Match]] = {}
    for (name, message_id), snippet in zip(matches, await unit.search.snippets(q, texts), strict=True):
        snippets.setdefault(name, []).append({"message_id": message_id, "snippet": snippet})
    return [{**item, "matches": snippets.get(item["conversation_id"], [])} for item in shown]
