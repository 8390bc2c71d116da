"""The keys of the bus on a store, under a master key that is known."""

from collections.abc import Callable

from symbi.bus.keybook import KeyBook
from symbi.bus.keystore import BusKeyStore
from symbi.clock import Clock, SystemClock, random_bytes
from symbi.crypto.keys import KeyPurpose, KeyRing
from symbi.crypto.provider import open_provider


class FixedMaster:
    """A `KeyStore` that has a sealing master, and takes nothing.

    Args:
        master: 32 bytes; the same for all if not given.
    """

    def __init__(self, master: bytes = bytes(range(32))) -> None:
        self._master = master

    def load(self, purpose: KeyPurpose, generation: int = 1) -> bytes | None:
        """The master."""
        return self._master if purpose is KeyPurpose.SEALING_MASTER and generation == 1 else None

    def store(self, purpose: KeyPurpose, secret: bytes, generation: int = 1) -> None:
        """Nothing is kept."""

    def describe(self) -> str:
        """For people."""
        return "a test"


def book_on(
    store: BusKeyStore,
    owner: int,
    *,
    master: bytes = bytes(range(32)),
    clock: Clock | None = None,
    random: Callable[[int], bytes] = random_bytes,
) -> KeyBook:
    """The keys of the bus for an owner of a store."""
    provider = open_provider()
    ring = KeyRing(FixedMaster(master), provider)
    return KeyBook(store, ring, provider, clock or SystemClock(), owner=owner, random=random)
