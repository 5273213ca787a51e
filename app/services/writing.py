"""Texts while they are written: those of one process, for everybody there who watches.

A reader is told what was added to the text since the last look, however long ago that was; so a slow reader costs one
text, and nobody waits for another. What is told of a text that came to nothing is taken back by a restart.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.schemas.live import SummaryDelta, SummaryRestarted

Place = tuple[int, str]
"""Workspace and conversation."""


class Writings:
    """The texts that somebody watches."""

    def __init__(self) -> None:
        self._watched: dict[Place, _Text] = {}

    @contextmanager
    def watch(self, place: Place, wake: Callable[[], None]) -> Iterator["Reader"]:
        """Yields a reader; ``wake`` is called when there is something new, as it may be already."""
        text = self._watched.setdefault(place, _Text())
        text.wakes.append(wake)
        if text.written:
            wake()
        try:
            yield Reader(text)
        finally:
            text.wakes.remove(wake)
            if not text.wakes:
                del self._watched[place]

    @contextmanager
    def writing(self, place: Place) -> Iterator["Writer"]:
        """Yields what takes a text from a model until it is stored."""
        writer = Writer(self._watched, place)
        writer.begin("superseded")
        try:
            yield writer
        except BaseException:
            writer.restarted("failed")
            raise
        writer.end()


class _Text:
    """A text so far, ``live`` until it is stored; another ``number`` is another text, for the ``reason`` given."""

    def __init__(self) -> None:
        self.wakes: list[Callable[[], None]] = []
        self.written = ""
        self.live = False
        self.number = 0
        self.reason = ""

    def begin(self, reason: str) -> None:
        self.number += 1
        self.written, self.live, self.reason = "", True, reason
        self.wake()

    def wake(self) -> None:
        for wake in self.wakes:
            wake()


class Writer:
    """A model's side of a text."""

    def __init__(self, watched: dict[Place, _Text], place: Place) -> None:
        self._watched = watched
        self._place = place

    @property
    def listening(self) -> bool:
        """Whether anybody watches."""
        return self._place in self._watched

    def begin(self, reason: str) -> None:
        """Begins another text."""
        if text := self._watched.get(self._place):
            text.begin(reason)

    def wrote(self, written: str) -> None:
        """Takes the text so far."""
        if text := self._watched.get(self._place):
            if not written.startswith(text.written):
                text.begin("rewritten")
            text.written, text.live = written, True
            text.wake()

    def restarted(self, reason: str) -> None:
        """Takes it that the text so far is void, and why."""
        text = self._watched.get(self._place)
        if text and text.written:
            text.begin(reason)

    def end(self) -> None:
        """Forgets the text: it is stored."""
        if text := self._watched.get(self._place):
            text.written, text.live = "", False


class Reader:
    """A reader's side of a text."""

    def __init__(self, text: _Text) -> None:
        self._text = text
        self._number = text.number
        self._over = -1
        self._told = ""

    def news(self) -> list[SummaryDelta | SummaryRestarted]:
        """Returns what was written, or begun anew, since the last time."""
        text, events = self._text, list[SummaryDelta | SummaryRestarted]()
        if text.number == self._over:
            return events
        if text.number != self._number:
            if self._told:
                events.append(SummaryRestarted(reason=text.reason))
            self._number, self._told = text.number, ""
        if len(text.written) > len(self._told):
            events.append(SummaryDelta(text=text.written[len(self._told) :]))
            self._told = text.written
        return events

    def finish(self, final: str) -> list[SummaryDelta | SummaryRestarted]:
        """Returns what is missing of a final text, for who was told some of it; then the next text begins."""
        text, told, events = self._text, self._told, list[SummaryDelta | SummaryRestarted]()
        if not final.startswith(told):
            events.append(SummaryRestarted(reason="superseded"))
            events.append(SummaryDelta(text=final))
        elif told and len(final) > len(told):
            events.append(SummaryDelta(text=final[len(told) :]))
        # The next one may have begun before this one was told.
        self._over = -1 if text.live and text.written != final else text.number
        self._number, self._told = text.number, ""
        return events
