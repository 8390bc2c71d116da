"""Subscriptions and mailboxes: those who receive, as whoever opened them sees them."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import anyio

from symbi.bus.content import Kind, Reading, message_of
from symbi.bus.outbox import Feed, Outbox
from symbi.bus.parcels import ConsumerTerms, Delivery, Overflow
from symbi.bus.port import Transport
from symbi.bus.receiving import LISTENERS, Desk, Handler, Inside, Receiver
from symbi.bus.requests import MAX_ANSWERING, Cancellations, Questions
from symbi.errors import Denied, SymbiError
from symbi.types import AgentId


class Subscription(Receiver[Any]):
    """One who listens to topics.

    Args:
        desk: What it works with.
        me: Who listens.
        pattern: To which topics.
        reading: Reads bodies.
        handler: Takes messages.
        decide: Puts it to policy whether it may.

    Attributes:
        version: The policy set that let it.
        durable: It goes on where it was when it is opened again.
        gone: Told when it is closed.
        ended: Why it gets nothing any more.
    """

    def __init__(
        self,
        desk: Desk,
        me: AgentId,
        pattern: str,
        reading: Reading[Any],
        handler: Handler[Any],
        decide: Callable[["Subscription"], Awaitable[None]],
    ) -> None:
        super().__init__(desk, me, f"t.{pattern}", reading, handler, LISTENERS)
        self.pattern = pattern
        self.version = ""
        self.durable = False
        self.gone: Callable[[Subscription], None] | None = None
        self._decide = decide

    @property
    def name(self) -> str:
        """As statistics call it."""
        return f"{self.pattern} ← {self.me}"

    async def may_receive(self) -> bool:
        """Whether policy lets it listen, by the set that is in force now; it ends where it does not."""
        while self.version != self._desk.passages.version:  # which may be another by the time that it is decided
            try:
                await self._decide(self)
            except Denied as denial:
                self.ended = denial
                await self.close()
                return False
        return True

    async def close(self) -> None:
        """Listen no longer. A durable one goes on where it was when it is opened again."""
        await super().close()
        if self.gone is not None:
            self.gone(self)


class Post(Protocol):
    """What a mailbox asks of the bus."""

    desk: Desk
    outbox: Outbox
    questions: Questions

    async def answer(self, inside: Inside, kind: Kind, result: object) -> None:
        """Send an answer back."""

    def closed(self, mailbox: "Mailbox") -> None:
        """It is not open any more."""


class Mailbox(Receiver[Any]):
    """One agent that is sent to, told and asked.

    Args:
        post: The bus.
        me: Whose.
        reading: Reads bodies.
        handler: Takes messages.
        groups: By which it is reached.

    Attributes:
        feed: Gives it what waits in the outbox.
    """

    def __init__(
        self, post: Post, me: AgentId, reading: Reading[Any], handler: Handler[Any], groups: frozenset[str]
    ) -> None:
        super().__init__(post.desk, me, f"a.{me}", reading, handler, me)
        self.groups = groups
        self.feed = Feed(post.outbox, post.desk, me, reading, handler)
        self._post = post
        self._cancellations = Cancellations(post.desk, me, post.questions)
        self._turn = anyio.CapacityLimiter(MAX_ANSWERING)

    async def open(self, transport: Transport, terms: ConsumerTerms) -> None:
        """Begin to receive."""
        self.consumer = await transport.consume(self.subject, terms, self.wake)
        told = ConsumerTerms(overflow=Overflow.OLDEST)
        self._cancellations.consumer = await transport.consume(f"c.{self.me}", told, self._cancellations.wake)
        self.feed.wake()

    async def take(self, inside: Inside, one: Delivery) -> None:
        """Take what it is told; what it is asked is worked on beside what comes behind it."""
        if inside.content.kind is not Kind.REQUEST:
            result = super().take(inside, one)
            if inspect.isawaitable(result):
                await result
            return
        body = self.reading.body(inside.opened.flow.content_type, inside.content.body)
        token = object()
        await self._turn.acquire_on_behalf_of(token)
        self._desk.tasks.start_soon(self._answer, inside, message_of(inside.opened, inside.content, body), token)

    async def _answer(self, inside: Inside, message: Any, token: object) -> None:
        try:
            kind, result = await self._post.questions.work(self._desk, self.handler, inside, message)
            await self._post.answer(inside, kind, result)
        except SymbiError as refusal:
            self._desk.record.refused(self.subject, refusal.code)
        finally:
            self._turn.release_on_behalf_of(token)

    async def close(self) -> None:
        """Receive nothing more; what is sent to it waits in the outbox."""
        self.feed.close()
        await self._cancellations.close()
        await super().close()
        self._post.closed(self)
