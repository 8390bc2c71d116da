"""Events as they become durable, for readers in this process: first what is stored, then what comes, without a gap or a repeat.

The writer never waits for a reader: it leaves each commit in the buffer of every subscriber, which costs it the same
whatever the filters are. A subscriber that is behind reads pages of the store, at its own pace and for as long as it
likes, and joins the live events once a page reached the end and its buffer holds all that came since. Whoever then lets
the buffer run full is cut: it gets what is buffered, and then an `Overloaded` whose `fields["after"]` says where to go on.
"""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Final, Self

import anyio

from symbi.audit.event import AuditEvent, parse_event
from symbi.audit.log import AuditLog
from symbi.audit.port import StoredEvent
from symbi.audit.query import EventFilter, judged
from symbi.errors import Overloaded, Unavailable

MAX_SUBSCRIBERS: Final = 64
MAX_BUFFERED: Final = 8192  # events that wait for one subscriber; they are shared, so many subscribers cost little more
STORED_PAGE: Final = 256  # events that are read of the store at once
RETRY_AFTER_S: Final = 1.0  # for whoever found no place

Page = tuple[Sequence[StoredEvent], int]
"""Events of one snapshot of the store, and the last sequence number in it."""
PageReader = Callable[[EventFilter, int, int], Awaitable[Page]]
"""`(wanted, after, limit) -> page`."""


class _Commit:
    """The events of one commit, parsed once for all subscribers when the first of them gets there."""

    __slots__ = ("_parsed", "stored")

    def __init__(self, stored: Sequence[StoredEvent]) -> None:
        self.stored = stored
        self._parsed: Sequence[AuditEvent] | None = None

    def events(self) -> Sequence[AuditEvent]:
        if self._parsed is None:
            self._parsed = [parse_event(one.record, sequence=one.sequence) for one in self.stored]
        return self._parsed


class Subscription:
    """The events that one reader asked for; to be iterated once."""

    def __init__(self, wanted: EventFilter, after: int, pages: PageReader, *, max_buffered: int) -> None:
        self._wanted = wanted
        self._at = after
        self._pages = pages
        self._max_buffered = max_buffered
        self._commits: deque[_Commit] = deque()
        self._buffered = 0
        self._live = False
        self._full = False
        self._over = False
        self._arrived = anyio.Event()
        self._events = self._walk()

    @property
    def after(self) -> int:
        """Sequence number of the last event that was looked at: where to go on."""
        return self._at

    def __aiter__(self) -> AsyncIterator[AuditEvent]:
        """Events in order.

        Raises:
            Overloaded: It was too slow; `fields["after"]` says where to go on.
            ChainBroken: A stored record is damaged, or the store's index is not right.
            StoreUnavailable: The store cannot be read.
        """
        return self._events

    async def aclose(self) -> None:
        """Give no more."""
        await self._events.aclose()

    async def _walk(self) -> AsyncGenerator[AuditEvent]:
        async for event in self._stored():
            yield event
        while True:
            while self._commits:
                for event in self._take():
                    yield event
            if self._full:
                raise self._cut()
            if self._over:
                return
            self._arrived = anyio.Event()
            await self._arrived.wait()

    async def _stored(self) -> AsyncIterator[AuditEvent]:
        """What is stored, until the buffer holds, without a gap, all that comes after it."""
        while not self._over:
            # From here on commits are kept; what was told before is durable, so that the page sees it.
            self._commits.clear()
            self._buffered, self._full = 0, False
            found, end = await self._pages(self._wanted, self._at, STORED_PAGE)
            for event in judged(self._wanted, found):
                self._at = event.sequence
                yield event
            if len(found) < STORED_PAGE:
                self._at = max(self._at, end)
                if not self._full:
                    self._live = True
                    return

    def _take(self) -> Iterator[AuditEvent]:
        commit = self._commits.popleft()
        self._buffered -= len(commit.stored)
        for event in commit.events():
            if event.sequence > self._at:
                self._at = event.sequence
                if self._wanted.fits(event):
                    yield event

    def _cut(self) -> Overloaded:
        msg = f"this reader of the trail was too slow: {self._max_buffered} events waited for it"
        cut = Overloaded(msg, retry_after_s=0.0, code="unavailable.slow_reader")
        cut.hint = f"go on after event {self._at}"
        cut.fields["after"] = self._at
        return cut

    def tell(self, commit: _Commit) -> None:
        """Take what has become durable; never waits."""
        if self._full:
            return
        if self._commits and self._buffered + len(commit.stored) > self._max_buffered:
            self._full = True
            if not self._live:  # the store is read again, so that nothing of it is needed
                self._commits.clear()
                self._buffered = 0
        else:
            self._commits.append(commit)
            self._buffered += len(commit.stored)
        self._arrived.set()

    def end(self) -> None:
        """Nothing more comes."""
        self._over = True
        self._arrived.set()


class AuditStream:
    """Hands events to subscribers; open for as long as it is entered.

    Args:
        log: The writer.
        pages: Reads what is stored, beside the writer.
        max_subscribers: How many there may be at once.
        max_buffered: Events that may wait for one of them.
    """

    def __init__(
        self,
        log: AuditLog,
        pages: PageReader,
        *,
        max_subscribers: int = MAX_SUBSCRIBERS,
        max_buffered: int = MAX_BUFFERED,
    ) -> None:
        self._log = log
        self._pages = pages
        self._max_subscribers = max_subscribers
        self._max_buffered = max_buffered
        self._subscribers: set[Subscription] = set()
        self._forget: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        """Listen to the log."""
        self._forget = self._log.on_commit(self._tell)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more; every subscription ends once it has given what it holds."""
        forget, self._forget = self._forget, None
        if forget is not None:
            forget()
        for subscriber in self._subscribers:
            subscriber.end()

    @property
    def subscribers(self) -> int:
        """How many there are."""
        return len(self._subscribers)

    @asynccontextmanager
    async def subscribe(
        self, wanted: EventFilter | None = None, *, after: int | None = 0
    ) -> AsyncIterator[Subscription]:
        """The events that fit, from those stored on; `async for` over what this gives.

        Args:
            wanted: Which events; all if not given.
            after: Only those after this sequence number; None for those to come.

        Raises:
            Overloaded: There are too many subscribers.
            Unavailable: The stream is closed.
        """
        if self._forget is None:
            msg = "the stream of the trail is closed"
            raise Unavailable(msg)
        with self._place(wanted or EventFilter(), self._log.sequence if after is None else after) as subscription:
            try:
                yield subscription
            finally:
                await subscription.aclose()

    @contextmanager
    def _place(self, wanted: EventFilter, after: int) -> Iterator[Subscription]:
        if len(self._subscribers) >= self._max_subscribers:
            msg = f"{self._max_subscribers} readers follow the trail already"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S)
        subscription = Subscription(wanted, after, self._pages, max_buffered=self._max_buffered)
        self._subscribers.add(subscription)
        try:
            yield subscription
        finally:
            self._subscribers.discard(subscription)

    def _tell(self, events: Sequence[StoredEvent]) -> None:
        if self._subscribers:
            commit = _Commit(events)
            for subscriber in tuple(self._subscribers):
                subscriber.tell(commit)
