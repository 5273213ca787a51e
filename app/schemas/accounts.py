"""Accounts: tokens, API keys, members, the audit log."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from app.schemas import examples
from app.schemas.base import Id, SafeText, Schema, Timestamp, example, matching
from app.schemas.chats import PAGE_SIZE
from app.schemas.enums import MemberStatus, Provider, Role
from app.schemas.search import Cursor

EMAIL_LENGTH = 254
OVERLAP_S = 24 * 60 * 60
LONGEST_OVERLAP_S = 30 * OVERLAP_S

_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f]+"
_EMAIL = r"[^@\s\x00-\x1f\x7f-\x9f]+@[^@\s\x00-\x1f\x7f-\x9f]+"


def same_email(value: str) -> str:
    """Returns an e-mail address as it is compared: only ASCII letters have a case, the others might meet by folding."""
    return value.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _check_future(value: datetime) -> datetime:
    if value <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return value


Email = Annotated[
    SafeText,
    Field(min_length=3, max_length=EMAIL_LENGTH),
    *matching(_EMAIL, "must be an e-mail address"),
    AfterValidator(same_email),
]
KeyName = Annotated[
    SafeText, Field(min_length=1, max_length=255), *matching(_PRINTABLE, "must have no control characters")
]
FutureTime = Annotated[Timestamp, AfterValidator(_check_future)]


class TokenRequest(Schema):
    """What is turned into tokens: an API key, a refresh token, or neither, and then the request's own credential."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [examples.TOKEN_REQUEST], "not": {"required": ["api_key", "refresh_token"]}}
    )

    api_key: Annotated[SafeText | None, Field(max_length=1_024)] = None
    refresh_token: Annotated[SafeText | None, Field(max_length=1_024)] = None

    @model_validator(mode="after")
    def _check_one(self) -> "TokenRequest":
        if {"api_key", "refresh_token"} <= self.model_fields_set:
            raise ValueError("send an API key or a refresh token, not both")
        return self


class Tokens(Schema):
    """An access token, and what to get the next one with. A refresh token works once."""

    model_config = example(examples.TOKENS)

    access_token: Annotated[str, Field(description="A JWT for `Authorization: Bearer`.")]
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 — a word of RFC 6750
    expires_in: Annotated[int, Field(description="Seconds for which the access token is valid.")]
    refresh_token: Annotated[
        str | None, Field(description="None comes for a browser's cookie, which can be used again.")
    ]
    refresh_expires_at: Annotated[Timestamp, Field(description="When the session ends, however often it is refreshed.")]


class SignInPlace(Schema):
    """A provider, and where a browser begins to sign in with it."""

    provider: Provider
    login_url: str


class Providers(Schema):
    """With whom people can sign in: those that are set up."""

    model_config = example(
        {"data": [{"provider": "google", "login_url": "https://chat.example.com/auth/login/google"}]}
    )

    data: list[SignInPlace]


class UserInfo(Schema):
    """A person who signed in."""

    id: str
    email: str
    name: str | None
    provider: str


class WorkspaceInfo(Schema):
    """A workspace, and the role in it."""

    id: str
    name: str
    role: Role


class Workspace(Schema):
    """A workspace's settings."""

    model_config = example(examples.WORKSPACE)

    id: str
    name: str
    redact: Annotated[bool, Field(description="Providers of models see placeholders for addresses, numbers and ids.")]


class WorkspaceChange(Schema):
    """A workspace's settings to be."""

    model_config = example({"redact": True})

    redact: StrictBool


class Credential(Schema):
    """What the request was authenticated with."""

    kind: Annotated[Literal["api_key", "session"], Field(description="An API key itself, or a session's token.")]
    actor: Annotated[str, Field(description="As the audit log names it.")]
    key_id: str | None


class Me(Schema):
    """Who is asking."""

    model_config = example(examples.ME)

    user: Annotated[UserInfo | None, Field(description="The person; null for a key that no member made.")]
    workspace: WorkspaceInfo
    workspaces: Annotated[list[WorkspaceInfo], Field(description="Every workspace that the user is a member of.")]
    role: Role
    credential: Credential
    limits: Annotated[dict[str, str], Field(description="The rate limit of each class of operations.")]


