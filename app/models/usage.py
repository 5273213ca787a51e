"""What models were asked, what it cost, and what it may cost."""

from datetime import date
from decimal import Decimal

from sqlalchemy import BigInteger, Date, ForeignKey, Identity, Index, Integer, Numeric, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, BigId, ClientId, CreatedAt, Time, of_conversation, one_of
from app.schemas.enums import BudgetPeriod

Money = Numeric(18, 9)


class AnalysisClaim(Base):
    """Who makes an analysis just now, on whatever instance; nobody else does until it is over."""

    __tablename__ = "analysis_claims"
    __table_args__ = (of_conversation(),)

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    conversation_id: Mapped[ClientId] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    claim_id: Mapped[int] = mapped_column(BigInteger)
    leased_until: Mapped[Time]


class ModelCall(Base):
    """A call of a provider, in US dollars; it stays when the conversation goes."""

    __tablename__ = "llm_calls"
    __table_args__ = (Index(None, "workspace_id", "created_at"),)

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    call_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    created_at: Mapped[CreatedAt]
    actor: Mapped[str]
    task: Mapped[str]
    model: Mapped[str]
    outcome: Mapped[str]
    prompt_tokens: Mapped[int] = mapped_column(Integer)
    completion_tokens: Mapped[int] = mapped_column(Integer)
    cached_tokens: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    cost_usd: Mapped[Decimal] = mapped_column(Money)
    latency_ms: Mapped[int] = mapped_column(Integer)


class Budget(Base):
    """What may be spent in a period by a workspace (scope ``workspace``) or by one actor."""

    __tablename__ = "budgets"
    __table_args__ = (one_of("period", BudgetPeriod),)

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    scope: Mapped[str] = mapped_column(primary_key=True)
    period: Mapped[str] = mapped_column(primary_key=True)
    limit_usd: Mapped[Decimal] = mapped_column(Money)


class Spending(Base):
    """What was spent or is reserved in a period that began on a day, in UTC."""

    __tablename__ = "spending"
    __table_args__ = (one_of("period", BudgetPeriod),)

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    scope: Mapped[str] = mapped_column(primary_key=True)
    period: Mapped[str] = mapped_column(primary_key=True)
    starts_on: Mapped[date] = mapped_column(Date, primary_key=True)
    spent_usd: Mapped[Decimal] = mapped_column(Money)
