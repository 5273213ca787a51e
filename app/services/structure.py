"""A look at JSON before it is parsed: a body of brackets and commas costs the parser a hundred times its size."""

from itertools import accumulate

from app.errors import Invalid, Malformed

NESTING = 64
PARTS = 16
"""More braces, brackets and commas than a message has."""

QUOTES = 64
"""More unescaped quotes than a message has."""

_STRUCTURE = b"[]{},"
_OTHERS = bytes(set(range(256)) - set(_STRUCTURE))
_STEPS = {byte: (byte in b"[{") - (byte in b"]}") for byte in _STRUCTURE}


def check_json(body: bytes, *, messages: int) -> None:
    """Refuses JSON that has more parts than so many messages, or is nested deeper than 64.

    Raises:
        Invalid: if there are too many parts.
        Malformed: if it is nested too deep.
    """
    # Without escapes, every other part between quotes is a string; an escape outside a string ends the parser's work.
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > QUOTES * messages:
        raise Invalid("The JSON has too many fields.")
    structure = b"".join(plain.split(b'"')[::2]).translate(None, _OTHERS)
    if max(accumulate(map(_STEPS.__getitem__, structure[: PARTS * messages])), default=0) > NESTING:
        raise Malformed(f"The JSON is nested deeper than {NESTING}.")
    if len(structure) > PARTS * messages:
        raise Invalid("The JSON has too many parts.")
