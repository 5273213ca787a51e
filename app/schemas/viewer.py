"""Who is asking."""

from dataclasses import dataclass

from app.schemas.enums import Role


@dataclass(frozen=True, slots=True)
class Viewer:
    """A credential's workspace and role; the first argument of every use case that is not public."""

    workspace_id: int
    key_id: int
    role: Role
