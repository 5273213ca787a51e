"""Workspaces: whose data it is."""

from sqlalchemy import UniqueConstraint, true
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, BigId, CreatedAt


class Workspace(Base):
    """A company's or a person's own data, and the data key that its texts are under, wrapped.

    ``redact`` says whether a provider of models sees placeholders instead of addresses, numbers and ids.
    """

    __tablename__ = "workspaces"
    __table_args__ = (UniqueConstraint("name"),)

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    name: Mapped[str]
    master_key_id: Mapped[str]
    wrapped_key: Mapped[bytes]
    created_at: Mapped[CreatedAt]
    redact: Mapped[bool] = mapped_column(server_default=true())
