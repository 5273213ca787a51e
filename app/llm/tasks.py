"""What a model can be asked: a prompt, and the shape of the answer."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from app.schemas.drafts import Draft, InsightsDraft, SummaryDraft

D = TypeVar("D", bound=Draft)

_PROMPTS = Path(__file__).parent / "prompts"


@dataclass(frozen=True, slots=True)
class Task(Generic[D]):
    """A question to a model; ``version`` is the prompt's name and fingerprint."""

    name: str
    prompt: str
    answer: type[D]

    @property
    def version(self) -> str:
        """The prompt's name and the beginning of its SHA-256."""
        return f"{self.name}-{hashlib.sha256(self.prompt.encode()).hexdigest()[:12]}"


SUMMARY = Task("summary", (_PROMPTS / "summary.md").read_text(), SummaryDraft)
INSIGHTS = Task("insights", (_PROMPTS / "insights.md").read_text(), InsightsDraft)
