"""Stores whose records about somebody are removed when that somebody is erased, and do not only lose their key."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from symbi.compliance.port import Erased, Subject
from symbi.compliance.sealed import Pages, Read, SealedStore
from symbi.guard.vault import Vault
from symbi.types import KeyId

DELETED: Final = "deleted"


class DeletingStore(SealedStore):
    """SubjectStore over sealed columns of which nothing else depends on what stands there.

    Args:
        name, columns, pages, vault, read: As `SealedStore`.
        erase: Removes records by their keys, wherever they are; told also of the keys that they are sealed under, by which it
            finds what is left of one that was never finished.
    """

    def __init__(
        self,
        name: str,
        columns: frozenset[str],
        pages: Pages,
        vault: Vault,
        read: Read,
        *,
        erase: Callable[[Sequence[str], frozenset[KeyId]], Awaitable[None]],
    ) -> None:
        super().__init__(name, columns, pages, vault, read)
        self._erase = erase

    async def erase(self, subject: Subject) -> Erased:
        """Remove what is about a subject. What is about others too goes with it: it cannot be read without its keys."""
        places: Counter[str] = Counter()
        keys: list[str] = []
        async for page in self._sealed(subject):
            places.update(row.place for row, _ in page)
            keys += [row.key for row, _ in page]
        await self._erase(keys, subject.keys)
        return Erased(DELETED, places)
