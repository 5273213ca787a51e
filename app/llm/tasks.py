"""What a model can be asked: prompts, and the shape of the answer."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from app.schemas.drafts import Draft, InsightsDraft, SummariesDraft, SummaryDraft

D = TypeVar("D", bound=Draft)

PROMPTS = Path(__file__).parent / "prompts"


def _read(name: str, folder: Path = PROMPTS) -> str:
    """Returns a prompt of a folder, or the built-in one if the folder has none of that name."""
    file = folder / f"{name}.md"
    return (file if file.is_file() else PROMPTS / file.name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Task(Generic[D]):
    """A question to a model; each way to ask it is the same prompt, and what is different about that way behind it."""

    name: str
    prompt: str
    answer: type[D]
    folder: Path = PROMPTS

    @cached_property
    def part(self) -> str:
        """The prompt for a part of a conversation."""
        return self.prompt + _read("part", self.folder)

    @cached_property
    def merge(self) -> str:
        """The prompt for the answers of several parts."""
        return self.prompt + _read("merge", self.folder)

    @cached_property
    def update(self) -> str:
        """The prompt for an earlier answer and what came since."""
        return self.prompt + _read("update", self.folder)

    @cached_property
    def version(self) -> str:
        """The name and the beginning of the SHA-256 of all its prompts."""
        prompts = "\0".join((self.prompt, self.part, self.merge, self.update))
        return f"{self.name}-{hashlib.sha256(prompts.encode()).hexdigest()[:12]}"


def summary_task(folder: Path = PROMPTS) -> Task[SummaryDraft]:
    """Returns the task of summarising with the prompts of a folder."""
    return Task("summary", _read("summary", folder), SummaryDraft, folder)


SUMMARY = summary_task()
SUMMARIES = Task("summaries", _read("summary") + _read("batch"), SummariesDraft)
INSIGHTS = Task("insights", _read("insights"), InsightsDraft)
