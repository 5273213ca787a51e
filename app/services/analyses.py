"""Summaries and insights: asked of a model once, kept sealed, and said to be stale when the conversation goes on."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeGuard, TypeVar

from pydantic import TypeAdapter

from app.db import Database
from app.errors import NotFound, Problem, Unavailable
from app.llm.gateway import Answer, Gateway, Update
from app.llm.streaming import Listener
from app.llm.tasks import Task
from app.metrics import analyses
from app.schemas.analyses import AnalysisRequest, Coverage, Insights, InsightsBody, Provenance, Summary, SummaryBody
from app.schemas.drafts import Draft, Turn
from app.schemas.enums import Outcome, Role, Sentiment, WebhookEvent
from app.schemas.rows import AnalysisRow, ConversationRow, Labels, SealedMessage
from app.schemas.viewer import Viewer
from app.security.blind_index import keyword_hash
from app.security.encryption import MESSAGE, WorkspaceKeys
from app.services.auth import confirm
from app.services.claims import Claims
from app.services.notices import announce
from app.services.usage import UsageService
from app.services.workspaces import WorkspaceService

HEAD_BYTES = 2**20
TAIL_BYTES = 3 * 2**20
"""How much of a conversation's ends is read at the most; what lies between them is told in the coverage.

Placeholders and the built-in engine take so much together in less than half of the default deadline.
"""

POLL_S = 0.2
"""When a conversation that somebody else is reading is looked at again."""
LATE_S = 2.0
"""By how much an answer may come after the deadline."""

D = TypeVar("D", bound=Draft)
B = TypeVar("B", SummaryBody, InsightsBody)
R = TypeVar("R", Summary, Insights)

_json: TypeAdapter[Any] = TypeAdapter(Any)


@dataclass(frozen=True, slots=True)
class _Reading(Generic[B, D]):
    """A conversation as it was when it was read: ``through`` is the last message's sequence."""

    keys: WorkspaceKeys
    found: ConversationRow
    turns: list[Turn]
    through: int
    redact: bool
    before: B | None
    update: Update[D] | None


