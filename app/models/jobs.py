"""Jobs: many conversations to be summarised, one after another."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Text,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, BigId, ClientId, CreatedAt, Time, of_conversation, one_of
from app.schemas.enums import ItemState, JobStatus


class Job(Base):
    """A job, who asked for it, and how far it is.

    ``absent`` are ids of no conversation, the first 100; they go with conversations that come by such an id later.

    ``run_id`` is of the worker's run that may write: a new one ends what an earlier one may do.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        one_of("status", JobStatus),
        Index(None, "workspace_id", "finished_at"),
        Index(None, "absent", postgresql_using="gin", postgresql_where=text("absent <> '{}'")),
    )

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    job_id: Mapped[BigId] = mapped_column(primary_key=True)
    requested_by: Mapped[str]
    force: Mapped[bool] = mapped_column(Boolean)
    batch: Mapped[bool] = mapped_column(Boolean, server_default=false())
    status: Mapped[str]
    run_id: Mapped[int | None] = mapped_column(BigInteger)
    total: Mapped[int] = mapped_column(Integer)
    done: Mapped[int] = mapped_column(Integer)
    failed: Mapped[int] = mapped_column(Integer)
    absent: Mapped[list[str]] = mapped_column(ARRAY(Text))
    cost_usd: Mapped[float] = mapped_column(Double)
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[Time | None]


class JobItem(Base):
    """A conversation of a job; it goes with the conversation. ``error`` is a stable code."""

    __tablename__ = "job_items"
    __table_args__ = (
        one_of("state", ItemState),
        ForeignKeyConstraint(["workspace_id", "job_id"], ["jobs.workspace_id", "jobs.job_id"], ondelete="CASCADE"),
        of_conversation(),
        Index(None, "workspace_id", "conversation_id"),
        Index(
            "job_items_open_idx",
            *("workspace_id", "job_id", "attempts", "conversation_id"),
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
    )

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    job_id: Mapped[BigId] = mapped_column(primary_key=True)
    conversation_id: Mapped[ClientId] = mapped_column(primary_key=True)
    state: Mapped[str]
    attempts: Mapped[int] = mapped_column(Integer)
    started_at: Mapped[Time | None]
    error: Mapped[str | None]
