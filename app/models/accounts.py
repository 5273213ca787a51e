"""Who may come in: users, their roles in workspaces, API keys."""

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, BigId, CreatedAt, Time, one_of
from app.schemas.enums import Role


class User(Base):
    """A person who signs in, known by provider and the provider's own id."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("auth_provider", "provider_id"),)

    user_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    email: Mapped[str]
    name: Mapped[str | None]
    auth_provider: Mapped[str]
    provider_id: Mapped[str]
    created_at: Mapped[CreatedAt]
    last_login: Mapped[Time | None]


class Membership(Base):
    """A user's role in a workspace."""

    __tablename__ = "memberships"
    __table_args__ = (one_of("role", Role), Index(None, "user_id"))

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[BigId] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str]
    created_at: Mapped[CreatedAt]


class ApiKey(Base):
    """An API key; of the key itself only a keyed hash."""

    __tablename__ = "api_keys"
    __table_args__ = (one_of("role", Role),)

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    key_id: Mapped[BigId] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[str]
    digest: Mapped[bytes]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Time | None]
    last_used_at: Mapped[Time | None]
