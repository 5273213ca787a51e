"""Types that every schema is made of."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    with_config,
)

T = TypeVar("T")

ID_LENGTH = 255
CONTENT_BYTES = 2**20

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII)


def parse_rfc3339(value: object) -> datetime:
    """Returns an RFC 3339 time, exactly, in UTC; raises ``ValueError`` for anything else."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError(
            "must be an RFC 3339 time with an offset and at most microseconds, such as 2026-11-22T10:00:00Z"
            " (in a URL, + is written %2B)"
        )
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a time that exists, from year 1 to 9999 in UTC") from None


def format_rfc3339(value: datetime) -> str:
    """Returns a UTC time with microseconds and ``Z``."""
    return value.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def json_rfc3339(value: datetime) -> orjson.Fragment:
    """Returns a UTC time as JSON, as ``format_rfc3339`` writes it, in a tenth of the time."""
    text = orjson.dumps(value, None, orjson.OPT_UTC_Z)
    return orjson.Fragment(text if value.microsecond else text[:-2] + b'.000000Z"')


def _check_bytes(value: str) -> str:
    if len(value) > CONTENT_BYTES // 4 and len(value.encode()) > CONTENT_BYTES:
        raise ValueError("must be at most 1 MiB of UTF-8")
    return value


def _check_path_segment(value: str) -> str:
    if value in (".", ".."):
        raise ValueError('must not be "." or "..": no URL path can name it')
    return value


Timestamp = Annotated[
    datetime,
    BeforeValidator(parse_rfc3339),
    PlainSerializer(format_rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-22T10:00:00.123456Z"]}),
]

SafeText = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Text that PostgreSQL takes: no NUL; a lone surrogate is no text to Pydantic."""

Id = Annotated[
    SafeText,
    Field(min_length=1, max_length=ID_LENGTH, json_schema_extra={"not": {"enum": [".", ".."]}}),
    AfterValidator(_check_path_segment),
]
"""An id chosen by a client; every one can stand in a URL path."""

Content = Annotated[SafeText, Field(min_length=1, max_length=CONTENT_BYTES), AfterValidator(_check_bytes)]


def matching(pattern: str, must: str) -> tuple[Any, Any]:
    """Returns what holds a text to a pattern that the OpenAPI document shows; ``must`` is the complaint."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(must)
        return value

    return AfterValidator(check), Field(json_schema_extra={"pattern": f"^{pattern}$"})


class Schema(BaseModel):
    """An object of the API: closed and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def example(value: dict[str, Any], **more: Any) -> ConfigDict:
    """Returns the configuration of a schema that shows an example, and what ``more`` says, in the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [value], **more})


def closed(value: dict[str, Any] | None = None) -> Callable[[type[T]], type[T]]:
    """Returns what makes a dictionary's type an object of the API that has no other fields, and may show an example."""
    return with_config(ConfigDict(extra="forbid", json_schema_extra={"examples": [value]} if value else {}))
