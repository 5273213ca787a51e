"""How the service is."""

from app.schemas.base import Schema


class Health(Schema):
    """Alive or ready, and why not; ``checks`` has a word for each dependency."""

    status: str
    checks: dict[str, str]
