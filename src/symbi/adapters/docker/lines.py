"""Lines out of a container, this side of them: channels in its frames as byte streams, each served by the proxy.

What comes in the frames is hostile. A frame that breaks the rules of `symbi.sandbox.inside.lines` ends the sandbox; one
for a channel that is over is passed over, as it may have crossed its end on the way.
"""

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, TaskGroup

from symbi.errors import SandboxUnavailable
from symbi.sandbox.inside.lines import MOST, PIECE, WINDOW

TELL_AFTER: Final = WINDOW // 4  # taken bytes are told of in portions
MOST_ENCODED: Final = 4 * (-(-PIECE // 3))
MOST_AROUND: Final = 256  # what stands in a frame beside the data
MOST_KEPT: Final = 2 * MOST  # a channel may be over inside, and another begin, while the first is still served here
STALLED_S: Final = 5.0  # for one frame: the first process takes what comes at once

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Serve = Callable[[ByteStream], Awaitable[None]]


class Line(ByteStream):
    """One channel.

    Args:
        number: Its id.
        send: Takes a frame to the container; waits while the container takes none.
    """

    def __init__(self, number: int, send: Send) -> None:
        self._number = number
        self._send = send
        self._waiting = bytearray()
        self._untold = 0
        self._may_send = WINDOW
        self._ended = self._broken = self._closed = self._sent_end = False
        self._moved = anyio.Event()

    async def receive(self, max_bytes: int = PIECE) -> bytes:
        """The next bytes; see `anyio.abc.ByteReceiveStream`."""
        while not self._waiting:
            self._raise_if_over()
            if self._ended:
                raise anyio.EndOfStream
            await self._moved.wait()
        data = bytes(self._waiting[:max_bytes])
        del self._waiting[: len(data)]
        self._untold += len(data)
        if self._untold >= TELL_AFTER:
            count, self._untold = self._untold, 0
            await self._tell("more", count=count)
        return data

    async def send(self, item: bytes) -> None:
        """Say it all, as fast as the container takes it."""
        view = memoryview(item)
        while view:
            self._raise_if_over()
            if not self._may_send:
                await self._moved.wait()
                continue
            piece = view[: min(PIECE, self._may_send)]
            view = view[len(piece) :]
            self._may_send -= len(piece)
            await self._tell("data", data=base64.b64encode(piece).decode("ascii"))

    async def send_eof(self) -> None:
        """Say no more."""
        if not self._sent_end:
            self._raise_if_over()
            self._sent_end = True
            await self._tell("end")

    async def aclose(self) -> None:
        """End both directions."""
        if not self._closed:
            self._closed = True
            self._move()
            if not self._broken:
                with suppress(anyio.BrokenResourceError):
                    await self._tell("close")

    def heard(self, op: object, frame: Mapping[str, Any]) -> bool:
        """Take a frame of this channel; whether it keeps the rules."""
        match op, frame.get("data"), frame.get("count"):
            case "data", str(text), _ if len(text) <= MOST_ENCODED and not self._ended:
                try:
                    data = base64.b64decode(text, validate=True)
                except (binascii.Error, ValueError):
                    return False
                if len(self._waiting) + self._untold + len(data) > WINDOW or not data:
                    return False
                if not self._closed:
                    self._waiting += data
            case "more", _, int(count) if 0 < count <= WINDOW - self._may_send:
                self._may_send += count
            case "end", _, _:
                self._ended = True
            case "close", _, _:
                self._broken = True
            case _:
                return False
        self._move()
        return True

    def _move(self) -> None:
        self._moved.set()
        self._moved = anyio.Event()

    def _raise_if_over(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        if self._broken:
            raise anyio.BrokenResourceError

    async def _tell(self, op: str, **more: object) -> None:
        await self._send({"kind": "line", "op": op, "id": self._number, **more})


class Lines:
    """The channels of one container.

    Args:
        send: Takes a frame to the container, one at a time.
        serve: Talks with whoever opened a channel.
        tasks: Where that is done; ends before the container does.
    """

    def __init__(self, send: Send, serve: Serve, tasks: TaskGroup) -> None:
        self._write = send
        self._serve = serve
        self._tasks = tasks
        self._lock = anyio.Lock()
        self._lines: dict[int, Line] = {}
        self._last = 0
        self._stalled = False

    def take(self, frame: Mapping[str, Any]) -> None:
        """A frame of the kind `line`.

        Raises:
            SandboxUnavailable: It breaks the rules.
        """
        number, op = frame.get("id"), frame.get("op")
        if not isinstance(number, int) or isinstance(number, bool):
            raise _no_rule()
        if op == "open":
            if number != self._last + 1 or len(self._lines) >= MOST_KEPT:
                raise _no_rule()
            self._last = number
            line = self._lines[number] = Line(number, self._send)
            self._tasks.start_soon(self._attend, number, line)
            return
        known = self._lines.get(number)
        if known is None:
            if not 0 < number <= self._last:
                raise _no_rule()
        elif not known.heard(op, frame):
            raise _no_rule()

    async def _attend(self, number: int, line: Line) -> None:
        try:
            async with line:
                await self._serve(line)
        finally:
            del self._lines[number]

    async def _send(self, frame: Mapping[str, Any]) -> None:
        async with self._lock:
            if self._stalled:
                raise anyio.BrokenResourceError
            self._stalled = True  # unless all of it goes out: half a frame is none
            with anyio.move_on_after(STALLED_S, shield=True):
                try:
                    await self._write(frame)
                except SandboxUnavailable:  # the container is gone, and whoever waits for its answer says so
                    raise anyio.BrokenResourceError from None
                self._stalled = False
        if self._stalled:
            raise anyio.BrokenResourceError


def line_frame(data: bytes) -> Mapping[str, Any] | None:
    """A frame of the kind `line`; None for any other, which is for somebody else to read."""
    if len(data) > MOST_ENCODED + MOST_AROUND:
        return None
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and told.get("kind") == "line" else None


def _no_rule() -> SandboxUnavailable:
    return SandboxUnavailable("what the sandbox says on a line is no frame", code="unavailable.sandbox_answer")
