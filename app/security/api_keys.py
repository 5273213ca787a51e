"""API keys: ``ck_`` and 64 characters of base32, which hold workspace, key id, 160 random bits and a CRC-32.

The checksum spares the database a query for a mistyped key. Only an HMAC-SHA-256 of the key is stored.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
import zlib
from typing import NamedTuple

PREFIX = "ck_"
_BODY = struct.Struct(">QQ20s")
_CHECKSUM = struct.Struct(">I")
_TEXT_LENGTH = len(PREFIX) + 64


class ApiKey(NamedTuple):
    """An API key's parts."""

    workspace_id: int
    key_id: int
    text: str

    def digest(self, pepper: bytes) -> bytes:
        """Returns what is stored of the key."""
        return hmac.digest(pepper, self.text.encode(), hashlib.sha256)


def random_id() -> int:
    """Returns a random identifier that fits PostgreSQL's ``bigint``."""
    return secrets.randbits(62) | 1 << 61


def new_api_key(workspace_id: int) -> ApiKey:
    """Returns a fresh key of a workspace."""
    key_id = random_id()
    body = _BODY.pack(workspace_id, key_id, secrets.token_bytes(20))
    text = base64.b32encode(body + _CHECKSUM.pack(zlib.crc32(body))).decode().lower()
    return ApiKey(workspace_id, key_id, PREFIX + text)


def parse_api_key(text: str) -> ApiKey | None:
    """Returns the parts of a key, or None if it is no key of ours."""
    if len(text) != _TEXT_LENGTH or not text.startswith(PREFIX) or not text.isascii() or text != text.lower():
        return None
    try:
        raw = base64.b32decode(text.removeprefix(PREFIX).upper())
    except binascii.Error:
        return None
    body, (checksum,) = raw[: _BODY.size], _CHECKSUM.unpack(raw[_BODY.size :])
    if zlib.crc32(body) != checksum:
        return None
    workspace_id, key_id, _ = _BODY.unpack(body)
    return ApiKey(workspace_id, key_id, text) if max(workspace_id, key_id) < 2**63 else None
