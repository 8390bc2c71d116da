"""A tunnel: bytes, both ways, until both sides have said all, or neither has said anything for too long."""

from http import HTTPStatus
from typing import Final, NoReturn

import anyio

from symbi.adapters.egress.record import Cut
from symbi.adapters.egress.streams import Inside, Outside
from symbi.sandbox.heads import Refusal

_STANDS: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"


class _Pump:
    """Passes bytes on, and counts that it does."""

    def __init__(self, inside: Inside, outside: Outside) -> None:
        self._inside = inside
        self._outside = outside
        self._moves = 0

    async def out(self) -> None:
        while data := await self._inside.receive():
            self._moves += 1
            await self._outside.send(data)
            self._moves += 1
        await self._outside.send_eof()

    async def back(self) -> None:
        while data := await self._outside.receive():
            self._moves += 1
            await self._inside.send(data)
            self._moves += 1
        await self._inside.send_eof()

    async def watch(self, idle_s: float) -> NoReturn:
        while True:
            before = self._moves
            await anyio.sleep(idle_s)
            if self._moves == before:
                raise Cut(Refusal("egress.time", HTTPStatus.GATEWAY_TIMEOUT))


async def tunnel(inside: Inside, outside: Outside, idle_s: float) -> None:
    """Say that it stands, and pass bytes on.

    Raises:
        Cut: A bound is reached, or neither side has said anything for `idle_s`.
        BrokenResourceError: A side is gone.
    """
    await inside.send(_STANDS)
    pump = _Pump(inside, outside)
    try:
        async with anyio.create_task_group() as watched:
            watched.start_soon(pump.watch, idle_s)
            async with anyio.create_task_group() as both:
                both.start_soon(pump.out)
                both.start_soon(pump.back)
            watched.cancel_scope.cancel("both sides have said all")
    except ExceptionGroup as group:
        raise _first(group) from None


def _first(error: Exception) -> Exception:
    """The one error that ended the others."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
