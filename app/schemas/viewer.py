"""Who is asking."""

from dataclasses import dataclass

from app.schemas.enums import Role


@dataclass(frozen=True, slots=True)
class Viewer:
    """A credential's workspace and role; the first argument of every use case that is not public.

    ``key_id`` is the API key, ``member_id`` the member who signed in or whose key it is, ``session_id`` the session of
    a token or cookie. All are None for the operator at the command line, and for a job, which no longer depends on who
    asked for it: ``on_behalf_of`` names them, as an actor, since they pay.
    """

    workspace_id: int
    role: Role
    key_id: int | None = None
    member_id: int | None = None
    session_id: int | None = None
    on_behalf_of: str | None = None

    @property
    def actor(self) -> str:
        """Who acts, as the audit log, the rate limits and the budgets name them."""
        if self.on_behalf_of is not None:
            return self.on_behalf_of
        if self.key_id is not None:
            return f"key:{self.key_id}"
        return f"member:{self.member_id}" if self.member_id is not None else OPERATOR

    @property
    def caller(self) -> tuple[int, str]:
        """Workspace and actor: whose requests are counted and remembered together."""
        return self.workspace_id, self.actor


OPERATOR = "operator"
"""Who acts through the command line."""

RETENTION = "retention"
"""Who deletes what is older than RETENTION_DAYS."""
