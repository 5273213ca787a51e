"""Feedback on summaries."""

from datetime import datetime

from app.db import Database
from app.errors import NotFound
from app.schemas.analyses import Provenance
from app.schemas.feedback import Feedback, FeedbackDetails, FeedbackIn, SummaryVersion
from app.schemas.viewer import Viewer
from app.services.workspaces import WorkspaceService

KIND = "feedback"


class FeedbackService:
    """What people think of the summaries of the viewer's workspace."""

    def __init__(self, db: Database, workspaces: WorkspaceService) -> None:
        self._db = db
        self._workspaces = workspaces

    async def give(self, viewer: Viewer, conversation_id: str, given: FeedbackIn) -> Feedback:
        """Stores what the viewer thinks of the summary as it stands; said again, it replaces the former.

        Raises:
            NotFound: if there is no summary.
        """
        cipher = (await self._workspaces.keys(viewer.workspace_id)).conversation(conversation_id)
        async with self._db.write() as unit:
            await unit.feedback.hold(viewer.workspace_id, conversation_id)
            summary = await unit.analyses.get("summary", viewer.workspace_id, conversation_id)
            if summary is None:
                raise NotFound("There is no such conversation, or no summary was made of it.")
            made = Provenance.model_validate_json(cipher.open("summary", "provenance", summary.parts["provenance"]))
            version = SummaryVersion(
                prompt_version=made.prompt_version,
                input_sha256=made.input_sha256,
                model=made.model,
                updated_at=summary.updated_at,
            )
            details = FeedbackDetails(comment=given.comment, corrections=given.corrections, summary_version=version)
            created_at, updated_at = await unit.feedback.put(
                viewer.caller,
                conversation_id,
                summary_updated_at=version.updated_at,
                rating=given.rating,
                details=cipher.seal(KIND, _place(viewer.actor, version.updated_at), details.model_dump_json()),
            )
        return Feedback(
            **dict(details),
            conversation_id=conversation_id,
            rating=given.rating,
            created_at=created_at,
            updated_at=updated_at,
        )

    async def newest(self, viewer: Viewer, limit: int) -> list[Feedback]:
        """Returns what was said last about summaries of the viewer's workspace, newest first."""
        keys = await self._workspaces.keys(viewer.workspace_id)
        async with self._db.read() as unit:
            rows = await unit.feedback.newest(viewer.workspace_id, limit)
        return [
            Feedback(
                **dict(
                    FeedbackDetails.model_validate_json(
                        keys.conversation(row.conversation_id).open(
                            KIND, _place(row.actor, row.summary_updated_at), row.details
                        )
                    )
                ),
                conversation_id=row.conversation_id,
                rating=row.rating,
                created_at=row.created_at,
                updated_at=row.updated_at,
            )
            for row in rows
        ]


def _place(actor: str, summary_updated_at: datetime) -> str:
    return f"{actor} {summary_updated_at.isoformat()}"
