"""Errors as they are returned (RFC 9457)."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from app.errors import FieldError
from app.schemas import examples
from app.schemas.base import Schema, example


class ErrorPart(Schema):
    """One invalid part of a request."""

    pointer: Annotated[str, Field(description="A JSON pointer into the body, or the parameter's name.")]
    code: str
    detail: str


class ProblemDocument(Schema):
    """An ``application/problem+json`` document."""

    model_config = example(examples.PROBLEM)

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="Stable; what a program should look at.")]
    request_id: str
    errors: list[ErrorPart] | None = None


_CODES = {
    "extra_forbidden": "unknown_field",
    "json_invalid": "malformed_json",
    "string_pattern_mismatch": "nul_character",
}
_DETAILS = {
    "extra_forbidden": "This field is not known.",
    "json_invalid": "This is not valid JSON.",
    "string_pattern_mismatch": "must not hold the character NUL",
}
_PLAIN_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


def field_errors(errors: Sequence[Mapping[str, Any]], *, skip: int = 0) -> tuple[FieldError, ...]:
    """Returns Pydantic's errors without the values they speak of; ``skip`` leaves out the beginning of each path."""
    return tuple(
        FieldError(
            "".join(f"/{_name(part)}" for part in error["loc"][skip:]),
            _CODES.get(error["type"], error["type"]),
            _DETAILS.get(error["type"]) or error["msg"].removeprefix("Value error, "),
        )
        for error in errors[:100]
    )


def _name(part: object) -> str:
    # An unknown field's name is the caller's text: shown only if it is a plain word.
    return text if _PLAIN_NAME.fullmatch(text := str(part)) else "?"
