"""What a worker does to keep topics up to date."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog
from cryptography.exceptions import InvalidTag
from pydantic import TypeAdapter

from app.db import Database, Unit
from app.errors import Unavailable
from app.llm.topics import LABELS, ReaderLost, Said, TopicLabels, TopicReader, topic_reader
from app.schemas.topic_rows import AssignedRow, TextRow, TopicModelRow
from app.schemas.topics import Assigned, Topic, TopicModel
from app.security.api_keys import random_id
from app.security.encryption import MESSAGE, WorkspaceKeys, seal, unseal
from app.services.usage import UsageService
from app.services.workspaces import WorkspaceService

FEWEST = 50
"""How many conversations a workspace has at the least that has topics."""
BATCH = 100
"""How many conversations are read at a time."""
BATCHES = 20
"""After how many of them it is another workspace's turn."""
SAMPLE_HALF = 1_000
"""From how many of the newest conversations, and of all, a model is made."""
STRAYS = 0.2
"""By how much more than double the usual part of what comes has no topic before there must be new ones."""
LEASE = timedelta(minutes=3)
"""For how long a worker that is not heard of keeps others away; reading a sample takes less."""
FAILED = timedelta(minutes=5)
"""How long a workspace is left alone whose topics could not be brought up to date: a try costs a sample's reading."""
DAY, WEEK, LABEL_AGAIN = timedelta(days=1), timedelta(days=7), timedelta(hours=1)
MODEL, TOPICS = "topic model", "topics"
WORKER = "worker"
"""Whose calls those for labels are."""

_topics = TypeAdapter(list[Topic])
_log = structlog.get_logger(__name__)

_Step = Callable[[WorkspaceKeys, int, TopicModelRow], Awaitable[None]]


class Replaced(Exception):
    """Another worker has taken over."""


