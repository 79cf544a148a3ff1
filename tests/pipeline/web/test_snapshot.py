"""A snapshot is shared for a few seconds, by concurrent requests too, and a failure is not."""

import asyncio

import pytest

from pipeline.web.snapshot import SHARED_SECONDS, Snapshot


class Source:
    """Counts its calls; each takes one turn of the event loop."""

    def __init__(self) -> None:
        self.calls, self.now, self.fails = 0, 0.0, False

    async def take(self) -> int:
        self.calls += 1
        await asyncio.sleep(0)
        if self.fails:
            raise ValueError("away")
        return self.calls


async def test_result_is_shared_until_it_is_old() -> None:
    source = Source()
    snapshot = Snapshot(source.take, elapsed=lambda: source.now)
    assert await asyncio.gather(*(snapshot.get() for _ in range(20))) == [1] * 20
    source.now = SHARED_SECONDS - 0.1
    assert await snapshot.get() == 1
    source.now = SHARED_SECONDS
    assert await snapshot.get() == 2


async def test_failure_is_not_kept() -> None:
    source = Source()
    snapshot, source.fails = Snapshot(source.take, elapsed=lambda: source.now), True
    with pytest.raises(ValueError, match="away"):
        await snapshot.get()
    source.fails = False
    assert await snapshot.get() == 2


async def test_request_that_ends_early_does_not_end_the_check_of_the_others() -> None:
    source = Source()
    snapshot = Snapshot(source.take, elapsed=lambda: source.now)
    first = asyncio.create_task(snapshot.get())
    await asyncio.sleep(0)
    other = asyncio.create_task(snapshot.get())
    first.cancel()
    assert (await other, source.calls) == (1, 1)
