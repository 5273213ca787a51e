"""Files that browsers bring: who may, and how much of them is kept at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from streamlit.runtime import Runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx

MB = 2**20
LONGEST_MB = 200
"""The longest CSV that a browser may bring: it is kept in memory until its page is left. The API takes any length."""
KEPT_MB = 600
"""How much of everybody's files is kept; while they come they lie in the folder for temporary files as well."""
FORBIDDEN, LENGTH_REQUIRED, TOO_LARGE, UNAVAILABLE = 403, 411, 413, 503

_allowed: set[str] = set()
_coming: Counter[str] = Counter()


def allow() -> None:
    """Lets the browser whose page is drawn bring files; Streamlit itself would take them from anybody."""
    if context := get_script_run_ctx():
        runtime = Runtime.instance()
        _allowed.difference_update([each for each in list(_allowed) if not runtime.is_active_session(each)])
        _allowed.add(context.session_id)


def forbid() -> None:
    """Takes no more files from the browser whose page is drawn."""
    if context := get_script_run_ctx():
        _allowed.discard(context.session_id)


def refusal(session_id: str, length: bytes | None) -> int:
    """Returns the HTTP status that refuses a file of so many bytes, or 0."""
    if session_id not in _allowed:
        return FORBIDDEN
    if length is None or not length.isdigit():
        return LENGTH_REQUIRED
    # Twice, for a file and the one that takes its place.
    if _kept(session_id) + _coming[session_id] + int(length) > 2 * (LONGEST_MB + 1) * MB:
        return TOO_LARGE
    return UNAVAILABLE if _kept() + _coming.total() + int(length) > KEPT_MB * MB else 0


@contextmanager
def coming(session_id: str, length: int) -> Iterator[None]:
    """Counts a file that is on its way."""
    _coming[session_id] += length
    try:
        yield
    finally:
        _coming[session_id] -= length
        if not _coming[session_id]:
            del _coming[session_id]


def _kept(session_id: str | None = None) -> int:
    manager = Runtime.instance().uploaded_file_mgr if Runtime.exists() else None
    if not isinstance(manager, MemoryUploadedFileManager):
        return 0
    sessions = [session_id] if session_id else list(manager.file_storage)
    return sum(len(file.data) for each in sessions for file in list(manager.file_storage.get(each, {}).values()))
