"""Why a call failed, for how long its provider wants to be left alone, and whether it may have cost something."""

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from app.llm.parse import InvalidAnswer

# By class name, most specific first: litellm's errors are subclasses of one another.
_REASONS = (
    ("OverBudget", "over_budget"),
    ("Timeout", "timeout"),
    ("TimeoutError", "timeout"),
    ("CancelledError", "cancelled"),
    ("RateLimitError", "rate_limited"),
    ("AuthenticationError", "unauthorized"),
    ("ContentPolicyViolationError", "refused"),
    ("ContextWindowExceededError", "too_long"),
    ("BadRequestError", "rejected"),
    ("NotFoundError", "rejected"),
)
_UNPAID = {"ConnectError", "ConnectTimeout", "HTTPStatusError"}
"""What httpx raises if nothing was sent, or the answer has an error's status."""
_LONGEST_S = 3_600.0


def reason_of(error: BaseException) -> str:
    """Returns a stable word for what a call failed with."""
    if isinstance(error, InvalidAnswer):
        return error.reason
    if getattr(error, "status_code", None) == HTTPStatus.FORBIDDEN:
        return "unauthorized"
    names = {cls.__name__ for cls in type(error).__mro__}
    return next((reason for name, reason in _REASONS if name in names), "unavailable")


def retry_after(error: Exception) -> float | None:
    """Returns the seconds of a ``Retry-After`` (RFC 9110, section 10.2.3), if there is one."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    headers = headers or getattr(error, "litellm_response_headers", None) or {}
    value = headers.get("retry-after", "")
    try:
        seconds = float(value) if value[:1].isdecimal() else _seconds_until(value)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), _LONGEST_S)


def _seconds_until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


def unpaid(error: BaseException) -> bool:
    """Says whether a call cannot have cost anything; of one that broke off nobody knows."""
    return any(type(each).__name__ in _UNPAID for each in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__
