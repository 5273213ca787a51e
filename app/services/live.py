"""Following a conversation: what is stored by anyone, on any instance, told in order, once each.

A message is known by its ``sequence``. Those who write at the same time may be committed in another order than they
were numbered in, so a feed remembers the last numbers it has told, and looks behind the lowest of them. What comes
later still shows in the conversation's count: then the feed begins anew, with a snapshot.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

from app.bus import Bus, Subscription
from app.db import Database
from app.errors import NotFound, Unavailable
from app.schemas.analyses import AnalysisRequest, Summary
from app.schemas.chats import Message
from app.schemas.enums import Role
from app.schemas.live import ConversationDeleted, Event, NewMessage, Snapshot, SummaryUpdated
from app.schemas.rows import LiveRow, LiveVersion
from app.schemas.viewer import Viewer
from app.security.encryption import ConversationCipher
from app.services.auth import AuthService, Door, confirm
from app.services.chats import opened
from app.services.notices import topic
from app.services.summaries import SummaryService
from app.services.workspaces import WorkspaceService
from app.services.writing import Reader

QUIET_S = 2.0
"""How long no message may come before the summary is refreshed."""
READ_AT_ONCE = 100
READ_BYTES = 2**20
REMEMBERED = 256
"""How many numbers of messages a feed remembers; more than it reads at once."""
READERS = 4
"""How many feeds read at the same time: a notice to hundreds leaves connections to the requests."""
RETRY_S = 1.0
"""How long after a failure a feed looks again, if nothing wakes it before."""
WATCH_S = 3.5
"""How often credentials are looked at, and whether a notice was missed; a revocation acts within five seconds."""


class LiveService:
    """Live views of the viewer's conversations."""

    def __init__(
        self, db: Database, bus: Bus, auth: AuthService, workspaces: WorkspaceService, summaries: SummaryService
    ) -> None:
        self.db = db
        self.bus = bus
        self.summaries = summaries
        self.readers = asyncio.Semaphore(READERS)
        self._auth = auth
        self._workspaces = workspaces
        self._watched: dict[asyncio.Future[None], _Watched] = {}
        self._watching: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self, viewer: Viewer, conversation_id: str, on_quiet: Callable[[], None]) -> AsyncIterator["Feed"]:
        """Yields a feed of a conversation.

        Raises:
            Unauthenticated, Forbidden: if the viewer, believed for some seconds, may not read any more.
        """
        async with self.db.read() as unit:
            await confirm(unit, viewer, Role.VIEWER)
        keys = await self._workspaces.keys(viewer.workspace_id)
        written = asyncio.Event()
        with (
            self.bus.subscribe(topic(keys, conversation_id)) as subscription,
            self.summaries.writings.watch((viewer.workspace_id, conversation_id), written.set) as text,
        ):
            feed = Feed(self, viewer, keys.conversation(conversation_id), subscription, text, written, on_quiet)
            try:
                yield feed
            finally:
                feed.close()

    async def watch(self, viewer: Viewer, door: Door, credential: str, feed: "Feed | None" = None) -> None:
        """Returns when a viewer's credential is over; wakes the feed, if there is one, whom a notice did not reach."""
        over = asyncio.get_running_loop().create_future()
        self._watched[over] = _Watched(viewer, door, credential, feed)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch_all())
        try:
            await over
        finally:
            del self._watched[over]
            if not self._watched and self._watching:
                self._watching.cancel()
                self._watching = None

    async def _watch_all(self) -> None:
        """Looks at everybody's together: one by one, hundreds of idle readers would keep the database busy."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self._look_at_all()
            except Exception as error:  # noqa: BLE001 — nobody goes on unwatched
                for over in self._watched:
                    if not over.done():
                        over.set_exception(error)
                return

    async def _look_at_all(self) -> None:
        by_workspace: defaultdict[int, list[_Watched]] = defaultdict(list)
        for each in self._watched.values():
            by_workspace[each.viewer.workspace_id].append(each)
        for workspace_id, watched in by_workspace.items():
            feeds = [each.feed for each in watched if each.feed]
            try:
                async with self.db.read() as unit:
                    gone = await unit.auth.gone(workspace_id, {each.viewer for each in watched})
                    versions = await unit.live.versions(workspace_id, {feed.conversation_id for feed in feeds})
            except Unavailable:
                continue  # nothing is told meanwhile either
            for over, each in self._watched.items():
                if each.viewer in gone and not over.done():
                    over.set_result(None)
            for feed in feeds:
                feed.compare(versions.get(feed.conversation_id))
        for over, each in self._watched.items():
            if not over.done() and self._auth.expired(each.door, each.credential):
                over.set_result(None)


class _Watched(NamedTuple):
    """Who is watched."""

    viewer: Viewer
    door: Door
    credential: str
    feed: "Feed | None"


class Feed:
    """One reader's view of a conversation; ``on_quiet`` is called when no message has come for a while after some."""

    def __init__(
        self,
        live: LiveService,
        viewer: Viewer,
        cipher: ConversationCipher,
        subscription: Subscription,
        text: Reader,
        written: asyncio.Event,
        on_quiet: Callable[[], None],
    ) -> None:
        self._live = live
        self._text = text
        self._written = written
        self._viewer = viewer
        self._cipher = cipher
        self.conversation_id = cipher.conversation_id
        self._subscription = subscription
        self._on_quiet = on_quiet
        self._told: list[int] = []
        self._floor = -1
        self._count = 0
        self._created_at: datetime | None = None
        self._summarised_at: datetime | None = None
        self._repeat = False
        self._interrupted = False
        self._timer: asyncio.TimerHandle | None = None

    async def snapshot(self) -> Snapshot:
        """Returns the conversation as it is, and tells from there on; raises ``NotFound``."""
        async with self._live.readers, self._live.db.read() as unit:
            found = await unit.live.newest(
                self._viewer.workspace_id, self.conversation_id, READ_AT_ONCE, READ_BYTES, REMEMBERED + 1
            )
        if found is None or self._created_at not in (None, found[0].created_at):
            raise NotFound("There is no such conversation.")
        row, sequences = found
        # First of all: what counts as told before something fails is never told.
        summary = await self._summary() if row.summarised_at else None
        self._told, self._floor = sequences[:REMEMBERED], max(sequences[REMEMBERED:], default=-1)
        self._count, self._created_at = row.conversation["message_count"], row.created_at
        return Snapshot(conversation=row.conversation, messages=self._opened(row), summary=summary)

    async def news(self) -> list[Event | Unavailable]:
        """Waits until there may be something new and returns it; ``Unavailable`` is said once an interruption."""
        if not await self._woken():
            return list[Event | Unavailable](self._text.news())
        interrupted, events = self._live.bus.interrupted, list[Event | Unavailable](self._text.news())
        try:
            events += await self._look()
        except Unavailable:
            interrupted = True
            asyncio.get_running_loop().call_later(RETRY_S, self._subscription.wake)
        if interrupted and not self._interrupted:
            events.append(Unavailable("The database is not available. What happens meanwhile is told later."))
        self._interrupted = interrupted
        return events

    def compare(self, version: LiveVersion | None) -> None:
        """Wakes the feed if a conversation of this version is not what it has told."""
        if version != (self._created_at, self._count, self._summarised_at):
            self._subscription.wake()

    async def _woken(self) -> bool:
        """Waits until there may be something new; returns False if it is only a summary that is being written."""
        waiting = [asyncio.ensure_future(each.wait()) for each in (self._subscription, self._written)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
        self._written.clear()
        return waiting[0].done()

    async def summarize(self, viewer: Viewer, request: AnalysisRequest) -> None:
        """Sees to it that the summary is fresh, and told if it was already."""
        known = self._summarised_at
        made = await self._live.summaries.make(viewer, request)
        self._repeat = made.updated_at == known
        self._subscription.wake()

    def wait_for_quiet(self) -> None:
        """Begins to wait anew until no message comes for a while."""
        self.close()
        self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._on_quiet)

    def close(self) -> None:
        """Waits for quiet no more."""
        if self._timer:
            self._timer.cancel()

    async def _look(self) -> list[Event]:
        known = self._floor, self._told
        async with self._live.readers, self._live.db.read() as unit:
            row = await unit.live.new(self._viewer.workspace_id, self.conversation_id, READ_AT_ONCE, READ_BYTES, *known)
        if row is None or row.created_at != self._created_at:
            return [ConversationDeleted()]
        count = self._count + len(row.messages)
        if count != row.conversation["message_count"] and not row.messages:
            return await self._anew()
        # First of all: what counts as told before something fails is never told.
        renewed = row.summarised_at and (self._repeat or row.summarised_at != self._summarised_at)
        summary = await self._summary() if renewed else None
        events: list[Event] = [NewMessage(message=message) for message in self._opened(row)]
        if row.messages:
            ordered = sorted([*self._told, *(message.sequence for message in row.messages)])
            self._told, self._floor = ordered[-REMEMBERED:], max([self._floor, *ordered[:-REMEMBERED]])
            self._count = count
            self.wait_for_quiet()
        if count != row.conversation["message_count"]:
            self._subscription.wake()  # there are more
        if renewed:
            self._repeat = False
        if summary:
            events += [*self._text.finish(summary.summary), SummaryUpdated(summary=summary)]
        return events

    async def _anew(self) -> list[Event]:
        self.wait_for_quiet()
        known = self._summarised_at
        try:
            snapshot = await self.snapshot()
        except NotFound:
            return [ConversationDeleted()]
        new = snapshot.summary if self._summarised_at != known else None
        return [*(self._text.finish(new.summary) if new else []), snapshot]

    async def _summary(self) -> Summary | None:
        try:
            found = await self._live.summaries.get(self._viewer, self.conversation_id)
        except NotFound:
            return None
        self._summarised_at = found.updated_at
        return found

    def _opened(self, row: LiveRow) -> list[Message]:
        return [opened(self._cipher, message) for message in row.messages]
