"""What is kept of what passed: counts by topic and mailbox, the last messages, and a digest of a window for the trail.

No payload is here: ids, names, sizes, counts and hashes.
"""

import hashlib
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from symbi.audit.event import AuditEventType, Draft
from symbi.bus.parcels import Parcel
from symbi.clock import Clock, rfc3339
from symbi.crypto.merkle import Frontier, leaf_hash
from symbi.telemetry import BUS_MESSAGES, BUS_REFUSED, Metrics
from symbi.types import SYSTEM_AGENT, JsonValue

MAX_TAIL: Final = 1000  # groups of messages that are remembered for whoever looks
MAX_COUNTED: Final = 10_000  # topics and mailboxes that are counted by name; of others only the sum


@dataclass(slots=True)
class Counts:
    """What became of the messages of a topic or mailbox."""

    messages: int = 0
    bytes: int = 0
    handed: int = 0
    received: int = 0
    failed: int = 0
    refused: int = 0
    again: int = 0
    dead: int = 0

    def facts(self) -> dict[str, JsonValue]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Passed:
    """Messages that passed together: same sender, same target.

    Attributes:
        number: From 1, one more with each.
        at_ns: When.
        pattern: `publish`, `send`, `request`, `answer` or `broadcast`.
        sender, target: Who, and to whom or what.
        messages, bytes: How many, and how large they are as they travel.
        first_id: Id of the first of them.
    """

    number: int
    at_ns: int
    pattern: str
    sender: str
    target: str
    messages: int
    bytes: int
    first_id: str

    def facts(self) -> dict[str, JsonValue]:
        """As JSON."""
        return {
            "number": self.number,
            "at": rfc3339(self.at_ns),
            "pattern": self.pattern,
            "sender": self.sender,
            "to": self.target,
            "messages": self.messages,
            "bytes": self.bytes,
            "first": self.first_id,
        }


@dataclass(slots=True)
class _Window:
    tree: Frontier = field(default_factory=Frontier)
    messages: int = 0
    size: int = 0
    patterns: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class Record:
    """What passed.

    Args:
        clock: When.
        metrics: Counts too.
        signing: What senders sign, for the trail.
    """

    def __init__(self, clock: Clock, metrics: Metrics, signing: str) -> None:
        self._clock = clock
        self._metrics = metrics
        self._signing = signing
        self._window = _Window()
        self._tail: deque[Passed] = deque(maxlen=MAX_TAIL)
        self._counts: OrderedDict[str, Counts] = OrderedDict()
        self._others = Counts()
        self._number = 0

    def of(self, target: str) -> Counts:
        """The counts of a topic (`t.…`) or mailbox (`a.…`)."""
        found = self._counts.get(target)
        if found is None:
            if len(self._counts) >= MAX_COUNTED:
                return self._others
            found = self._counts[target] = Counts()
        return found

    def passed(self, pattern: str, sender: str, subject: str, parcels: Sequence[Parcel]) -> bytes:
        """Note messages that are about to be handed over; returns the digest over their bytes."""
        joined = b"".join([one.data for one in parcels])
        digest = hashlib.sha256(joined).digest()
        count, size, window = len(parcels), len(joined), self._window
        window.tree.append(leaf_hash(digest))
        window.messages += count
        window.size += size
        window.patterns[pattern] += count
        counts = self.of(subject)
        counts.messages += count
        counts.bytes += size
        self._number += 1
        self._tail.append(
            Passed(self._number, self._clock.now_ns(), pattern, sender, subject[2:], count, size, parcels[0].message_id)
        )
        self._metrics.inc(BUS_MESSAGES, count, pattern=pattern)
        return digest

    def refused(self, subject: str, code: str, count: int = 1) -> None:
        """Note messages that were not taken, and why."""
        self._window.refused[code] += count
        self.of(subject).refused += count
        self._metrics.inc(BUS_REFUSED, count, code=code)

    def tail(self, after: int, limit: int) -> Sequence[Passed]:
        """The first groups behind a number that are still remembered."""
        return [one for one in self._tail if one.number > after][:limit]

    def counts(self) -> Mapping[str, Counts]:
        """By topic and mailbox."""
        return self._counts if self._others == Counts() else {**self._counts, "(others)": self._others}

    def close_window(self) -> tuple[Draft, ...]:
        """The event of all that passed since the last one; none where nothing did."""
        window, self._window = self._window, _Window()
        if not window.messages and not window.refused:
            return ()
        details: dict[str, JsonValue] = {
            "messages": window.messages,
            "bytes": window.size,
            "groups": window.tree.size,
            "root": window.tree.root().hex(),
            "patterns": dict(sorted(window.patterns.items())),
            "refused": dict(sorted(window.refused.items())),
            "signing": self._signing,
        }
        return (Draft(AuditEventType.BUS_WINDOW, SYSTEM_AGENT, details),)
