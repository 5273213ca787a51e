"""What the API refuses, and what keeps it from answering."""

from collections.abc import Mapping

import orjson

UNREACHABLE = "unreachable"


class ApiError(Exception):
    """An error of the API (RFC 9457), or none at all: then the status is 0 and the code ``unreachable``."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        request_id: str = "",
        retry_after_s: int | None = None,
        parts: tuple[str, ...] = (),
    ) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.parts = parts
        """One line for each invalid part of the request."""

    @classmethod
    def read(cls, status: int, headers: Mapping[str, str], body: bytes) -> "ApiError":
        """Returns the error of an answer; what is no problem document, a proxy's page say, is told by its status."""
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = None
        document = found if isinstance(found, dict) else {}
        errors = document.get("errors")
        parts = [part for part in errors if isinstance(part, dict)] if isinstance(errors, list) else []
        after = headers.get("retry-after", "")
        return cls(
            status,
            str(document.get("code", "unexpected")),
            str(document.get("detail", "The answer is not one of the service's: is a proxy in between?")),
            request_id=str(document.get("request_id", headers.get("x-request-id", ""))),
            retry_after_s=int(after) if after.isdecimal() else None,
            parts=tuple(f"{part.get('pointer')}: {part.get('detail')}" for part in parts),
        )

    @classmethod
    def unreachable(cls, url: str) -> "ApiError":
        """Returns the error for no answer."""
        return cls(0, UNREACHABLE, f"Nothing answers at {url}.")
