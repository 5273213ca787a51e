"""Summaries and insights: the latest of each conversation."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, and_, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import AnalysisClaim, Conversation, Insight, Summary
from app.schemas.enums import Outcome, Sentiment
from app.schemas.rows import AnalysisRow, Labels

_TABLES: dict[str, type[Summary] | type[Insight]] = {"summary": Summary, "insights": Insight}
_PARTS = {
    "summary": ("summary", "action_items", "decisions", "questions", "keywords", "changes", "provenance"),
    "insights": ("details", "provenance"),
}


class AnalysisRepository:
    """The tables of summaries and insights; ``kind`` says which."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, kind: str, workspace_id: int, conversation_id: str) -> AnalysisRow | None:
        """Returns the analysis of a conversation; it is stale when the conversation's length is another by now."""
        table, parts = _TABLES[kind], _PARTS[kind]
        statement = (
            select(
                *(getattr(table, part) for part in parts),
                table.sentiment,
                table.outcome,
                table.messages_read,
                table.messages_total,
                (Conversation.message_count != table.messages_total).label("stale"),
                table.created_at,
                table.updated_at,
                table.through_sequence,
            )
            .select_from(table)
            .join(Conversation, _same_conversation(table, workspace_id, conversation_id))
        )
        row = (await self._connection.execute(statement)).one_or_none()
        if row is None:
            return None
        sealed, (sentiment, outcome, *rest) = row[: len(parts)], row[len(parts) :]
        return AnalysisRow(dict(zip(parts, sealed, strict=True)), Sentiment(sentiment), Outcome(outcome), *rest)

    async def claim(self, kind: str, workspace_id: int, conversation_id: str, claim_id: int, lease: timedelta) -> bool:
        """Makes nobody else make the analysis for a while; returns False if somebody does, or there is nothing."""
        here = select(
            Conversation.workspace_id,
            Conversation.conversation_id,
            literal(kind),
            literal(claim_id, BigInteger),
            func.now() + literal(lease),
        ).where(Conversation.workspace_id == workspace_id, Conversation.conversation_id == conversation_id)
        columns = ["workspace_id", "conversation_id", "kind", "claim_id", "leased_until"]
        statement = upsert(AnalysisClaim).from_select(columns, here)
        new = {name: statement.excluded[name] for name in ("claim_id", "leased_until")}
        statement = statement.on_conflict_do_update(
            index_elements=["workspace_id", "conversation_id", "kind"],
            set_=new,
            where=AnalysisClaim.leased_until < func.now(),
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def renew(self, kind: str, workspace_id: int, conversation_id: str, claim_id: int, lease: timedelta) -> None:
        """Keeps others away for longer, unless somebody else has begun."""
        statement = update(AnalysisClaim).where(
            AnalysisClaim.workspace_id == workspace_id,
            AnalysisClaim.conversation_id == conversation_id,
            AnalysisClaim.kind == kind,
            AnalysisClaim.claim_id == claim_id,
        )
        await self._connection.execute(statement.values(leased_until=func.now() + literal(lease)))

    async def release(self, kind: str, workspace_id: int, conversation_id: str, claim_id: int) -> bool:
        """Lets others make the analysis; returns False if it was not claimed under this number any more."""
        statement = delete(AnalysisClaim).where(
            AnalysisClaim.workspace_id == workspace_id,
            AnalysisClaim.conversation_id == conversation_id,
            AnalysisClaim.kind == kind,
            AnalysisClaim.claim_id == claim_id,
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def put(
        self,
        kind: str,
        workspace_id: int,
        conversation_id: str,
        *,
        made_at: datetime,
        parts: Mapping[str, bytes],
        messages_read: int,
        messages_total: int,
        through_sequence: int,
        labels: Labels,
    ) -> bool | None:
        """Stores an analysis of the conversation that was made at ``made_at``, and what it says of the conversation.

        Returns None, and stores nothing, if that conversation is gone. A result that read less than the stored one
        does not replace it: then it returns False.
        """
        table = _TABLES[kind]
        here = and_(
            Conversation.workspace_id == workspace_id,
            Conversation.conversation_id == conversation_id,
            Conversation.created_at == made_at,
        )
        found = await self._connection.execute(select(Conversation.created_at).where(here).with_for_update())
        if found.one_or_none() is None:
            return None
        values = {
            **parts,
            "sentiment": labels.sentiment,
            "outcome": labels.outcome,
            "messages_read": messages_read,
            "messages_total": messages_total,
            "through_sequence": through_sequence,
        }
        statement = upsert(table).values(workspace_id=workspace_id, conversation_id=conversation_id, **values)
        written = await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["workspace_id", "conversation_id"],
                set_={**values, "updated_at": func.clock_timestamp()},
                where=table.messages_total <= statement.excluded.messages_total,
            )
        )
        if written.rowcount:
            await self._connection.execute(update(Conversation).where(here).values(**labels._asdict()))
        return bool(written.rowcount)


def _same_conversation(
    table: type[Summary] | type[Insight], workspace_id: int, conversation_id: str
) -> ColumnElement[bool]:
    return and_(
        table.workspace_id == workspace_id,
        table.conversation_id == conversation_id,
        Conversation.workspace_id == table.workspace_id,
        Conversation.conversation_id == table.conversation_id,
    )
