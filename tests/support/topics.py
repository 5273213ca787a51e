"""The process that finds topics, kept for the next test: to start one and load its libraries takes over a second."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from app.llm.topics import TopicReader
from app.settings import ROOT


class Kept:
    """A process on pipes that belong to no event loop, with as much of asyncio's interface as its reader uses."""

    def __init__(self, stack: ExitStack) -> None:
        self._popen = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "app.llm.local.topics"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        )
        stack.callback(self._popen.kill)
        self.stdin = self.stdout = self
        self.is_asked = False
        """Whether it owes an answer, which the next one who asks would take for theirs."""

    def write(self, command: bytes) -> None:
        self.is_asked = True
        self._command = command

    async def drain(self) -> None:
        assert self._popen.stdin
        await asyncio.to_thread(self._popen.stdin.write, self._command)
        await asyncio.to_thread(self._popen.stdin.flush)

    async def readline(self) -> bytes:
        assert self._popen.stdout
        line = await asyncio.to_thread(self._popen.stdout.readline)
        self.is_asked = False
        return line


class KeptReaders:
    """Processes for who finds topics: one that nobody uses, or else a new one."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._idle: list[Kept] = []

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[TopicReader]:
        """Yields one, as ``topic_reader`` does."""
        kept = self._idle.pop() if self._idle else Kept(self._stack)
        try:
            yield TopicReader(kept)  # type: ignore[arg-type]
        finally:
            if not kept.is_asked:
                self._idle.append(kept)
