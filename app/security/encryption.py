"""Encryption at rest.

A master key wraps one data key a workspace; the data key yields, by HKDF-Expand with SHA-256 (RFC 5869), a subkey for
each conversation and a key for searching. Texts are AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce. What a
text belongs to is its associated data, so a ciphertext moved to another place does not open.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from app.errors import ConfigurationError

KEY_BYTES = 32
NONCE_BYTES = 12
TEXT_AT = 1 + NONCE_BYTES
DATA_KEY_ID = b"\x01"
"""The first byte of every blob: which of the workspace's data keys it is under. There is one."""


def derive(key: bytes, purpose: str, context: str = "") -> bytes:
    """Returns the 32-byte subkey of ``key`` for a purpose and a context."""
    return HKDFExpand(SHA256(), KEY_BYTES, f"{purpose}\0{context}".encode()).derive(key)


MESSAGE = "message"
"""The kind of text that messages are; summaries and insights are kinds of their own."""


class ConversationCipher:
    """Seals and opens what belongs to one conversation."""

    def __init__(self, workspace_id: int, conversation_id: str, aead: AESGCM) -> None:
        self.conversation_id = conversation_id
        self._aead = aead
        self._place = f"{workspace_id}\0{conversation_id}\0".encode()

    def seal(self, kind: str, name: str, text: str) -> bytes:
        """Returns ``text`` encrypted; ``kind`` and ``name`` say what it is: a message's id, a part of a summary."""
        nonce = os.urandom(NONCE_BYTES)
        return DATA_KEY_ID + nonce + self._aead.encrypt(nonce, text.encode(), self._belongs(DATA_KEY_ID, kind, name))

    def open(self, kind: str, name: str, blob: bytes) -> str:
        """Returns the text of a blob.

        Raises:
            cryptography.exceptions.InvalidTag: if it was changed, moved, or is under another key.
        """
        belongs = self._belongs(blob[:1], kind, name)
        return self._aead.decrypt(blob[1:TEXT_AT], blob[TEXT_AT:], belongs).decode()

    def _belongs(self, key_id: bytes, kind: str, name: str) -> bytes:
        return key_id + self._place + f"{kind}\0{name}".encode()


@dataclass(frozen=True, repr=False)
class WorkspaceKeys:
    """What a workspace's data key yields."""

    workspace_id: int
    data_key: bytes

    def conversation(self, conversation_id: str) -> ConversationCipher:
        """Returns the cipher of a conversation."""
        subkey = derive(self.data_key, "conversation", conversation_id)
        return ConversationCipher(self.workspace_id, conversation_id, AESGCM(subkey))

    @cached_property
    def search_key(self) -> bytes:
        """The key under which lexemes and keywords are hashed."""
        return derive(self.data_key, "search")

    @cached_property
    def audit_key(self) -> bytes:
        """The key under which the audit log hashes the ids of conversations."""
        return derive(self.data_key, "audit")

    @cached_property
    def notice_key(self) -> bytes:
        """The key under which notices to live readers hash the ids of conversations."""
        return derive(self.data_key, "notices")

    @cached_property
    def topics_key(self) -> bytes:
        """The key under which topics and their words are sealed."""
        return derive(self.data_key, "topics")

    @cached_property
    def webhook_key(self) -> bytes:
        """The key under which URLs and secrets of webhooks are sealed."""
        return derive(self.data_key, "webhooks")


def seal(key: bytes, data: bytes, belongs: bytes) -> bytes:
    """Returns ``data`` encrypted under a key of its own purpose; ``belongs`` says where it stands."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, belongs)


def unseal(key: bytes, blob: bytes, belongs: bytes) -> bytes:
    """Returns what ``seal`` encrypted; raises ``InvalidTag`` as ``ConversationCipher.open`` does."""
    return AESGCM(key).decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], belongs)


class MasterKeys:
    """The master keys, the current one first; older ones still open what they wrapped."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.current_id = key_id(keys[0])
        self._keys = {key_id(key): AESGCM(key) for key in keys}

    def wrap(self, keys: WorkspaceKeys) -> bytes:
        """Returns the data key wrapped by the current master key."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._keys[self.current_id].encrypt(nonce, keys.data_key, _wrap_context(keys.workspace_id))

    def unwrap(self, workspace_id: int, master_key_id: str, wrapped: bytes) -> WorkspaceKeys:
        """Returns the keys of a workspace.

        Raises:
            ConfigurationError: if the master key that wrapped them is not among these.
        """
        aead = self._keys.get(master_key_id)
        if aead is None:
            raise ConfigurationError(
                f"The data is under master key {master_key_id}, which neither MASTER_KEY nor PREVIOUS_MASTER_KEYS has."
            )
        try:
            data_key = aead.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _wrap_context(workspace_id))
        except InvalidTag:
            raise ConfigurationError(
                f"The data key of workspace {workspace_id} does not open: it was changed."
            ) from None
        return WorkspaceKeys(workspace_id, data_key)


def key_id(key: bytes) -> str:
    """Returns a short public name of a key, from which it cannot be found."""
    return hashlib.sha256(b"master key id\0" + key).hexdigest()[:16]


def new_workspace_keys(workspace_id: int) -> WorkspaceKeys:
    """Returns keys from a fresh random data key."""
    return WorkspaceKeys(workspace_id, os.urandom(KEY_BYTES))


def _wrap_context(workspace_id: int) -> bytes:
    return f"workspace\0{workspace_id}".encode()
