"""Lines out of a container without a network: connections to a port of its loopback go through the frames to the driver.

Whoever connects to `127.0.0.1:3128` in the container talks with the driver's proxy. Each connection is a channel:

    out   {"kind": "line", "op": "open", "id": n}              n grows by one with each
    both  {"kind": "line", "op": "data", "id": n, "data": base64}
    both  {"kind": "line", "op": "more", "id": n, "count": c}  c bytes were taken: so many more may come
    both  {"kind": "line", "op": "end", "id": n}               no more data from this side
    both  {"kind": "line", "op": "close", "id": n}             nothing more at all

Each side may have sent `WINDOW` bytes that the other has not taken, so neither keeps more than that for a channel, and a
channel that nobody reads holds up no other.

What came before a `close` still reaches whoever connected, however slowly he reads; what he goes on to say is thrown away
until he hangs up, as a connection that is closed on somebody who talks loses him the answer too.
"""

from __future__ import annotations

import base64
import socket
from typing import Any, Callable, Dict, List, Tuple

PORT = 3128
WINDOW = 262_144
PIECE = 32_768
MOST = 64  # channels at a time; more wait to be accepted


class Channel:
    """One connection."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.may_send = WINDOW  # to the driver
        self.waiting = bytearray()  # for the connection
        self.heard_end = False  # of the connection
        self.told_end = False  # by the driver
        self.closed = False  # by the driver, which knows of it no more
        self.shut = False

    def is_over(self) -> bool:
        """Whether both sides have said all."""
        return self.heard_end and self.shut


class Lines:
    """The listener and its connections, for a loop that waits for descriptors.

    Args:
        send: Takes a frame to the driver.
        port: Where to listen; 0 for any.
    """

    def __init__(self, send: Callable[[Dict[str, Any]], None], port: int = PORT) -> None:
        self.send = send
        self.channels: Dict[int, Channel] = {}
        self.last = 0
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen(MOST)
        self.listener.setblocking(False)

    def descriptors(self) -> Tuple[List[int], List[int]]:
        """What to wait for: to be read, to be written."""
        self.make_room()
        readers = [self.listener.fileno()] if len(self.channels) < MOST else []
        writers = []
        for channel in self.channels.values():
            if not channel.heard_end and (channel.shut if channel.closed else channel.may_send > 0):
                readers.append(channel.line.fileno())
            if channel.waiting or (channel.told_end and not channel.shut):
                writers.append(channel.line.fileno())
        return readers, writers

    def ready(self, readers: List[int], writers: List[int]) -> None:
        """Do what can be done at once; descriptors of others are passed over."""
        if self.listener.fileno() in readers:
            self.accept()
        for number, channel in list(self.channels.items()):
            try:
                if channel.line.fileno() in writers:
                    self.write(channel)
                if channel.line.fileno() in readers:
                    self.read(number, channel)
            except BlockingIOError:
                continue
            except OSError:  # the connection is gone
                self.drop(number, tell=not channel.closed)
                continue
            if channel.is_over():
                self.drop(number, tell=False)

    def make_room(self) -> None:
        """Where no more fit in: hang up on one that the driver has closed, first on who was told all and stays."""
        if len(self.channels) >= MOST:
            closed = [(not channel.shut, number) for number, channel in self.channels.items() if channel.closed]
            if closed:
                self.drop(min(closed)[1], tell=False)

    def accept(self) -> None:
        """One more connection."""
        try:
            line, _ = self.listener.accept()
        except OSError:  # it has gone again, or there are too many open files
            return
        line.setblocking(False)
        self.last += 1
        self.channels[self.last] = Channel(line)
        self.send({"kind": "line", "op": "open", "id": self.last})

    def read(self, number: int, channel: Channel) -> None:
        """Pass on what the connection says, as far as the driver takes it."""
        if channel.closed:
            channel.heard_end = not channel.line.recv(PIECE)
            return
        data = channel.line.recv(min(PIECE, channel.may_send))
        if data:
            channel.may_send -= len(data)
            text = base64.b64encode(data).decode("ascii")
            self.send({"kind": "line", "op": "data", "id": number, "data": text})
        else:
            channel.heard_end = True
            self.send({"kind": "line", "op": "end", "id": number})

    def write(self, channel: Channel) -> None:
        """Pass on what the driver said, as far as the connection takes it."""
        number = next(one for one, other in self.channels.items() if other is channel)
        if channel.waiting:
            count = channel.line.send(bytes(channel.waiting[:PIECE]))
            del channel.waiting[:count]
            if not channel.closed:
                self.send({"kind": "line", "op": "more", "id": number, "count": count})
        if channel.told_end and not channel.waiting and not channel.shut:
            channel.line.shutdown(socket.SHUT_WR)
            channel.shut = True

    def take(self, frame: Dict[str, Any]) -> None:
        """What the driver says of a channel; of one that is gone it is passed over."""
        number, op = frame["id"], frame["op"]
        channel = self.channels.get(number)
        if channel is None:
            return
        if op == "data":
            channel.waiting += base64.b64decode(frame["data"])
        elif op == "more":
            channel.may_send += frame["count"]
        elif op == "end":
            channel.told_end = True
        else:
            channel.told_end = channel.closed = True

    def drop(self, number: int, tell: bool) -> None:
        """Close a channel."""
        self.channels.pop(number).line.close()
        if tell:
            self.send({"kind": "line", "op": "close", "id": number})

    def close(self) -> None:
        """Close everything; nobody is told."""
        for number in list(self.channels):
            self.drop(number, tell=False)
        self.listener.close()
