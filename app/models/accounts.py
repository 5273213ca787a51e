"""Who may come in: users, their roles in workspaces, API keys, sessions."""

from datetime import timedelta

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, ForeignKeyConstraint, Identity, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, BigId, CreatedAt, Time, one_of
from app.schemas.enums import Role


class User(Base):
    """A person who signs in, known by the provider's issuer and its own id of them."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("issuer", "provider_id"),)

    user_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    email: Mapped[str]
    name: Mapped[str | None]
    auth_provider: Mapped[str]
    issuer: Mapped[str]
    provider_id: Mapped[str]
    created_at: Mapped[CreatedAt]
    last_login: Mapped[Time | None]


class Membership(Base):
    """A user's role in a workspace; without a user it is an invitation of whoever proves to have the e-mail address."""

    __tablename__ = "memberships"
    __table_args__ = (
        one_of("role", Role),
        CheckConstraint("(user_id IS NULL) <> (invited_email IS NULL)", name="user_or_invitation"),
        UniqueConstraint("workspace_id", "user_id"),
        UniqueConstraint("workspace_id", "invited_email"),
        Index(None, "user_id"),
        Index(None, "invited_email"),
        Index(None, "workspace_id", "created_at", "member_id"),
    )

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    member_id: Mapped[BigId] = mapped_column(primary_key=True)
    user_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("users.user_id", ondelete="CASCADE"))
    invited_email: Mapped[str | None]
    role: Mapped[str]
    created_at: Mapped[CreatedAt]
    joined_at: Mapped[Time | None]


def _of_member() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["workspace_id", "member_id"], ["memberships.workspace_id", "memberships.member_id"], ondelete="CASCADE"
    )


class ApiKey(Base):
    """An API key; of the key itself only a keyed hash. It goes with the member who made it, if one did.

    ``lifetime`` is what it was made with, and its replacement gets.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        one_of("role", Role),
        _of_member(),
        Index(None, "workspace_id", "member_id"),
        Index(None, "workspace_id", "created_at", "key_id"),
    )

    workspace_id: Mapped[BigId] = mapped_column(
        ForeignKey("workspaces.workspace_id", ondelete="CASCADE"), primary_key=True
    )
    key_id: Mapped[BigId] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[str]
    digest: Mapped[bytes]
    member_id: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Time | None]
    lifetime: Mapped[timedelta | None]
    last_used_at: Mapped[Time | None]


class Session(Base):
    """What a member's sign-in or an API key's exchange opened; its tokens are valid as long as the row is there.

    ``generation`` is the number of the refresh token that is valid now.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint("(member_id IS NULL) <> (key_id IS NULL)", name="member_or_key"),
        _of_member(),
        ForeignKeyConstraint(
            ["workspace_id", "key_id"], ["api_keys.workspace_id", "api_keys.key_id"], ondelete="CASCADE"
        ),
        Index(None, "workspace_id", "member_id"),
        Index(None, "workspace_id", "key_id"),
        Index(None, "workspace_id", "expires_at"),
    )

    workspace_id: Mapped[BigId] = mapped_column(primary_key=True)
    session_id: Mapped[BigId] = mapped_column(primary_key=True)
    member_id: Mapped[int | None] = mapped_column(BigInteger)
    key_id: Mapped[int | None] = mapped_column(BigInteger)
    generation: Mapped[int]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Time]


class OAuthState(Base):
    """A sign-in that was begun and not finished; of the secrets only hashes."""

    __tablename__ = "oauth_states"
    __table_args__ = (Index(None, "expires_at"),)

    state_digest: Mapped[bytes] = mapped_column(primary_key=True)
    browser_digest: Mapped[bytes]
    provider: Mapped[str]
    next_path: Mapped[str]
    wanted_workspace: Mapped[int | None] = mapped_column(BigInteger)
    expires_at: Mapped[Time]