class TopicRound:
    """A look at every workspace; the process that reads conversations runs once there is one to read."""

    def __init__(
        self,
        db: Database,
        workspaces: WorkspaceService,
        usage: UsageService,
        labels: TopicLabels,
        stopping: asyncio.Event,
    ) -> None:
        self._db = db
        self._workspaces = workspaces
        self._usage = usage
        self._labels = labels
        self._stopping = stopping
        self._opened = AsyncExitStack()
        self._reader: TopicReader | None = None
        self._in_use = 0
        """The claim whose model the process has."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def has(self, workspace_id: int) -> bool:
        """Says whether there is something to do in a workspace, and nobody does it."""
        async with self._db.read() as unit:
            state = await unit.topic_models.state(workspace_id, FEWEST)
        return bool(state and not state.is_claimed and self._step(state))

    async def on(self, workspace_id: int) -> bool:
        """Does a part of what there is to do; returns whether there may be more."""
        claim_id = random_id()
        if self._stopping.is_set():
            return False
        async with self._db.read() as unit:
            if not await unit.topic_models.claim(workspace_id, claim_id, LEASE):
                return False
        wait = timedelta()
        try:
            keys = await self._workspaces.keys(workspace_id)
            for turn in range(BATCHES):
                async with self._db.read() as unit:
                    state = await unit.topic_models.state(workspace_id, FEWEST)
                step = self._step(state, turn) if state and not self._stopping.is_set() else None
                if state is None or step is None:
                    return False
                await step(keys, claim_id, state)
            return True
        except Exception as error:  # noqa: BLE001 — the other workspaces' turn comes all the same
            wait = FAILED
            reason = str(error) if isinstance(error, ReaderLost) else ""
            _log.warning("topics_interrupted", error=type(error).__name__, reason=reason)
            await self._opened.aclose()
            self._reader = None
            return False
        finally:
            with suppress(Unavailable):
                async with self._db.read() as unit:
                    await unit.topic_models.release(workspace_id, claim_id, wait)

    def _step(self, state: TopicModelRow, turn: int = 0) -> _Step | None:
        """Returns what is to be done; of what can wait for each other, one after another."""
        if state.fitted_at is None:
            return self._fit if state.conversations >= FEWEST else None
        if state.conversations < FEWEST:
            return self._forget
        if _is_outdated(state, datetime.now(UTC)):
            return self._fit
        due: dict[_Step, bool] = {
            self._assign: state.is_waiting,
            self._settle: not state.is_waiting and state.new_total < 0,
            self._label: state.wants_labels and bool(self._labels),
            self._sweep: state.swept_through is not None,
        }
        steps = [step for step, is_due in due.items() if is_due]
        return steps[turn % len(steps)] if steps else None

    async def _fit(self, keys: WorkspaceKeys, claim_id: int, state: TopicModelRow) -> None:
        reader = await self._reading(keys, claim_id)
        async with self._db.read() as unit:
            ids = await unit.topic_models.sample(keys.workspace_id, SAMPLE_HALF)
        told: list[TextRow] = []
        for start in range(0, len(ids), BATCH):
            if self._stopping.is_set():
                return
            told += await self._tell(reader, keys, ids[start : start + BATCH])
        self._in_use = 0
        model, topics, assigned = await reader.fit()
        self._in_use = claim_id
        if state.sampled_left < state.sampled:
            topics = await self._unnamed(keys, topics)
        strays = sum(each.topic_id is None for each in assigned)
        rows = _rows(told, assigned)
        async with self._db.read() as unit:
            total, known = await unit.topic_models.totals(keys.workspace_id)
        async with self._writing(keys, claim_id) as unit:
            await unit.topic_models.forget_sample(keys.workspace_id, [row.conversation_id for row in rows])
            new, _strays = await unit.topic_models.assign(keys.workspace_id, rows, sampled=True)
            await unit.topic_models.fitted(
                keys.workspace_id,
                claim_id,
                LEASE,
                (_seal(keys, MODEL, model.model_dump_json()), _seal_topics(keys, topics)),
                (total, len(rows), strays),
                waiting=max(0, total - known - new),
                wants_labels=model.apart and any(map(_lacks_label, topics)),
            )
        _log.info("topics_found", topics=len(topics), conversations=len(rows))

    async def _assign(self, keys: WorkspaceKeys, claim_id: int, _: TopicModelRow) -> None:
        async with self._db.read() as unit:
            ids = await unit.topic_models.waiting(keys.workspace_id, BATCH)
        rows = await self._assigned(keys, claim_id, ids)
        async with self._writing(keys, claim_id) as unit:
            counts = await unit.topic_models.assign(keys.workspace_id, rows, sampled=False)
            await unit.topic_models.progress(keys.workspace_id, claim_id, LEASE, counts)

    async def _sweep(self, keys: WorkspaceKeys, claim_id: int, state: TopicModelRow) -> None:
        async with self._db.read() as unit:
            ids = await unit.topic_models.to_sweep(keys.workspace_id, BATCH, state.swept_through or "")
        rows = await self._assigned(keys, claim_id, ids)
        async with self._writing(keys, claim_id) as unit:
            await unit.topic_models.assign(keys.workspace_id, rows, sampled=False)
            through = ids[-1] if len(ids) == BATCH else None
            await unit.topic_models.progress(keys.workspace_id, claim_id, LEASE, swept=(True, through))

    async def _label(self, keys: WorkspaceKeys, claim_id: int, _: TopicModelRow) -> None:
        async with self._db.read() as unit:
            found = await unit.topic_models.model(keys.workspace_id)
        topics = open_topics(keys, found[1]) if found else []
        known = {topic.label for topic in topics}
        ledger = self._usage.ledger((keys.workspace_id, WORKER), LABELS.name)
        labels = await self._labels.of([topic for topic in topics if _lacks_label(topic)], ledger)
        for topic_id, label in (labels or {}).items():
            if label not in known:
                known.add(label)
                topics = [each.named(label) if each.topic_id == topic_id else each for each in topics]
        again = LABEL_AGAIN if labels is None else None  # what has no label that can be shown keeps its keywords
        async with self._writing(keys, claim_id) as unit:
            await unit.topic_models.labelled(keys.workspace_id, claim_id, _seal_topics(keys, topics), again)

    async def _unnamed(self, keys: WorkspaceKeys, topics: Sequence[Topic]) -> list[Topic]:
        """Returns new topics, those without label that have other words: the old ones may be of what was deleted."""
        async with self._db.read() as unit:
            found = await unit.topic_models.model(keys.workspace_id)
        before = {topic.topic_id: topic.keywords for topic in (open_topics(keys, found[1]) if found else [])}
        return [topic if before.get(topic.topic_id) == topic.keywords else topic.named("") for topic in topics]

    async def _settle(self, keys: WorkspaceKeys, claim_id: int, state: TopicModelRow) -> None:
        """Counts from now on what comes: those that were still to be read were deleted."""
        async with self._writing(keys, claim_id) as unit:
            await unit.topic_models.progress(keys.workspace_id, claim_id, LEASE, (-state.new_total, 0))

    async def _forget(self, keys: WorkspaceKeys, claim_id: int, _: TopicModelRow) -> None:
        async with self._writing(keys, claim_id) as unit:
            await unit.topic_models.forget(keys.workspace_id)

    async def _assigned(self, keys: WorkspaceKeys, claim_id: int, ids: Sequence[str]) -> list[AssignedRow]:
        reader = await self._reading(keys, claim_id)
        told = await self._tell(reader, keys, ids)
        return _rows(told, await reader.assign())

    async def _reading(self, keys: WorkspaceKeys, claim_id: int) -> TopicReader:
        """Returns the process, with the workspace's model if it has one."""
        if self._reader is None:
            self._reader, self._in_use = await self._opened.enter_async_context(topic_reader()), 0
        if self._in_use != claim_id:
            async with self._db.read() as unit:
                found = await unit.topic_models.model(keys.workspace_id)
            model = TopicModel.model_validate_json(_open(keys, MODEL, found[0])) if found else None
            await self._reader.use(model, open_topics(keys, found[1]) if found else [])
            self._in_use = claim_id
        return self._reader

    async def _tell(self, reader: TopicReader, keys: WorkspaceKeys, ids: Sequence[str]) -> list[TextRow]:
        async with self._db.read() as unit:
            rows = await unit.topic_models.texts(keys.workspace_id, ids)
        await reader.read(await asyncio.to_thread(lambda: [_said(keys, row) for row in rows]))
        return rows

    @asynccontextmanager
    async def _writing(self, keys: WorkspaceKeys, claim_id: int) -> AsyncIterator[Unit]:
        async with self._db.write() as unit:
            if not await unit.topic_models.hold(keys.workspace_id, claim_id):
                raise Replaced
            yield unit