class KeyIn(Schema):
    """An API key to make."""

    model_config = example(examples.KEY_IN)

    name: Annotated[KeyName, Field(description="What it is for.", examples=["checkout service"])]
    role: Annotated[Role, Field(description="At most the role of who makes it.")]
    expires_at: FutureTime | None = None


class KeyRotation(Schema):
    """How a key is replaced."""

    model_config = example({"overlap_seconds": OVERLAP_S})

    overlap_seconds: Annotated[
        int,
        Field(strict=True, ge=0, le=LONGEST_OVERLAP_S, description="For how long the old key still works."),
        BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value),
    ] = OVERLAP_S


class Key(Schema):
    """An API key without its secret; ``role`` is its own, and never acts beyond its maker's."""

    id: str
    name: str
    role: Role
    member_id: Annotated[str | None, Field(description="The member who made it, and with whom it goes.")]
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Annotated[Timestamp | None, Field(description="When the key itself last came, to the minute.")]


class NewKey(Key):
    """A fresh API key: the only time that it is shown."""

    model_config = example(examples.NEW_KEY)

    key: str


class KeyList(Schema):
    """A page of API keys, newest first."""

    model_config = example(examples.KEY_LIST)

    data: list[Key]
    has_more: bool
    next_cursor: str | None


class MemberIn(Schema):
    """Somebody to invite."""

    model_config = example(examples.MEMBER_IN)

    email: Annotated[Email, Field(description="Whose: only a verified address counts.")]
    role: Role


class MemberChange(Schema):
    """A member's new role."""

    model_config = example({"role": "editor"})

    role: Role


class Member(Schema):
    """A member, or somebody who is invited."""

    model_config = example(examples.MEMBER)

    id: str
    email: str
    name: str | None
    role: Role
    status: MemberStatus
    created_at: Annotated[Timestamp, Field(description="Since when they are invited.")]
    joined_at: Timestamp | None
    invitation_expires_at: Timestamp | None


class MemberList(Schema):
    """A page of members and invitations, oldest first."""

    model_config = example(examples.MEMBER_LIST)

    data: list[Member]
    has_more: bool
    next_cursor: str | None


class PageQuery(Schema):
    """A page."""

    limit: Annotated[int, Field(ge=1, le=PAGE_SIZE)] = 10
    cursor: Annotated[Cursor | None, Field(description="`next_cursor` of the page before.")] = None


_Name = Annotated[SafeText, Field(min_length=1, max_length=64)]


class AuditFilter(Schema):
    """Conditions on an entry; all that are given must hold."""

    action: Annotated[_Name | None, Field(examples=["key.created"])] = None
    actor: Annotated[_Name | None, Field(examples=["key:2893478923478923"])] = None
    target: Annotated[_Name | None, Field(description="As the entries name it.")] = None
    conversation_id: Annotated[
        Id | None, Field(description="The conversation that was deleted: entries hold only a keyed hash of its id.")
    ] = None
    since: Annotated[Timestamp | None, Field(alias="from", description="Then or later (inclusive).")] = None
    until: Annotated[Timestamp | None, Field(alias="to", description="Before (exclusive).")] = None


class AuditQuery(AuditFilter, PageQuery):
    """A page of the audit log."""


class AuditEntry(Schema):
    """An act, without personal text."""

    id: str
    created_at: Timestamp
    actor: Annotated[str, Field(description="`key:<id>`, `member:<id>`, `operator` (the command line) or `retention`.")]
    action: str
    target: Annotated[str | None, Field(description="What was acted upon.")]
    details: Annotated[dict[str, Any], Field(description="Counts, roles, names of operations.")]


class AuditList(Schema):
    """A page of the audit log, newest first."""

    model_config = example(examples.AUDIT_LIST)

    data: list[AuditEntry]
    has_more: bool
    next_cursor: str | None
