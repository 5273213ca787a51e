"""What can go wrong, one class a stable code.

Problem
├── Malformed 400          bytes that are not what they claim to be
│   ├── CredentialInUrl
│   └── SignInFailed       a sign-in that was not begun here, or is over
├── Unauthenticated 401
├── Forbidden 403
│   ├── CrossSite          a cookie without proof that the request is our own page's
│   └── SignInRefused      the provider does not vouch for an e-mail address
├── NotFound 404           absent, or another workspace's
├── MethodNotAllowed 405
├── Conflict 409
│   ├── MessageConflict
│   ├── LastAdmin
│   ├── AlreadyMember
│   ├── NoSession
│   ├── TooManyWebhooks
│   ├── NotReplayable      a delivery to a disabled webhook, or about what must not be told any more
│   └── StillRunning       the first request with this idempotency key
├── TooLarge 413
├── UnsupportedMediaType 415
├── Invalid 422            readable, but against the rules
│   ├── TooManyToDelete
│   ├── TooManyIntervals
│   ├── TooManyConversations
│   └── IdempotencyKeyReused
├── TooManyRequests 429
├── Internal 500           a defect of ours
└── Unavailable 503        a dependency is down
    └── ProviderUnavailable

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


class SignInFailed(Malformed):
    """A sign-in that was not begun in this browser, was finished already, took too long, or was called off."""

    code, title = "sign_in_failed", "You could not be signed in"


class Unauthenticated(Problem):
    """No credential, or none that is valid."""

    status, code, title = 401, "unauthenticated", "Authentication is required"


class Forbidden(Problem):
    """The credential's role does not allow this."""

    status, code, title = 403, "forbidden", "The role does not allow this"


class CrossSite(Forbidden):
    """A cookie came along, but no proof that a page of this service sent the request."""

    code, title = "cross_site", "The request came from another site"


class SignInRefused(Forbidden):
    """The provider does not vouch for an e-mail address of this person."""

    code, title = "sign_in_refused", "You could not be signed in"


class NotFound(Problem):
    """Absent in this workspace."""

    status, code, title = 404, "not_found", "Not found"


class MethodNotAllowed(Problem):
    """The path exists, the method does not."""

    status, code, title = 405, "method_not_allowed", "The method is not allowed here"


class Conflict(Problem):
    """The request does not go with what is there."""

    status, code, title = 409, "conflict", "The request conflicts with what is there"


class MessageConflict(Conflict):
    """The same id was stored with other content."""

    code, title = "message_conflict", "A message with this id and other content exists"


class LastAdmin(Conflict):
    """The workspace would be left without an admin."""

    code, title = "last_admin", "The workspace would be left without an admin"


class AlreadyMember(Conflict):
    """The person is a member, or invited."""

    code, title = "already_member", "Already a member"


class NoSession(Conflict):
    """The credential is an API key: there is nothing to sign out of."""

    code, title = "no_session", "There is no session to end"


class TooManyWebhooks(Conflict):
    """The workspace has as many webhooks as it may have."""

    code, title = "too_many_webhooks", "The workspace has too many webhooks"


class NotReplayable(Conflict):
    """The webhook is disabled, or what the delivery was about is not known any more."""

    code, title = "not_replayable", "The delivery cannot be sent again"


class StillRunning(Conflict):
    """The first request with this idempotency key has not been answered yet."""

    code, title = "still_running", "The first request is still running"


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


class TooManyIntervals(Invalid):
    """The range holds more intervals than one answer."""

    code = "too_many_intervals"


class TooManyConversations(Invalid):
    """More conversations would have to be read one by one than one answer is worth."""

    code = "too_many_conversations"


class IdempotencyKeyReused(Invalid):
    """The idempotency key was used with another request."""

    code, title = "idempotency_key_reused", "The idempotency key was used with another request"


class TooManyRequests(Problem):
    """The rate limit is used up; ``retry_after_seconds`` says until when."""

    status, code, title = 429, "rate_limited", "Too many requests"

    def __init__(self, detail: str, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class Internal(Problem):
    """A defect of ours."""

    status, code, title = 500, "internal", "Internal error"


class Unavailable(Problem):
    """A dependency is down or slow; worth a retry."""

    status, code, title = 503, "unavailable", "A dependency is not available"
    retry_after_seconds = 2


class ProviderUnavailable(Unavailable):
    """A sign-in provider is down, too slow, or says what cannot be."""

    code, title = "provider_unavailable", "You could not be signed in"


class ConfigurationError(Exception):
    """The service cannot start like this; the message says what to change."""
