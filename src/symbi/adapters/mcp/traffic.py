"""What goes over one session, counted: which requests wait for an answer, and how much comes that answers none.

The same bounds hold for every transport. The SDK starts a task for each message that reaches it, so what is of no use
to us ends here.
"""

from collections import Counter
from typing import Final, Protocol

import anyio
from mcp.client import Transport
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

MAX_MESSAGE_BYTES: Final = 4_194_304  # four times the largest answer, for JSON escapes and a second copy
MAX_UNASKED_BYTES: Final = 8_388_608  # what a server may send that answers nothing, between two of our requests
MIN_MESSAGE_COST_BYTES: Final = 64  # what a shorter message counts as; bounds the number of messages, too
MAX_GARBAGE: Final = 64  # messages that are not JSON-RPC; programs that print a banner stay below
MAX_ASKING: Final = 16  # requests of the server that wait for our answer
MAX_TOLD: Final = (
    2_048  # messages of progress, of logs, and of updates, that go on between two of our requests; more end here
)
MAX_OTHERS: Final = 64  # of each other kind of notification, likewise: one would do

TOO_LARGE: Final = -32019
"""Code of the error that stands for an answer longer than `MAX_MESSAGE_BYTES` (implementation-defined range)."""

UNREACHABLE: Final = -32018
"""Code of the error that stands for a server that could not be reached, or does not answer as one does."""

_TAKEN: Final = frozenset(
    {
        "notifications/progress",
        "notifications/message",
        "notifications/cancelled",
        "notifications/tools/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/prompts/list_changed",
        "notifications/subscriptions/acknowledged",
    }
)
"""Notifications that somebody here acts on."""


_MANY: Final = frozenset({"notifications/progress", "notifications/message", "notifications/resources/updated"})
"""Those of them of which there may be many, each of something else."""


class Line(Protocol):
    """One connection to a server, whatever it is made of."""

    @property
    def ended(self) -> anyio.Event:
        """Set as soon as the server can be spoken to no more."""

    def transport(self) -> Transport:
        """The connection as an MCP transport: made on entering, ended on leaving."""

    def how_it_ended(self) -> str:
        """Half a sentence on the server, such as `closed its output`."""

    def last_said(self) -> str:
        """What it said beside the protocol last; empty if nothing."""


class Fault(Exception):
    """The server did what it is ended for."""


class Traffic:
    """The count of one session."""

    def __init__(self) -> None:
        self._pending: set[str] = set()
        self._asking: set[str] = set()
        self._unasked = 0
        self._garbage = 0
        self._passed: Counter[str] = Counter()

    def sent(self, message: JSONRPCMessage) -> None:
        """Note a message of ours."""
        match message:
            case JSONRPCRequest():
                self._pending.add(str(message.id))
                self._unasked = 0
                self._passed.clear()
            case JSONRPCNotification(method="notifications/cancelled", params=dict() as params):
                self._pending.discard(str(params.get("requestId")))
            case JSONRPCResponse() | JSONRPCError():
                self._asking.discard(str(message.id))
            case _:
                pass

    def waits(self, request_id: str) -> bool:
        """Whether a request of this id waits for an answer."""
        return request_id in self._pending

    def answered(self, request_id: str) -> None:
        """A request waits no more."""
        self._pending.discard(request_id)

    def admits(self, message: JSONRPCMessage, size: int) -> bool:
        """Whether a message of the server's goes on to the session.

        Raises:
            Fault: It is one too many.
        """
        match message:
            case JSONRPCResponse() | JSONRPCError() if str(message.id) in self._pending:
                self._pending.discard(str(message.id))
                return True
            case JSONRPCRequest():
                self.count(size)
                return self._asks(str(message.id))
            case JSONRPCNotification():
                self.count(size)
                if message.method == "notifications/cancelled":
                    self._asking.discard(str((message.params or {}).get("requestId")))
                return self._passes(message.method)
            case _:
                self.count(size)
                return False

    def _passes(self, method: str) -> bool:
        """Whether a notification goes on: of a flood, as much as anybody could use."""
        if method not in _TAKEN:
            return False
        self._passed[method] += 1
        return self._passed[method] <= (MAX_TOLD if method in _MANY else MAX_OTHERS)

    def _asks(self, request_id: str) -> bool:
        if request_id in self._asking:
            return False  # the first of that id is being answered
        if len(self._asking) >= MAX_ASKING:
            msg = f"sent more than {MAX_ASKING} requests without reading an answer"
            raise Fault(msg)
        self._asking.add(request_id)
        return True

    def count(self, size: int) -> None:
        """Note what answers nothing.

        Raises:
            Fault: It is too much.
        """
        self._unasked += max(size, MIN_MESSAGE_COST_BYTES)
        if self._unasked > MAX_UNASKED_BYTES:
            msg = f"wrote more than {MAX_UNASKED_BYTES} bytes that nobody had asked for"
            raise Fault(msg)

    def garbage(self, size: int, what: str) -> None:
        """Note what is not JSON-RPC.

        Raises:
            Fault: It is one too many.
        """
        self.count(size)
        self._garbage += 1
        if self._garbage > MAX_GARBAGE:
            msg = f"wrote {self._garbage} {what} that are not JSON-RPC"
            raise Fault(msg)
