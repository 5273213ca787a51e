"""A look at JSON before it is parsed: a body of brackets and commas costs the parser a hundred times its size."""

import re

from app.errors import Invalid, Malformed

NESTING = 64
PARTS = 16
"""More braces, brackets and commas than a message has."""

QUOTES = 64
"""More unescaped quotes than a message has."""

# A string, up to the end where it is not closed: every byte is looked at once.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_STRUCTURE = b"[]{},"
_OTHERS = bytes(set(range(256)) - set(_STRUCTURE))


def check_json(body: bytes, *, messages: int) -> None:
    """Refuses JSON that has more parts than so many messages, or is nested deeper than 64.

    Raises:
        Invalid: if there are too many parts.
        Malformed: if it is nested too deep.
    """
    if body.count(b'"') - body.count(rb"\"") > QUOTES * messages:
        raise Invalid("The JSON has too many fields.")
    structure = _STRING.sub(b"", body).translate(None, _OTHERS)
    depth = 0
    for byte in structure[: PARTS * messages]:
        depth += (byte in b"[{") - (byte in b"]}")
        if depth > NESTING:
            raise Malformed(f"The JSON is nested deeper than {NESTING}.")
    if len(structure) > PARTS * messages:
        raise Invalid("The JSON has too many parts.")
