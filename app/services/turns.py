"""A bounded number of places that many wait for."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple


class _Waiting(NamedTuple):
    owners: tuple[int, ...]
    place: asyncio.Future[None]


class Turns:
    """Places that go to whose owners have the fewest; among equals, to who has waited longest."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._held: Counter[int] = Counter()
        self._waiting: list[_Waiting] = []

    @asynccontextmanager
    async def turn(self, *owners: int) -> AsyncIterator[None]:
        """Waits for a place and has it until the block ends; of the owners, the first counts most."""
        place = asyncio.get_running_loop().create_future()
        waiting = _Waiting(owners, place)
        self._waiting.append(waiting)
        self._admit()
        try:
            await place
            yield
        finally:
            if place.cancelled():
                self._waiting.remove(waiting)
            else:
                self._free += 1
                self._held -= Counter(owners)
            self._admit()

    def _admit(self) -> None:
        while self._free and (waiting := [each for each in self._waiting if not each.place.done()]):
            first = min(waiting, key=lambda each: [self._held[owner] for owner in each.owners])
            self._waiting.remove(first)
            self._free -= 1
            self._held.update(first.owners)
            first.place.set_result(None)
