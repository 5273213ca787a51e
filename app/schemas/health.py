"""How the service is."""

from app.schemas import examples
from app.schemas.base import Schema, example

STOPPING = "stopping"
"""What a server that is about to end says of itself in the state of each request."""


class Health(Schema):
    """Alive or ready, and why not; ``checks`` has a word for each dependency."""

    model_config = example(examples.HEALTH)

    status: str
    checks: dict[str, str]
