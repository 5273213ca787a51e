"""Who is asking: API keys, tokens and cookies turned into a viewer, and keys and refresh tokens into tokens."""

import hmac
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import reduce
from typing import NamedTuple

from cachetools import TLRUCache, TTLCache

from app.db import Database, Unit
from app.errors import NoSession, Unauthenticated
from app.schemas.accounts import Credential, Me, Tokens, UserInfo, WorkspaceInfo
from app.schemas.enums import Role
from app.schemas.rows import SessionRow
from app.schemas.viewer import Viewer
from app.security.api_keys import PREFIX, parse_api_key, random_id
from app.security.permissions import narrower, require
from app.security.tokens import ACCESS_LIFETIME, REFRESH_PREFIX, SessionToken, TokenSigner


class Door(StrEnum):
    """Where a credential was shown: each place takes its own kinds."""

    BEARER = "bearer"
    API_KEY = "api_key"
    COOKIE = "cookie"


VIEWER_CACHE_S = 4.0
"""For how long a credential may be believed without a look at the database; a revocation acts within five seconds."""

SEEN_S = 3_600.0
"""For how long a key that was valid is listened to from an address that showed too many wrong credentials."""

SESSION_LIFETIME = timedelta(days=14)
KEY_REFUSED = "The API key does not exist, has expired or was revoked."
SESSION_OVER = "The session is over. Sign in again, or send the API key again."


class _Known(NamedTuple):
    """Whose a credential is, and until when; ``asked_at`` is when the look at the database began, by the clock."""

    viewer: Viewer
    expires_at: datetime | None
    asked_at: float


