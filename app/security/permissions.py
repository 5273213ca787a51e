"""Who may do what.

- A viewer reads, and says what they think of summaries.
- An editor also stores, summarises and analyses.
- An admin also deletes, manages keys, members and settings, and reads the audit log.
"""

from app.errors import Forbidden
from app.schemas.enums import Role
from app.schemas.viewer import Viewer

_RANK = {Role.VIEWER: 0, Role.EDITOR: 1, Role.ADMIN: 2}


def require(viewer: Viewer, needed: Role) -> None:
    """Raises ``Forbidden`` unless the viewer's role is at least ``needed``."""
    if _RANK[viewer.role] < _RANK[needed]:
        raise Forbidden(f"This needs the role {needed}; the credential has the role {viewer.role}.")


def narrower(one: Role, other: Role | None) -> Role:
    """Returns the weaker of two roles; None does not narrow."""
    return one if other is None or _RANK[one] <= _RANK[other] else other