class AnalysisService(ABC, Generic[D, B, R]):
    """What summaries and insights share; a subclass says what is asked, what is checked and what is kept."""

    kind: str
    task: Task[D]
    result: type[R]

    def __init__(self, db: Database, workspaces: WorkspaceService, usage: UsageService, gateway: Gateway) -> None:
        self._db = db
        self._workspaces = workspaces
        self._usage = usage
        self._gateway = gateway
        self._claims = Claims(db)
        self._running: dict[tuple[int, str], asyncio.Task[None]] = {}

    @abstractmethod
    def _check(self, draft: D, turns: Sequence[Turn], before: B | None) -> B:
        """Returns what is kept of a draft; ``before`` is what it was made from, if not from the whole conversation."""

    def _earlier(self, row: AnalysisRow, unseal: Any) -> tuple[B, D] | None:
        """Returns what was kept, and that as a draft, if a model can bring it up to date."""
        return None

    @abstractmethod
    def _parts(self, body: B) -> dict[str, Any]:
        """Returns what is sealed, by column."""

    @abstractmethod
    def _body(self, parts: Mapping[str, Any], sentiment: Sentiment, outcome: Outcome) -> B:
        """Returns what was kept."""

    @abstractmethod
    def _labels(self, body: B) -> tuple[Sentiment, Outcome, list[str]]:
        """Returns sentiment, outcome and keywords."""

    @abstractmethod
    def _events(self, body: B) -> dict[WebhookEvent, dict[str, object]]:
        """Returns what webhooks are told of a stored result besides the conversation's id; no text."""

    def _writing(self, workspace_id: int, conversation_id: str) -> AbstractContextManager[Listener | None]:
        """Returns who is told what a model writes."""
        return nullcontext()

    async def get(self, viewer: Viewer, conversation_id: str) -> R:
        """Returns what is stored; raises ``NotFound`` if nothing was made."""
        found = await self._stored(viewer.workspace_id, conversation_id)
        if found is None:
            raise NotFound(f"There is no such conversation, or no {self.kind} was made of it.")
        return found

    async def make(self, viewer: Viewer, request: AnalysisRequest) -> R:
        """Returns what is stored if nothing changed since, otherwise what a model says now.

        Everybody who asks at the same time, on any instance, waits for one run, which outlives those who leave.

        Raises:
            NotFound: if the conversation does not exist, or was deleted meanwhile.
            Unauthenticated, Forbidden: if the viewer may not ask any more.
        """
        found = await self._stored(viewer.workspace_id, request.conversation_id)
        if found and not found.stale and not request.force:
            analyses.labels(self.task.name, "stored").inc()
            return found
        known = found.updated_at if found and request.force else None
        made = await self._made(viewer, request.conversation_id, known)
        async with self._db.read() as unit:
            await confirm(unit, viewer, Role.EDITOR)
        return made

    async def _made(self, viewer: Viewer, conversation_id: str, known: datetime | None) -> R:
        """Returns an analysis of all the messages that are there now, and not the ``known`` one again."""
        key = viewer.workspace_id, conversation_id
        ends_at = asyncio.get_running_loop().time() + self._gateway.deadline_s
        if earlier := self._running.get(key):
            # What it makes is good enough, unless it had begun before a message that this request is to see.
            with suppress(Problem):
                await asyncio.shield(earlier)
        # The first of those who waited begins the next run: what is left of its deadline is the least.
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.create_task(self._make(viewer, conversation_id, known, ends_at))
            running.add_done_callback(lambda done: self._ended(key, done))
        await asyncio.shield(running)
        return await self.get(viewer, conversation_id)

    def _ended(self, key: tuple[int, str], run: asyncio.Task[None]) -> None:
        self._running.pop(key, None)
        # Whoever waited may have left; asyncio complains of an error that nobody looks at.
        if not run.cancelled():
            run.exception()

    def _is_new(self, found: R | None, known: datetime | None) -> TypeGuard[R]:
        return found is not None and not found.stale and found.updated_at != known

    async def _make(self, viewer: Viewer, conversation_id: str, known: datetime | None, ends_at: float) -> None:
        while True:
            async with self._claims.tried(self.kind, viewer.workspace_id, conversation_id) as claim_id:
                # Somebody else may have been quicker: before the claim, or the one who has it.
                if self._is_new(await self._stored(viewer.workspace_id, conversation_id), known):
                    return
                if claim_id is not None and await self._ask(
                    viewer, conversation_id, claim_id, anew=known is not None, ends_at=ends_at
                ):
                    return
            if claim_id is None:
                if asyncio.get_running_loop().time() > ends_at + LATE_S:
                    raise Unavailable("The conversation is still being read for somebody else.")
                await asyncio.sleep(POLL_S)

    async def _ask(self, viewer: Viewer, conversation_id: str, claim_id: int, *, anew: bool, ends_at: float) -> bool:
        """Asks the models and stores what they say; returns False if that took longer than the lease.

        ``anew`` is about the whole conversation, otherwise what is new may be enough.
        """
        reading = await self._read(viewer.workspace_id, conversation_id, anew=anew)
        with self._writing(viewer.workspace_id, conversation_id) as listener:
            answer = await self._gateway.answer(
                self.task,
                reading.turns,
                self._usage.ledger(viewer.caller, self.task.name),
                reading.update,
                redact=reading.redact,
                conversation_id=conversation_id,
                listener=listener,
                ends_at=ends_at,
            )
            return await self._keep(reading, answer, claim_id)

    async def _read(self, workspace_id: int, conversation_id: str, *, anew: bool) -> "_Reading[B, D]":
        keys = await self._workspaces.keys(workspace_id)
        cipher = keys.conversation(conversation_id)
        redact = await self._workspaces.redacts(workspace_id)
        async with self._db.read() as unit:
            # The count first: a message that comes in between makes the result stale, never silently incomplete.
            found = await unit.chats.conversation(workspace_id, conversation_id)
            if found is None:
                raise NotFound("There is no such conversation.")
            sealed = await unit.chats.both_ends(workspace_id, conversation_id, HEAD_BYTES, TAIL_BYTES)
            row = None if anew else await unit.analyses.get(self.kind, workspace_id, conversation_id)
        if not sealed:
            raise NotFound("The conversation was deleted meanwhile.")
        turns = await asyncio.to_thread(_opened_turns, sealed, cipher.open)
        total = found.conversation["message_count"]
        new = [place for place, message in enumerate(sealed) if row and message.sequence > (row.through_sequence or 0)]
        # Made from what was said before only if that read all of the rest.
        grown = row is not None and row.messages_read == row.messages_total == total - len(new)
        earlier = self._earlier(row, cipher.open) if row and grown and len(new) < len(sealed) / 2 else None
        return _Reading(
            keys=keys,
            found=found,
            turns=turns,
            through=max(message.sequence for message in sealed),
            redact=redact,
            before=earlier[0] if earlier else None,
            update=Update(earlier[1], [turns[place] for place in new]) if earlier else None,
        )

    async def _keep(self, reading: "_Reading[B, D]", answer: Answer[D], claim_id: int) -> bool:
        """Stores an answer; returns False if somebody else has the claim by now.

        Raises:
            NotFound: if the conversation was deleted meanwhile.
        """
        keys, found = reading.keys, reading.found
        place = self.kind, keys.workspace_id, found.conversation["conversation_id"]
        cipher = keys.conversation(found.conversation["conversation_id"])
        body = await asyncio.to_thread(
            self._check, answer.draft, reading.turns, reading.before if answer.updated else None
        )
        sentiment, outcome, keywords = self._labels(body)
        hashes = (keyword_hash(keys.search_key, word) for word in keywords)
        parts = {**self._parts(body), "provenance": answer.provenance.model_dump(mode="json")}
        async with self._db.write() as unit:
            if not await unit.analyses.release(*place, claim_id):
                now = await unit.chats.conversation(*place[1:])
                if now is None or now.created_at != found.created_at:
                    raise NotFound("The conversation was deleted meanwhile.")
                return False
            total = found.conversation["message_count"]
            kept = await unit.analyses.put(
                *place,
                made_at=found.created_at,
                parts={
                    name: cipher.seal(self.kind, name, _json.dump_json(part).decode()) for name, part in parts.items()
                },
                messages_read=min(answer.messages_read, total),
                messages_total=total,
                through_sequence=reading.through,
                labels=Labels(sentiment, outcome, list(dict.fromkeys(hashes))),
            )
            if kept:
                await unit.webhooks.tell(*place[1:], self._events(body))
            announce(unit, keys, [place[2]])
        if kept is None:
            raise NotFound("The conversation was deleted meanwhile.")
        return True

    async def _stored(self, workspace_id: int, conversation_id: str) -> R | None:
        async with self._db.read() as unit:
            row = await unit.analyses.get(self.kind, workspace_id, conversation_id)
        if row is None:
            return None
        keys = await self._workspaces.keys(workspace_id)
        return self._opened(conversation_id, row, keys.conversation(conversation_id).open)

    def _opened(self, conversation_id: str, row: AnalysisRow, unseal: Any) -> R:
        parts = self._unsealed(row, unseal)
        body = self._body(parts, row.sentiment, row.outcome)
        return self.result(
            **dict(body),
            conversation_id=conversation_id,
            coverage=Coverage(
                messages_read=row.messages_read,
                messages_total=row.messages_total,
                complete=row.messages_read == row.messages_total,
            ),
            provenance=Provenance.model_validate(parts["provenance"]),
            stale=row.stale,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    def _unsealed(self, row: AnalysisRow, unseal: Any) -> dict[str, Any]:
        return {name: _json.validate_json(unseal(self.kind, name, blob)) for name, blob in row.parts.items() if blob}


def _opened_turns(sealed: Sequence[SealedMessage], unseal: Any) -> list[Turn]:
    return [
        Turn.model_construct(
            message_id=message.message_id,
            user_id=message.user_id,
            user_type=message.user_type,
            timestamp=message.timestamp,
            text=unseal(MESSAGE, message.message_id, message.content),
        )
        for message in sealed
    ]
