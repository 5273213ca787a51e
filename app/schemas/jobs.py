"""Jobs as they are asked for and answered."""

from typing import Annotated

from pydantic import Field, StrictBool, model_validator
from pydantic.json_schema import SkipJsonSchema

from app.schemas import examples
from app.schemas.base import Id, Schema, example
from app.schemas.enums import JobStatus
from app.schemas.search import ConversationFilter

JOB_SIZE = 10_000
"""How many conversations a job may have."""
ERRORS_SHOWN = 100

_SELECTIONS = {"conversation_ids", "filter"}


class JobRequest(Schema):
    """Which conversations to summarise: by their ids, or by the filters of `GET /chats`."""

    model_config = example(examples.JOB_REQUEST, oneOf=[{"required": [name]} for name in sorted(_SELECTIONS)])

    conversation_ids: Annotated[list[Id], Field(min_length=1, max_length=JOB_SIZE)] | SkipJsonSchema[None] = None
    filter: Annotated[
        ConversationFilter | SkipJsonSchema[None],
        Field(description="With no condition in it: all conversations. At most 10,000 may match."),
    ] = None
    force: Annotated[StrictBool, Field(description="Summarises anew even what has not changed.")] = False
    batch: Annotated[
        StrictBool,
        Field(
            description="Lets one prompt show a model several short conversations. That is cheaper, but what is said in"
            " one of them may then colour the summary of another. Otherwise each prompt shows one conversation."
        ),
    ] = False
    dry_run: Annotated[StrictBool, Field(description="Only tells what it would take; no job is made.")] = False

    @model_validator(mode="after")
    def _check_selection(self) -> "JobRequest":
        given = _SELECTIONS & self.model_fields_set
        if len(given) != 1 or getattr(self, *given) is None:
            raise ValueError("must have either conversation_ids or filter")
        return self


class JobEstimate(Schema):
    """What a job would take. A token is reckoned as four characters; nothing is read or spent to tell it."""

    model_config = example(examples.JOB_ESTIMATE)

    conversations: Annotated[int, Field(description="How many there are.")]
    to_read: Annotated[int, Field(description="Of how many the summary is missing or stale; the others cost nothing.")]
    calls: Annotated[int, Field(description="How many prompts that is, if each is answered at once.")]
    tokens: Annotated[int, Field(description="What the model would read and write.")]
    cost_usd: Annotated[float | None, Field(description="By the first model's list price; null if that is not known.")]
    model: str


class JobError(Schema):
    """A conversation that was not summarised, and why: a stable code."""

    conversation_id: str
    code: str


class Job(Schema):
    """How far a job is; each conversation counts once, as `done` or as `failed`."""

    model_config = example(examples.JOB)

    id: str
    status: JobStatus
    total: int
    done: int
    failed: Annotated[int, Field(description="Conversations that were deleted before their turn are among them.")]
    errors: Annotated[list[JobError], Field(description="The first 100.")]
    cost_usd: float