def _is_outdated(state: TopicModelRow, now: datetime) -> bool:
    """Says whether a model is to be made anew: for what came, or because of what is gone."""
    assert state.fitted_at
    age, lost = now - state.fitted_at, state.sampled - state.sampled_left
    usual = state.strays / max(1, state.sampled)
    return (
        state.new_total >= state.fitted_total
        or lost > state.sampled / 10
        or (lost > 0 and age > DAY)
        or (state.new_total >= state.sampled / 10 and age > WEEK)
        or (state.new_total >= FEWEST and state.new_strays / state.new_total > 2 * usual + STRAYS)
    )


def _lacks_label(topic: Topic) -> bool:
    return bool(topic.keywords and not topic.label)


def _said(keys: WorkspaceKeys, row: TextRow) -> list[Said]:
    cipher = keys.conversation(row.conversation_id)
    said = []
    for message_id, user_id, user_type, content in row.messages:
        with suppress(InvalidTag):  # one that was changed at rest does not keep the others from having a topic
            said.append((user_id, user_type, cipher.open(MESSAGE, message_id, content)))
    return said


def _rows(told: Sequence[TextRow], assigned: Sequence[Assigned]) -> list[AssignedRow]:
    return [
        AssignedRow(row.conversation_id, row.created_at, row.message_count, *topic)
        for row, topic in zip(told, assigned, strict=True)
    ]


def _seal(keys: WorkspaceKeys, what: str, text: str) -> bytes:
    return seal(keys.topics_key, text.encode(), f"{what}\0{keys.workspace_id}".encode())


def _open(keys: WorkspaceKeys, what: str, blob: bytes) -> bytes:
    return unseal(keys.topics_key, blob, f"{what}\0{keys.workspace_id}".encode())


def _seal_topics(keys: WorkspaceKeys, topics: list[Topic]) -> bytes:
    return _seal(keys, TOPICS, _topics.dump_json(topics).decode())


def open_topics(keys: WorkspaceKeys, blob: bytes | None) -> list[Topic]:
    """Returns a workspace's topics, unsealed."""
    return _topics.validate_json(_open(keys, TOPICS, blob)) if blob else []
