"""Topics: what the viewer's conversations are about."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from app.db import Database, Unit
from app.errors import NotFound
from app.llm.local.text import clip
from app.llm.topics import TopicLabels
from app.schemas.topics import Range, TopicExample, TopicItem, TopicQuery, Topics
from app.schemas.viewer import Viewer
from app.security.encryption import MESSAGE, WorkspaceKeys
from app.services.topic_rounds import FEWEST, TopicRound, open_topics
from app.services.usage import UsageService
from app.services.workspaces import WorkspaceService

EXAMPLES = 3
SNIPPET_CHARACTERS = 160
TURNS = 20
"""After how many turns of each all workspaces are looked at anew: one that has always more to do holds up no other."""
RESTING = 10.0
"""How many times as long as looking at all workspaces takes is none looked at."""

_EVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class TopicService:
    """Topics of the viewer's conversations; ``keep_up`` is for workers."""

    def __init__(self, db: Database, workspaces: WorkspaceService, usage: UsageService, labels: TopicLabels) -> None:
        self._db = db
        self._workspaces = workspaces
        self._usage = usage
        self._labels = labels
        self._rests_until = 0.0

    async def report(self, viewer: Viewer, query: TopicQuery) -> Topics:
        """Returns the topics of a range of time, with examples."""
        wanted = query.since or _EVER[0], query.until or _EVER[1]
        keys = await self._workspaces.keys(viewer.workspace_id)
        async with self._db.read() as unit:
            found = await unit.topic_models.report(keys.workspace_id, FEWEST, wanted)
            if found is None:
                raise NotFound("The workspace is gone.")
            counts = await unit.topic_models.counts(keys.workspace_id, wanted)
            is_ready = found.topics is not None and found.conversations >= FEWEST
            topics = {topic.topic_id: topic for topic in open_topics(keys, found.topics)} if is_ready else {}
            shown = sorted(((counts.get(each, 0), each) for each in topics), key=lambda each: (-each[0], each[1]))
            shown = [(count, topic_id) for count, topic_id in shown if count]
            examples = await _examples(unit, keys, wanted, [topic_id for _, topic_id in shown])
        assigned = sum(count for count, _ in shown)
        return Topics(
            since=query.since,
            until=query.until,
            status="too_few" if found.conversations < FEWEST else "ready" if is_ready else "pending",
            conversations=sum(counts.values()) + found.not_read,
            assigned=assigned,
            updated_at=found.updated_at,
            data=[
                TopicItem(
                    topic_id=str(topic_id),
                    label=topics[topic_id].label or ", ".join(topics[topic_id].keywords[:3]),
                    keywords=topics[topic_id].keywords,
                    conversations=count,
                    share=round(count / assigned, 4),
                    examples=examples.get(topic_id, []),
                )
                for count, topic_id in shown
            ],
        )

    async def keep_up(self, stopping: asyncio.Event) -> None:
        """Brings the topics of every workspace up to date; what another worker is at is left to it."""
        now = asyncio.get_running_loop().time
        if now() < self._rests_until:
            return
        async with TopicRound(self._db, self._workspaces, self._usage, self._labels, stopping) as work:
            started = now()
            busy = [each.workspace_id for each in await self._workspaces.all() if await work.has(each.workspace_id)]
            self._rests_until = now() + RESTING * (now() - started)
            for _ in range(TURNS):
                busy = [workspace_id for workspace_id in busy if await work.on(workspace_id)]


async def _examples(
    unit: Unit, keys: WorkspaceKeys, wanted: Range, topic_ids: Sequence[int]
) -> dict[int, list[TopicExample]]:
    """Returns the conversations that are nearest to each topic, those that can be shown."""
    nearest = await unit.topic_models.examples(keys.workspace_id, wanted, topic_ids, EXAMPLES)
    snippets = {
        conversation_id: keys.conversation(conversation_id).open(MESSAGE, message_id, content)
        for conversation_id, message_id, content in await unit.topic_models.snippets(
            keys.workspace_id, [conversation_id for _, conversation_id in nearest]
        )
    }
    found: dict[int, list[TopicExample]] = {}
    for topic_id, conversation_id in nearest:
        if conversation_id in snippets:  # else it was deleted meanwhile
            snippet = clip(" ".join(snippets[conversation_id].split()), SNIPPET_CHARACTERS)
            found.setdefault(topic_id, []).append(TopicExample(conversation_id=conversation_id, snippet=snippet))
    return found
