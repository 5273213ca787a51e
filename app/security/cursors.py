"""Page cursors: where the next page begins, signed for one workspace and one question."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from app.errors import FieldError, Invalid

_MAC_BYTES = 16


class CursorSigner:
    """Makes and reads cursors; one made for another workspace or another question is refused."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, context: Sequence[object], position: Sequence[object]) -> str:
        """Returns the cursor of a position, an array of JSON values and times."""
        payload = orjson.dumps(position)
        return base64.urlsafe_b64encode(self._mac(context, payload) + payload).decode().rstrip("=")

    def read(self, context: Sequence[object], cursor: str) -> list[Any]:
        """Returns the position behind a cursor.

        Raises:
            Invalid: if it was not made here for this context.
        """
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(context, payload)):
            detail = "The cursor does not belong to this question: leave it out, and send the same filters."
            raise Invalid(detail, (FieldError("cursor", "invalid_cursor", detail),))
        position: list[Any] = orjson.loads(payload)
        return position

    def _mac(self, context: Sequence[object], payload: bytes) -> bytes:
        question = orjson.dumps(context, option=orjson.OPT_NON_STR_KEYS)
        return hmac.digest(self._key, question + b"\0" + payload, hashlib.sha256)[:_MAC_BYTES]


def time_at(position: object) -> datetime:
    """Returns the time in a cursor's position."""
    return datetime.fromisoformat(str(position))
