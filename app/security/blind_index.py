"""Keyed hashes, by which encrypted text is found.

HMAC-SHA-256 (RFC 2104) truncated to 96 bits. PostgreSQL computes the lexemes. Those of many texts are hashed here,
where most are known from texts before; for few texts, and for a search, the same functions exist in SQL
(``keyed_lexeme``, ``keyed_tsvector``), where they take the two padded keys.
"""

import base64
import hashlib
import hmac
import re
from functools import lru_cache, partial
from typing import NamedTuple

BLOCK_BYTES = 64
HASH_BYTES = 12
LEXEMES_KEPT = 2**14

_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_LEXEME = re.compile(r"('[^']*+(?:''[^']*+)*+')")


class SearchPads(NamedTuple):
    """A search key, padded for the inner and the outer hash of HMAC."""

    inner: bytes
    outer: bytes


def search_pads(key: bytes) -> SearchPads:
    """Returns the pads of a key of at most 64 bytes."""
    block = key.ljust(BLOCK_BYTES, b"\0")
    return SearchPads(block.translate(_INNER), block.translate(_OUTER))


def keyed_hash(key: bytes, text: str) -> str:
    """Returns 16 characters that stand for ``text``."""
    return base64.b64encode(hmac.digest(key, text.encode(), hashlib.sha256)[:HASH_BYTES]).decode()


def keyed_tsvector(key: bytes, tsvector: str) -> str:
    """Returns a tsvector, as PostgreSQL writes it, with its lexemes hashed."""
    parts = _LEXEME.split(tsvector)
    parts[1::2] = map(partial(_keyed_lexeme, key), parts[1::2])
    return "".join(parts)


@lru_cache(LEXEMES_KEPT)
def _keyed_lexeme(key: bytes, quoted: str) -> str:
    lexeme = quoted[1:-1].replace("''", "'").replace("\\\\", "\\")
    return f"'{keyed_hash(key, lexeme)}'"


def keyword_hash(key: bytes, keyword: str) -> str:
    """Returns what stands for a keyword, whatever its case and spacing."""
    return keyed_hash(key, "keyword\0" + " ".join(keyword.casefold().split()))
