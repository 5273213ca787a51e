"""What can go wrong, one class a stable code.

Problem
├── Malformed 400          bytes that are not what they claim to be
│   └── CredentialInUrl
├── Unauthenticated 401
├── Forbidden 403
├── NotFound 404           absent, or another workspace's
├── MethodNotAllowed 405
├── Conflict 409
├── TooLarge 413
├── UnsupportedMediaType 415
├── Invalid 422            readable, but against the rules
│   └── TooManyToDelete
├── Internal 500           a defect of ours
└── Unavailable 503        a dependency is down

ConfigurationError         the service cannot start like this
"""

from typing import ClassVar, NamedTuple


class FieldError(NamedTuple):
    """One invalid part of a request.

    ``pointer`` is a JSON pointer (RFC 6901) into the body, or the name of a parameter; never holds the rejected value.
    """

    pointer: str
    code: str
    detail: str


class Problem(Exception):
    """An answer that is an error (RFC 9457)."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors


class Malformed(Problem):
    """The request cannot be read."""

    status, code, title = 400, "malformed", "The request cannot be read"


class CredentialInUrl(Malformed):
    """A credential stands in the URL, where logs and histories keep it."""

    code = "credential_in_url"


class Unauthenticated(Problem):
    """No credential, or none that is valid."""

    status, code, title = 401, "unauthenticated", "Authentication is required"


class Forbidden(Problem):
    """The credential's role does not allow this."""

    status, code, title = 403, "forbidden", "The role does not allow this"


class NotFound(Problem):
    """Absent in this workspace."""

    status, code, title = 404, "not_found", "Not found"


class MethodNotAllowed(Problem):
    """The path exists, the method does not."""

    status, code, title = 405, "method_not_allowed", "The method is not allowed here"


class Conflict(Problem):
    """The same id was stored with other content."""

    status, code, title = 409, "message_conflict", "A message with this id and other content exists"


class TooLarge(Problem):
    """The body exceeds the limit."""

    status, code, title = 413, "too_large", "The body is too large"


class UnsupportedMediaType(Problem):
    """The body's media type is not taken here."""

    status, code, title = 415, "unsupported_media_type", "The media type is not supported"


class Invalid(Problem):
    """Readable, but against the rules."""

    status, code, title = 422, "invalid", "The request is invalid"


class TooManyToDelete(Invalid):
    """More would be deleted than the caller allowed."""

    code = "too_many_to_delete"


class Internal(Problem):
    """A defect of ours."""

    status, code, title = 500, "internal", "Internal error"


class Unavailable(Problem):
    """A dependency is down or slow; worth a retry."""

    status, code, title = 503, "unavailable", "A dependency is not available"
    retry_after_seconds = 2


class ConfigurationError(Exception):
    """The service cannot start like this; the message says what to change."""
