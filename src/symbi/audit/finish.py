"""The signatures of a commit's events, on two processors where the library lets go of the interpreter's lock.

libsodium does, so that a commit takes little more than half of the time; OpenSSL does not, and loses nothing. The chain
is made before: what is signed are its hashes, in any order.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from symbi.audit.event import EVENT_DOMAIN, Unsigned
from symbi.audit.port import StoredEvent
from symbi.crypto.signing import SigningKey

MIN_SHARED: Final = 8  # signatures; for fewer the other thread is not worth its waking

Part = Sequence[tuple[Unsigned, SigningKey | None]]
"""Events in their place, each with the key that is to sign it, or None."""


class Finisher:
    """Finishes the events of commits, one commit at a time."""

    def __init__(self) -> None:
        self._second = ThreadPoolExecutor(1, thread_name_prefix="symbi-signatures")

    def close(self) -> None:
        """End the other thread; nothing can be finished any more."""
        self._second.shutdown()

    def finish(self, events: Part) -> list[StoredEvent]:
        """The events, signed, in the same order."""
        half = len(events) // 2
        if len(events) < MIN_SHARED or events[0][1] is None:
            return _finish(events)
        other = self._second.submit(_finish, events[half:])
        return _finish(events[:half]) + other.result()


def _finish(events: Part) -> list[StoredEvent]:
    return [
        unsigned.finish(b"" if key is None else key.sign(EVENT_DOMAIN, unsigned.chain_hash)) for unsigned, key in events
    ]
