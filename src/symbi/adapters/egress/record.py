"""What the trail is told of a sandbox's connections, and what they use in all."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import anyio

from symbi.audit.event import AuditEventType, Draft
from symbi.clock import Clock
from symbi.errors import SymbiError
from symbi.guard.confidential import confided
from symbi.guard.vault import NO_KEYS, Keys
from symbi.sandbox.egress import Bucket, EgressLimits
from symbi.sandbox.heads import Refusal
from symbi.types import AgentId, EffectId, JsonValue, RunId

CLOSING_TIMEOUT_S: Final = 10.0  # for the event of a connection's end, also where everything is cancelled

Tell = Callable[[Draft], Awaitable[object]]
Sleep = Callable[[float], Awaitable[None]]


class Cut(Exception):
    """A connection ends here, by a rule; what the sandbox is told of it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.rule)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class About:
    """Whose connections they are.

    Attributes:
        agent_id, run_id, effect_id: As in the trail.
        keys: Seal the events where they are about somebody: what a program asks for can say what it was given.
    """

    agent_id: AgentId
    run_id: RunId
    effect_id: EffectId
    keys: Keys = NO_KEYS


@dataclass(slots=True)
class Use:
    """What one connection has used.

    Attributes:
        sent, received: Bytes, from the sandbox and to it.
    """

    sent: int = 0
    received: int = 0


@dataclass(slots=True)
class Meter:
    """What all connections of one sandbox use together: counted, bounded, shaped.

    Attributes:
        limits: Of the sandbox.
        clock: Tells the bucket the time.
        sleep: Waits.
        sent, received: Bytes.
        connected: How many connections there were.
        refused: How often, by rule.
    """

    limits: EgressLimits
    clock: Clock
    sleep: Sleep
    sent: int = 0
    received: int = 0
    connected: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    _bucket: Bucket | None = None

    async def spend(self, use: Use, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes before they go on, and wait until their turn has come.

        Raises:
            Cut: There may be no more of them.
        """
        if self.sent + sent > self.limits.sent_bytes or self.received + received > self.limits.received_bytes:
            raise Cut(Refusal("egress.bytes"))
        self.sent, self.received = self.sent + sent, self.received + received
        use.sent, use.received = use.sent + sent, use.received + received
        now_s = self.clock.monotonic_s()
        if self._bucket is None:
            self._bucket = Bucket(self.limits.bytes_per_s, self.limits.bytes_per_s, now_s)
        wait_s = self._bucket.take(sent + received, now_s)
        if wait_s:
            await self.sleep(wait_s)


class Record:
    """Writes the events; once one could not be written there are no more connections.

    Args:
        tell: Makes an event durable.
        about: Whose.
    """

    def __init__(self, tell: Tell, about: About) -> None:
        self._tell = tell
        self._about = about
        self.broken = False

    async def write(self, kind: AuditEventType, details: Mapping[str, JsonValue]) -> None:
        """Write one, durably.

        Raises:
            Cut: It cannot be written, or one before it could not.
        """
        if self.broken:
            raise Cut(Refusal("egress.audit", 503))
        facts = {"effect_id": str(self._about.effect_id), **details}
        try:
            draft = Draft(kind, self._about.agent_id, facts, str(self._about.run_id))
            await self._tell(confided(draft, self._about.keys))
        except SymbiError:
            self.broken = True
            raise Cut(Refusal("egress.audit", 503)) from None

    async def write_end(self, details: Mapping[str, JsonValue]) -> None:
        """Write that a connection has ended, also where it is cancelled."""
        with anyio.move_on_after(CLOSING_TIMEOUT_S, shield=True) as scope:
            try:
                await self.write(AuditEventType.EGRESS_CLOSED, details)
            except Cut:  # said to whoever asks for the next one
                return
        self.broken = self.broken or scope.cancelled_caught