class AuthService:
    """Turns credentials into viewers. The first pepper hashes API keys; those hashed under others are still known.

    ``clock`` returns seconds that never go back.
    """

    def __init__(
        self,
        db: Database,
        signer: TokenSigner,
        peppers: Sequence[bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._signer = signer
        self._peppers = peppers
        self._clock = clock
        # Digests of keys, ids of sessions: whether they were valid when they last came.
        self._seen: TTLCache[bytes | int, bool] = TTLCache(100_000, SEEN_S)
        # From when the look began: a revocation may come while the answer is on its way, however long that takes.
        self._viewers: TLRUCache[tuple[Door, str], _Known] = TLRUCache(
            10_000, lambda _, known, __: known.asked_at + VIEWER_CACHE_S, clock
        )

    def known(self, door: Door, credential: str) -> Viewer | None:
        """Returns whose credential this is if that was asked just now."""
        found = self._viewers.get((door, credential))
        if found is None or (found.expires_at and found.expires_at <= datetime.now(UTC)):
            return None
        return found.viewer

    def expired(self, door: Door, credential: str) -> bool:
        """Says whether a credential has come to the end that is written in it: that of a token."""
        if door is not Door.BEARER or credential.startswith(PREFIX):
            return False
        try:
            self._signer.read_access(credential)
        except Unauthenticated:
            return True
        return False

    async def viewer(self, door: Door, credential: str) -> Viewer:
        """Returns whose credential this is.

        Raises:
            Unauthenticated: if it is none of ours, expired or revoked.
        """
        if known := self.known(door, credential):
            return known
        asked_at = self._clock()
        if door is Door.COOKIE:
            token = self._signer.read_cookie(credential)
            if token is None:
                raise Unauthenticated(SESSION_OVER)
            found = await self._by_session(token)
        elif door is Door.API_KEY or credential.startswith(PREFIX):
            found = await self._by_key(credential)
        else:
            found = await self._by_session(self._signer.read_access(credential))
        self._viewers[door, credential] = _Known(*found, asked_at)
        return found[0]

    def familiar(self, door: Door, credential: str) -> bool:
        """Says whether a credential was made by this service and, as far as is known here, is still valid."""
        if door is not Door.COOKIE and credential.startswith(PREFIX):
            key = parse_api_key(credential)
            return key is not None and self._seen.get(key.digest(self._peppers[0]), False)
        token = None
        with suppress(Unauthenticated):
            if door is Door.COOKIE:
                token = self._signer.read_cookie(credential)
            elif credential.startswith(REFRESH_PREFIX):
                token = self._signer.read_refresh(credential)
            elif door is Door.BEARER:
                token = self._signer.read_access(credential)
        return token is not None and self._seen.get(token.session_id, True)

    async def open_session(self, viewer: Viewer) -> Tokens:
        """Returns tokens of a new session of the viewer's key; of a browser's session an access token only.

        Raises:
            Unauthenticated: if key or session are gone.
        """
        now = datetime.now(UTC)
        async with self._db.write() as unit:
            if viewer.session_id is None:
                return self._tokens(await open_session(unit, viewer, now), viewer.actor, now)
            found = await unit.auth.session(viewer.workspace_id, viewer.session_id)
        if found is None:
            raise Unauthenticated(SESSION_OVER)
        return self._tokens(found[0], viewer.actor, now).model_copy(update={"refresh_token": None})

    async def refreshed(self, refresh_token: str) -> tuple[SessionToken, Viewer]:
        """Returns what a refresh token points to, used before or not, and whose it is.

        Raises:
            Unauthenticated: if it is none of ours, or its session is over.
        """
        token = self._signer.read_refresh(refresh_token)
        if token is None:
            raise Unauthenticated("The refresh token is not one of this service.")
        viewer, _ = await self._by_session(token)
        return token, viewer

    async def refresh(self, token: SessionToken) -> Tokens:
        """Returns new tokens of a session; a refresh token that comes a second time ends it.

        Raises:
            Unauthenticated: if the session is over, or is now.
        """
        now = datetime.now(UTC)
        actor, session = "", None
        async with self._db.write() as unit:
            if found := await unit.auth.session(token.workspace_id, token.session_id):
                row, member_id, _, _ = found
                actor = Viewer(row.workspace_id, Role.VIEWER, row.key_id, member_id).actor
                if await unit.auth.advance(row.workspace_id, row.session_id, token.generation):
                    session = row._replace(generation=token.generation + 1)
                else:
                    await end_session(unit, row.workspace_id, row.session_id, "token_reused")
        if session is None:
            raise Unauthenticated(SESSION_OVER)
        return self._tokens(session, actor, now)

    async def sign_out(self, viewer: Viewer) -> None:
        """Ends the viewer's session; raises ``NoSession`` for an API key."""
        if viewer.session_id is None:
            raise NoSession("An API key has no session. Delete the key to end its access.")
        async with self._db.write() as unit:
            await end_session(unit, viewer.workspace_id, viewer.session_id, "signed_out")
        for shown in [shown for shown, known in self._viewers.items() if known.viewer.session_id == viewer.session_id]:
            self._viewers.pop(shown, None)

    async def me(self, viewer: Viewer, limits: dict[str, str]) -> Me:
        """Returns who is asking."""
        async with self._db.read() as unit:
            own = await unit.workspaces.get(viewer.workspace_id)
            assert own is not None
            user = await unit.members.user_of(viewer.workspace_id, viewer.member_id) if viewer.member_id else None
            others = await unit.members.memberships(user.user_id) if user and viewer.key_id is None else []
        workspace = WorkspaceInfo(id=str(own.workspace_id), name=own.name, role=viewer.role)
        return Me(
            user=UserInfo(id=str(user.user_id), email=user.email, name=user.name, provider=user.auth_provider)
            if user
            else None,
            workspace=workspace,
            workspaces=[WorkspaceInfo(id=str(id), name=name, role=role) for id, _, role, name in others] or [workspace],
            role=viewer.role,
            credential=Credential(
                kind="api_key" if viewer.session_id is None else "session",
                actor=viewer.actor,
                key_id=str(viewer.key_id) if viewer.key_id is not None else None,
            ),
            limits=limits,
        )

    async def _by_key(self, text: str) -> tuple[Viewer, datetime | None]:
        key = parse_api_key(text)
        if key is None:
            raise Unauthenticated("The credential is not an API key of this service.")
        digests = [key.digest(pepper) for pepper in self._peppers]
        async with self._db.read() as unit:
            found = await unit.auth.key(key.workspace_id, key.key_id)
            if found is None or not any(hmac.compare_digest(found[0].digest, digest) for digest in digests):
                self._seen.pop(digests[0], None)
                raise Unauthenticated(KEY_REFUSED)
            row, owner_role = found
            if row.expires_at and row.expires_at <= datetime.now(UTC):
                if self._seen.get(digests[0], True):
                    await unit.audit.add((row.workspace_id, f"key:{row.key_id}"), "access.denied", reason="key_expired")
                self._seen[digests[0]] = False
                raise Unauthenticated(KEY_REFUSED)
            await unit.auth.note_use(row.workspace_id, row.key_id, digests[0])
        self._seen[digests[0]] = True
        return Viewer(row.workspace_id, narrower(row.role, owner_role), row.key_id, row.member_id), row.expires_at

    async def _by_session(self, token: SessionToken) -> tuple[Viewer, datetime | None]:
        async with self._db.read() as unit:
            found = await unit.auth.session(token.workspace_id, token.session_id)
        if found is None:
            self._seen[token.session_id] = False
            raise Unauthenticated(SESSION_OVER)
        row, member_id, key_role, member_role = found
        role = narrower(key_role, member_role) if key_role else member_role
        assert role is not None
        viewer = Viewer(row.workspace_id, role, row.key_id, member_id, row.session_id)
        if token.subject not in (None, viewer.actor):
            raise Unauthenticated(SESSION_OVER)
        return viewer, min(token.expires_at or row.expires_at, row.expires_at)

    def _tokens(self, session: SessionRow, subject: str, now: datetime) -> Tokens:
        token = SessionToken(session.workspace_id, session.session_id, session.generation)
        return Tokens(
            access_token=self._signer.access(token, subject, uuid.uuid4().hex, now),
            expires_in=int(ACCESS_LIFETIME.total_seconds()),
            refresh_token=self._signer.refresh(token),
            refresh_expires_at=session.expires_at,
        )


async def open_session(unit: Unit, viewer: Viewer, now: datetime, **details: str) -> SessionRow:
    """Stores a session of the viewer's key, or of the member if it is no key that asks.

    Raises:
        Unauthenticated: if the key or the member is gone.
    """
    await confirm(unit, viewer, Role.VIEWER)
    member_id = viewer.member_id if viewer.key_id is None else None
    ids = viewer.workspace_id, random_id(), member_id, viewer.key_id
    session = SessionRow(*ids, generation=1, expires_at=now + SESSION_LIFETIME)
    await unit.auth.add_session(session)
    action = "member.signed_in" if viewer.key_id is None else "session.created"
    await unit.audit.add(viewer.caller, action, f"session:{session.session_id}", **details)
    return session


async def end_session(unit: Unit, workspace_id: int, session_id: int, reason: str) -> None:
    """Ends a session, if it is not over, and writes down whose it was."""
    if ended := await unit.auth.remove_session(workspace_id, session_id):
        whose = Viewer(workspace_id, Role.VIEWER, ended.key_id, ended.member_id)
        await unit.audit.add(whose.caller, "session.ended", f"session:{session_id}", reason=reason)


async def confirm(unit: Unit, viewer: Viewer, needed: Role) -> None:
    """Sees to it that a viewer, believed for some seconds, is still who they were.

    For what outlives those seconds: keys, members, sessions, and what takes long (there it comes last).

    Raises:
        Unauthenticated: if key, member or session are gone.
        Forbidden: if the role is weaker by now.
    """
    roles = await unit.auth.roles_now(viewer)
    if roles is None:
        raise Unauthenticated(SESSION_OVER if viewer.key_id is None else KEY_REFUSED)
    require(replace(viewer, role=reduce(narrower, roles, viewer.role)), needed)
