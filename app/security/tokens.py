"""Tokens of a session: JSON Web Tokens (RFC 7519, RFC 9068), refresh tokens, and the cookie of a browser.

Each is a pointer to the session's row and proves nothing but itself: role and validity are the row's. None is stored.
"""

import base64
import binascii
import hashlib
import hmac
import re
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import jwt

from app.errors import Unauthenticated
from app.security.encryption import derive, key_id

ACCESS_LIFETIME = timedelta(minutes=15)
ALGORITHM = "HS256"
TYPE = "at+jwt"
ISSUER = "chat-insights"
AUDIENCE = "chat-insights-api"
CLAIMS = ("aud", "exp", "iat", "iss", "jti", "sid", "sub", "ws")

_JWT = re.compile(r"[\w-]{20,200}\.[\w-]{20,800}\.[\w-]{43}", re.ASCII)
_NUMBER = re.compile(r"[1-9]\d{0,18}", re.ASCII)
_BODY = struct.Struct(">qqi")
_MAC_BYTES = 20
_OPAQUE_LENGTH = 64
REFRESH_PREFIX = "cr_"
COOKIE_PREFIX = "cs_"


class SessionToken(NamedTuple):
    """What a token points to; ``generation`` counts the session's refresh tokens.

    ``expires_at`` is a JWT's own end, ``subject`` who it says is acting.
    """

    workspace_id: int
    session_id: int
    generation: int = 0
    expires_at: datetime | None = None
    subject: str | None = None


class TokenSigner:
    """Makes and reads tokens: the first secret signs, the others are still believed."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        keys = [derive(secret, "access tokens") for secret in secrets]
        self._jwt_keys = {key_id(key): key for key in keys}
        self._current = key_id(keys[0])
        self._opaque_keys = {
            prefix: [derive(secret, purpose) for secret in secrets]
            for prefix, purpose in ((REFRESH_PREFIX, "refresh tokens"), (COOKIE_PREFIX, "session cookies"))
        }
        self._sign_in_key = derive(secrets[0], "sign-in")

    def access(self, session: SessionToken, subject: str, jti: str, now: datetime) -> str:
        """Returns a JWT of fifteen minutes."""
        issued = int(now.timestamp())
        claims = {
            "aud": AUDIENCE,
            "exp": issued + int(ACCESS_LIFETIME.total_seconds()),
            "iat": issued,
            "iss": ISSUER,
            "jti": jti,
            "sid": str(session.session_id),
            "sub": subject,
            "ws": str(session.workspace_id),
        }
        headers = {"kid": self._current, "typ": TYPE}
        return jwt.encode(claims, self._jwt_keys[self._current], ALGORITHM, headers)

    def read_access(self, text: str) -> SessionToken:
        """Returns what a JWT points to.

        Raises:
            Unauthenticated: if it is not one of ours, or is over.
        """
        try:
            return self._read_access(text)
        except (jwt.InvalidTokenError, ValueError, TypeError, KeyError, RecursionError):
            raise Unauthenticated("The access token is not valid, or no longer.") from None

    def refresh(self, session: SessionToken) -> str:
        """Returns the refresh token of a session's generation."""
        return self._opaque(REFRESH_PREFIX, session)

    def read_refresh(self, text: str) -> SessionToken | None:
        """Returns what a refresh token points to, or None if it is none of ours."""
        return self._read_opaque(REFRESH_PREFIX, text)

    def cookie(self, session: SessionToken) -> str:
        """Returns the cookie of a browser's session."""
        return self._opaque(COOKIE_PREFIX, session)

    def read_cookie(self, text: str) -> SessionToken | None:
        """Returns what a cookie points to, or None if it is none of ours."""
        return self._read_opaque(COOKIE_PREFIX, text)

    def sign_in_secret(self, purpose: str, state: str) -> str:
        """Returns 43 characters that follow from a sign-in's state and are known here only.

        They are the PKCE verifier (RFC 7636) and the nonce (OpenID Connect Core 3.1.2.1).
        """
        digest = hmac.digest(self._sign_in_key, f"{purpose}\0{state}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _read_access(self, text: str) -> SessionToken:
        if not _JWT.fullmatch(text):
            raise ValueError("not a compact JWS of ours")
        header = jwt.get_unverified_header(text)
        if set(header) != {"alg", "kid", "typ"} or header["typ"] != TYPE:
            raise ValueError("another header")
        key = self._jwt_keys[header["kid"]]
        claims: dict[str, Any] = jwt.decode(
            text,
            key,
            [ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": list(CLAIMS), "strict_aud": True},
        )
        # One token, one spelling: of the JSON, and of the signature, whose last character has two bits to spare.
        if jwt.encode(claims, key, ALGORITHM, header) != text:
            raise ValueError("not written here")
        issued, expires = claims["iat"], claims["exp"]
        if type(issued) is not int or type(expires) is not int:
            raise ValueError("times are whole seconds")
        if not 0 < expires - issued <= ACCESS_LIFETIME.total_seconds():
            raise ValueError("a lifetime that is not given out")
        workspace_id, session_id = _id(claims["ws"]), _id(claims["sid"])
        return SessionToken(
            workspace_id, session_id, expires_at=datetime.fromtimestamp(expires, UTC), subject=claims["sub"]
        )

    def _opaque(self, prefix: str, session: SessionToken) -> str:
        body = _BODY.pack(*session[:3])
        mac = _mac(self._opaque_keys[prefix][0], body)
        return prefix + base64.b32encode(body + mac).decode().lower()

    def _read_opaque(self, prefix: str, text: str) -> SessionToken | None:
        encoded = text.removeprefix(prefix)
        if len(encoded) != _OPAQUE_LENGTH or encoded == text or not text.isascii() or text != text.lower():
            return None
        try:
            raw = base64.b32decode(encoded.upper())
        except binascii.Error:
            return None
        body, mac = raw[: _BODY.size], raw[_BODY.size :]
        if not any(hmac.compare_digest(mac, _mac(key, body)) for key in self._opaque_keys[prefix]):
            return None
        return SessionToken(*_BODY.unpack(body))


def _id(claim: str) -> int:
    if not _NUMBER.fullmatch(claim) or int(claim) >= 2**63:
        raise ValueError("not an id")
    return int(claim)


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, hashlib.sha256)[:_MAC_BYTES]
