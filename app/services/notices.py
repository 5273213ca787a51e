"""Notices: that something changed in a conversation, and nothing of what.

Their topics are keyed hashes, different in every workspace: whoever reads the database's log or listens along learns
neither the conversation nor whose it is.
"""

from collections.abc import Iterable

from app.db import Unit
from app.repositories.live import notices_of
from app.security.blind_index import keyed_hash
from app.security.encryption import WorkspaceKeys


def topic(keys: WorkspaceKeys, conversation_id: str) -> str:
    """Returns how notices name a conversation."""
    return keyed_hash(keys.notice_key, conversation_id)


def notices(keys: WorkspaceKeys, conversation_ids: Iterable[str]) -> list[str]:
    """Returns the notices that wake the live readers of conversations."""
    key = keys.notice_key
    return notices_of([keyed_hash(key, conversation_id) for conversation_id in conversation_ids])


async def announce(unit: Unit, keys: WorkspaceKeys, conversation_ids: Iterable[str]) -> None:
    """Wakes the live readers of conversations, on every instance, once the transaction is committed."""
    await unit.live.notify(notices(keys, conversation_ids))
