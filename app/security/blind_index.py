"""Keyed hashes, by which encrypted text is found.

HMAC-SHA-256 (RFC 2104) truncated to 96 bits. The same function exists in SQL (``keyed_lexeme``), where it takes the two
padded keys, since PostgreSQL computes the lexemes.
"""

import base64
import hashlib
import hmac
from typing import NamedTuple

BLOCK_BYTES = 64
HASH_BYTES = 12


class SearchPads(NamedTuple):
    """A search key, padded for the inner and the outer hash of HMAC."""

    inner: bytes
    outer: bytes


def search_pads(key: bytes) -> SearchPads:
    """Returns the pads of a key of at most 64 bytes."""
    block = key.ljust(BLOCK_BYTES, b"\0")
    return SearchPads(bytes(b ^ 0x36 for b in block), bytes(b ^ 0x5C for b in block))


def keyed_hash(key: bytes, text: str) -> str:
    """Returns 16 characters that stand for ``text``."""
    return base64.b64encode(hmac.digest(key, text.encode(), hashlib.sha256)[:HASH_BYTES]).decode()


def keyword_hash(key: bytes, keyword: str) -> str:
    """Returns what stands for a keyword, whatever its case and spacing."""
    return keyed_hash(key, "keyword\0" + " ".join(keyword.casefold().split()))
