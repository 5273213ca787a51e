"""Notices: that something changed in a conversation, and nothing of what.

Their topics are keyed hashes, different in every workspace: whoever reads the database's log or listens along learns
neither the conversation nor whose it is.
"""

from collections.abc import Iterable

from app.db import Unit
from app.security.blind_index import keyed_hash
from app.security.encryption import WorkspaceKeys


def topic(keys: WorkspaceKeys, conversation_id: str) -> str:
    """Returns how notices name a conversation."""
    return keyed_hash(keys.notice_key, conversation_id)


def announce(unit: Unit, keys: WorkspaceKeys, conversation_ids: Iterable[str]) -> None:
    """Wakes the live readers of conversations, on every instance, once the transaction is committed."""
    key = keys.notice_key
    unit.topics.update(keyed_hash(key, conversation_id) for conversation_id in conversation_ids)
