"""Places that many wait for: who is next, and what becomes of who waits no longer."""

import asyncio
from contextlib import suppress

from app.services.turns import Turns


async def test_who_has_the_fewest_is_next_and_nobody_is_lost() -> None:
    turns, order, gates = Turns(2), list[tuple[int, int]](), list[asyncio.Event]()

    async def work(workspace: int, job: int) -> None:
        async with turns.turn(workspace, job):
            gates.append(asyncio.Event())
            order.append((workspace, job))
            await gates[len(order) - 1].wait()

    async def settled() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work(*each)) for each in [(1, 11), (1, 11), (1, 11), (1, 12), (2, 21), (2, 22)]]
    await settled()
    assert order == [(1, 11)] * 2
    gates[0].set()
    await settled()
    assert order[2:] == [(2, 21)]  # its workspace has none
    tasks[5].cancel()
    await settled()
    gates[2].set()
    await settled()
    assert order[3:] == [(1, 12)]  # its job has none
    gates[1].set()
    await settled()
    assert order[4:] == [(1, 11)]
    for gate in gates:
        gate.set()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)
    async with asyncio.timeout(1), turns.turn(3), turns.turn(3):
        pass


async def test_who_is_cancelled_with_a_place_gives_it_back() -> None:
    turns = Turns(1)

    async def wait() -> None:
        async with turns.turn(1):
            raise AssertionError("cancelled before")

    async with turns.turn(1):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
    waiting.cancel()  # it has the place, and does not know
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    async with asyncio.timeout(1), turns.turn(2):
        pass
