"""Page cursors: where the next page begins, signed for one workspace and one question."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import orjson

from app.errors import FieldError, Invalid

R = TypeVar("R")

_MAC_BYTES = 16


class CursorSigner:
    """Makes and reads cursors; one made for another workspace or another question is refused.

    The first key signs, the others are still believed.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def sign(self, context: Sequence[object], position: Sequence[object]) -> str:
        """Returns the cursor of a position, an array of JSON values and times."""
        payload = orjson.dumps(position)
        return base64.urlsafe_b64encode(_mac(self._keys[0], context, payload) + payload).decode().rstrip("=")

    def cut(
        self, context: Sequence[object], found: Sequence[R], limit: int, position: Callable[[R], Sequence[object]]
    ) -> tuple[Sequence[R], bool, str | None]:
        """Returns the page of up to ``limit`` rows, whether more were found, and the cursor of those."""
        shown, has_more = found[:limit], len(found) > limit
        return shown, has_more, self.sign(context, position(shown[-1])) if has_more else None

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
        if not any(hmac.compare_digest(mac, _mac(key, context, payload)) for key in self._keys):
            detail = "The cursor does not belong to this question: leave it out, and send the same filters."
            raise Invalid(detail, (FieldError("cursor", "invalid_cursor", detail),))
        position: list[Any] = orjson.loads(payload)
        return position


def time_at(position: object) -> datetime:
    """Returns the time in a cursor's position."""
    return datetime.fromisoformat(str(position))


def _mac(key: bytes, context: Sequence[object], payload: bytes) -> bytes:
    question = orjson.dumps(context, option=orjson.OPT_NON_STR_KEYS)
    return hmac.digest(key, question + b"\0" + payload, hashlib.sha256)[:_MAC_BYTES]
