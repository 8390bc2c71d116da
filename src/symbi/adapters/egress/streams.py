"""Both ends of a connection: the sandbox's, which is hostile, and the outside's, which is counted."""

from http import HTTPStatus
from typing import Final

import anyio
from anyio.abc import ByteStream

from symbi.adapters.egress.record import Meter, Use
from symbi.sandbox.egress import EgressLimits
from symbi.sandbox.heads import MALFORMED, TOO_LARGE, Refusal

PIECE: Final = 65_536
LAST_WORD_S: Final = 2.0  # for a refusal to be taken
_END: Final = b"\r\n\r\n"


class Inside:
    """The sandbox's end.

    Args:
        stream: Its line.
        limits: Of its sandbox.
    """

    def __init__(self, stream: ByteStream, limits: EgressLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._rest = b""
        self.answered = False

    @property
    def idle_s(self) -> float:
        """How long nothing may come or go."""
        return self._limits.idle_s

    @property
    def limits(self) -> EgressLimits:
        """Of its sandbox."""
        return self._limits

    async def head(self) -> bytes | Refusal:
        """The head of a request with the empty line at its end.

        Raises:
            EndOfStream: The sandbox has hung up before that.
        """
        data = bytearray()
        while (at := data.find(_END)) < 0:
            if len(data) > self._limits.head_bytes:
                return TOO_LARGE
            data += await self._stream.receive(PIECE)
            if not 0x41 <= data[0] <= 0x5A:  # noqa: PLR2004 - a method begins with a capital letter, TLS does not
                return MALFORMED
        if at + len(_END) > self._limits.head_bytes:
            return TOO_LARGE
        self._rest = bytes(data[at + len(_END) :])
        return bytes(data[: at + len(_END)])

    async def receive(self) -> bytes:
        """What comes after the head; empty at the end."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        try:
            return await self._stream.receive(PIECE)
        except anyio.EndOfStream:
            return b""

    async def send(self, data: bytes) -> None:
        """Tell the sandbox."""
        self.answered = True
        await self._stream.send(data)

    async def tell_to_go_on(self, data: bytes) -> None:
        """Tell the sandbox what is no answer yet."""
        await self._stream.send(data)

    async def send_eof(self) -> None:
        """Tell it no more."""
        await self._stream.send_eof()

    async def refuse(self, refusal: Refusal) -> None:
        """Name the rule, and nothing else; where an answer has begun, it is cut off."""
        if self.answered:
            return
        status = HTTPStatus(refusal.status)
        body = f"{refusal.rule}\n"
        text = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        )
        with anyio.move_on_after(LAST_WORD_S):
            await self.send(text.encode("ascii"))


class Outside:
    """The other end.

    Args:
        stream: The connection with it.
        meter: Counts for the sandbox.
        use: Counts for the connection.
    """

    def __init__(self, stream: ByteStream, meter: Meter, use: Use) -> None:
        self._stream = stream
        self._meter = meter
        self._use = use

    async def send(self, data: bytes) -> None:
        """Pass on what the sandbox says.

        Raises:
            Cut: It may say no more.
        """
        await self._meter.spend(self._use, sent=len(data))
        await self._stream.send(data)

    async def receive(self) -> bytes:
        """What the sandbox will be told; empty at the end.

        Raises:
            Cut: It may be told no more.
        """
        try:
            data = await self._stream.receive(PIECE)
        except anyio.EndOfStream:
            return b""
        await self._meter.spend(self._use, received=len(data))
        return data

    async def send_eof(self) -> None:
        """Say no more."""
        await self._stream.send_eof()
