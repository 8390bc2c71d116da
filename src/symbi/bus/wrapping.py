"""How keys of the bus are wrapped by the sealing master, and that it is the one that has wrapped those of the store."""

from collections.abc import Callable, Iterator
from typing import Final

from symbi.bus.keystore import BusKeyStore
from symbi.crypto.keys import KeyRing
from symbi.crypto.sealing import Ciphertext
from symbi.errors import ConfigError, DecryptionFailed, MessageRefused

WRAPPING: Final = "bus-keys/1"

_WRAP: Final = b"symbi/bus-key/1\0"


class Wrapping:
    """Wraps and opens keys; on the store's thread.

    Args:
        store: Keeps wrapped keys.
        ring: Has the master key.

    Attributes:
        beside: Whether the master opens what else it has wrapped in this store; None where it has wrapped nothing else.
    """

    def __init__(self, store: BusKeyStore, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring
        self._master_seen = False
        self.beside: Callable[[], bool | None] = lambda: None

    def wrap(self, secret: bytes, kind: str, name: str, number: int) -> bytes:
        """A key as it is kept."""
        return self._ring.sealing_key(WRAPPING).seal(secret, _wrapping(kind, name, number)).to_bytes()

    def unwrap(self, wrapped: bytes, kind: str, name: str, number: int) -> bytes:
        """A key out of what is kept.

        Raises:
            ConfigError: There is no master key, or not the one that wrapped the keys of this store.
            MessageRefused: `message.epoch`; the row was altered, and what was sealed under its key cannot be opened.
        """
        self.require_master()
        try:
            return self._open(wrapped, kind, name, number)
        except DecryptionFailed as error:
            msg = f"a key of the bus ({kind} {name or number}) was altered in the store"
            raise MessageRefused(msg, code="message.epoch") from error

    def require_master(self) -> None:
        """Refuse to wrap or open under another master than the one before: what waits could not be opened.

        Before the first key of the bus, what else the master has wrapped tells: two of them could never be used together.

        Raises:
            ConfigError: There is no master key, or it is another one.
        """
        if self._master_seen:
            return
        opens = self.opens_a_key()
        if opens is None:
            opens = self.beside()
        if opens is False:
            msg = "the sealing master is not the one that wrapped the keys of this store"
            hint = "bring back the key that it was written with"
            raise ConfigError(msg, code="config.master_key", hint=hint)
        self._master_seen = True

    def opens_a_key(self) -> bool | None:
        """Whether the master opens any key of the bus, of which others may have been altered; None where there is none."""
        found = None
        for wrapped, kind, name, number in self._kept():
            try:
                self._open(wrapped, kind, name, number)
            except DecryptionFailed:
                found = False
            else:
                return True
        return found

    def _kept(self) -> Iterator[tuple[bytes, str, str, int]]:
        for keys in self._store.all_agent_keys():
            if keys.wrapped is not None:
                yield keys.wrapped, "agent", keys.agent, keys.generation
        for one in self._store.epochs():
            yield one.wrapped, "epoch", "", one.epoch

    def _open(self, wrapped: bytes, kind: str, name: str, number: int) -> bytes:
        return self._ring.sealing_key(WRAPPING).open(Ciphertext.from_bytes(wrapped), _wrapping(kind, name, number))


def _wrapping(kind: str, name: str, number: int) -> bytes:
    return _WRAP + f"{kind}\0{name}\0{number}".encode()
