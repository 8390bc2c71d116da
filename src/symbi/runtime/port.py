"""What the runtime asks of the places where policies are kept."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """One file as it was read.

    Attributes:
        name: Within its bundle, parts divided by `/`.
        shown: As the user knows it; stands in places and decisions.
        data: Its bytes.
    """

    name: str
    shown: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """All files of one path of `policy.paths`, read at one time.

    Attributes:
        path: As the user knows it.
        files: By name.
        manifest: The signature beside them, as it stands, or None.
        absent: There is nothing at the path.
    """

    path: str
    files: tuple[PolicyFile, ...]
    manifest: bytes | None = None
    absent: bool = False


class PolicyReader(Protocol):
    """Reads policy files; the methods block."""

    def look(self, paths: Sequence[str]) -> Hashable:
        """What changes whenever a file comes, goes or is written; no file is opened for it.

        Raises:
            InputError: A folder cannot be listed.
        """

    def read(self, paths: Sequence[str]) -> tuple[Bundle, ...]:
        """A bundle for each path, in order; an empty one where nothing is there.

        Raises:
            InputError: A file cannot be read, or is too large.
        """


class PolicyMemory(Protocol):
    """Remembers which signed sets were in force, in the store of the trail; the methods block, as those of a ledger do."""

    def policy_note(self, key: str) -> str | None:
        """What was noted under a key, or None.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def put_policy_note(self, key: str, value: str) -> None:
        """Note it, inside the running transaction.

        Raises:
            StoreUnavailable: The store cannot be written.
        """
