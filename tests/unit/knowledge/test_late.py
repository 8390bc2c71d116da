"""What is opened when somebody asks for it: once, again where it failed, and not at all once it is closed."""

from contextlib import asynccontextmanager

import anyio
import pytest

from symbi.errors import StoreUnavailable
from symbi.knowledge.late import Late

pytestmark = pytest.mark.anyio


class Door:
    """Opens as a test says, and counts."""

    def __init__(self):
        self.tried = self.open = 0
        self.error = self.closing = None
        self.gate = anyio.Event()
        self.gate.set()

    @asynccontextmanager
    async def opening(self):
        self.tried += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1
        if self.closing is not None:
            raise self.closing


async def test_it_is_opened_once_for_all_who_ask_and_closed_with_it():
    door, got = Door(), []

    async def ask(late):
        got.append(await late.opened())

    async with Late(door.opening) as late:
        assert door.tried == 0
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask, late)
        assert got == [door] * 5
        assert (door.tried, door.open) == (1, 1)
    assert door.open == 0
    with pytest.raises(StoreUnavailable, match="closed"):
        await late.opened()


async def test_who_asks_next_has_it_tried_again():
    door = Door()
    async with Late(door.opening) as late:
        door.error = StoreUnavailable("no")
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="no"):
                await late.opened()
        door.error = None
        assert await late.opened() is door
    assert door.tried == 3


async def test_who_asked_may_go_and_it_stays_open():
    door = Door()
    async with Late(door.opening) as late:
        door.gate = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(late.opened)
            while not door.tried:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        door.gate.set()
        assert await late.opened() is door
        assert door.tried == 1


async def test_what_is_never_open_is_not_waited_for():
    door, refused = Door(), []

    async def ask(late):
        try:
            await late.opened()
        except StoreUnavailable as error:
            refused.append(error.message)

    door.gate = anyio.Event()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks, Late(door.opening) as late:
            tasks.start_soon(ask, late)
            tasks.start_soon(ask, late)
            while not door.tried:
                await anyio.lowlevel.checkpoint()
    assert refused == ["it is closed"] * 2
    assert (door.tried, door.open) == (1, 0)


async def test_a_fault_of_what_opens_it_lets_nobody_wait():
    door, refused = Door(), []
    door.error = RuntimeError("a fault")

    async def ask(late):
        with pytest.raises(StoreUnavailable, match="closed"):
            await late.opened()
        refused.append(1)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            with pytest.raises(BaseExceptionGroup) as caught:
                async with Late(door.opening) as late:
                    tasks.start_soon(ask, late)
                    tasks.start_soon(ask, late)
                    await anyio.sleep_forever()
    assert caught.value.exceptions == (door.error,)
    assert len(refused) == 2


async def test_what_cannot_be_closed_says_so():
    door = Door()
    door.closing = StoreUnavailable("not written")
    with pytest.raises(StoreUnavailable, match="not written"):
        async with Late(door.opening) as late:
            await late.opened()
