"""Sign-in with a provider: begun, and brought to a session."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from app.db import Database, Unit
from app.errors import Forbidden, NotFound, SignInFailed
from app.schemas.accounts import same_email
from app.schemas.enums import Provider, Role
from app.schemas.rows import SignInRow
from app.schemas.viewer import Viewer
from app.security.api_keys import random_id
from app.security.tokens import SessionToken, TokenSigner
from app.services.auth import SESSION_LIFETIME, end_session, open_session
from app.services.members import INVITATION_LIFETIME
from app.services.workspaces import WorkspaceService

if TYPE_CHECKING:
    from app.security.oauth import Identity, SignInProvider

SIGN_IN_LIFETIME = timedelta(minutes=10)
_SECRET = re.compile(r"[\w-]{43}", re.ASCII)
NOT_BEGUN = "This sign-in was not begun in this browser, was finished already, or took too long. Begin again at"


class Begun(NamedTuple):
    """Where the browser goes, and the secret that it keeps until it comes back."""

    url: str
    browser_secret: str


class SignedIn(NamedTuple):
    """The browser's session, and where it wanted to go."""

    cookie: str
    lifetime: timedelta
    next_path: str


class SignInService:
    """Public: people who are not signed in ask."""

    def __init__(
        self,
        db: Database,
        workspaces: WorkspaceService,
        signer: TokenSigner,
        providers: "Mapping[Provider, SignInProvider]",
        base_url: str,
    ) -> None:
        self._db = db
        self._workspaces = workspaces
        self._signer = signer
        self._providers = providers
        self._base_url = base_url

    def places(self) -> Mapping[Provider, str]:
        """Returns where a browser begins to sign in with each provider that is set up."""
        return {name: f"{self._base_url}/auth/login/{name}" for name in Provider if name in self._providers}

    async def begin(self, name: Provider, next_path: str, wanted_workspace: int | None, known_secret: str) -> Begun:
        """Begins a sign-in; one that goes on in the same browser keeps its secret.

        Raises:
            NotFound: if the provider is not set up.
            ProviderUnavailable: if it is down.
        """
        provider = self._provider(name)
        state = secrets.token_urlsafe(32)
        browser_secret = known_secret if _SECRET.fullmatch(known_secret) else secrets.token_urlsafe(32)
        url = await provider.authorization_url(
            redirect_uri=self._redirect_uri(name),
            state=state,
            nonce=self._signer.sign_in_secret("nonce", state),
            verifier=self._signer.sign_in_secret("verifier", state),
        )
        expires_at = datetime.now(UTC) + SIGN_IN_LIFETIME
        row = SignInRow(_digest(state), _digest(browser_secret), name, next_path, wanted_workspace, expires_at)
        async with self._db.write() as unit:
            await unit.members.add_sign_in(row)
        return Begun(url, browser_secret)

    async def finish(
        self, name: Provider, state: str, code: str | None, browser_secret: str, old_cookie: str
    ) -> SignedIn:
        """Finishes a sign-in: makes the user on first sight, and opens a session instead of the browser's old one.

        Raises:
            SignInFailed: if it was not begun in this browser, is over, or the provider was told no.
            SignInRefused: if the provider does not vouch for an e-mail address.
            ProviderUnavailable: if the provider is down or says what cannot be.
            Forbidden: if the person is no member of the workspace that they asked for.
        """
        provider = self._provider(name)
        async with self._db.write() as unit:
            begun = await unit.members.take_sign_in(_digest(state))
        if (
            begun is None
            or begun.provider != name
            or begun.expires_at < datetime.now(UTC)
            or not hmac.compare_digest(begun.browser_digest, _digest(browser_secret))
        ):
            # Cookies know localhost and 127.0.0.1 as two.
            raise SignInFailed(f"{NOT_BEGUN} {self._base_url}/auth/login/{name}.")
        if code is None:
            raise SignInFailed("The provider did not let you in, or you called it off. Begin again.")
        identity = await provider.identity(
            code=code,
            redirect_uri=self._redirect_uri(name),
            nonce=self._signer.sign_in_secret("nonce", state),
            verifier=self._signer.sign_in_secret("verifier", state),
        )
        now = datetime.now(UTC)
        async with self._db.write() as unit:
            viewer = await self._member(unit, identity, begun.wanted_workspace, now)
            session = await open_session(unit, viewer, now, provider=identity.provider)
            if old := self._signer.read_cookie(old_cookie):
                await end_session(unit, old.workspace_id, old.session_id, "replaced")
        cookie = self._signer.cookie(SessionToken(session.workspace_id, session.session_id))
        return SignedIn(cookie, SESSION_LIFETIME, begun.next_path)

    async def _member(self, unit: Unit, identity: "Identity", wanted: int | None, now: datetime) -> Viewer:
        email = same_email(identity.email)
        user_id = await unit.members.sign_in(
            provider=identity.provider,
            issuer=identity.issuer,
            subject=identity.subject,
            email=email,
            name=identity.name,
        )
        # Who has a place already goes elsewhere only if they said so: anybody may invite them.
        if wanted is not None or not await unit.members.memberships(user_id):
            for workspace_id, member_id, role in await unit.members.accept_invitations(
                user_id, email, now - INVITATION_LIFETIME, wanted
            ):
                member = f"member:{member_id}"
                await unit.audit.add((workspace_id, member), "member.joined", member, role=role)
        memberships = [Viewer(w, role, None, m) for w, m, role, _ in await unit.members.memberships(user_id)]
        if not memberships:
            workspace_id, member_id = await self._workspaces.make(unit, f"user-{user_id}"), random_id()
            await unit.members.add_member(workspace_id, member_id, user_id, Role.ADMIN)
            memberships = [Viewer(workspace_id, Role.ADMIN, None, member_id)]
            await unit.audit.add(memberships[0].caller, "workspace.created")
        if wanted is None:
            return memberships[0]
        for viewer in memberships:
            if viewer.workspace_id == wanted:
                return viewer
        raise Forbidden("You are not a member of this workspace.")

    def _provider(self, name: Provider) -> "SignInProvider":
        if name not in self._providers:
            raise NotFound(f"This service has no sign-in with {name.capitalize()}.")
        return self._providers[name]

    def _redirect_uri(self, name: Provider) -> str:
        return f"{self._base_url}/auth/callback/{name}"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
