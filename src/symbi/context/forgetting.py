"""Which items are meant where it is said what they say, wherever they are: in a memory, and in copies of it alone.

On the store's thread. A look ends after `AT_ONCE` items and goes on from where it ended, so that others come to the
store in between; what it has found may be removed before the next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from symbi.context.finding import AT_A_TIME, behind_row, by_content, sealed_page
from symbi.context.matching import fits, says
from symbi.context.port import MemoryStore, Row, Wanted
from symbi.context.sealing import opened_body
from symbi.guard.vault import Vault

AT_ONCE: Final = 500  # items of one commit
HELD_SHOWN: Final = 20  # ids of items that stay


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What became of items that were to be forgotten.

    Attributes:
        items: How many are gone.
        held: How many stay, for they are about somebody under a legal hold.
        held_ids: The first of these.
    """

    items: int = 0
    held: int = 0
    held_ids: tuple[str, ...] = ()

    def plus(self, items: int, held: Sequence[str]) -> "Forgotten":
        """With what became of further ones."""
        shown = (*self.held_ids, *held)[:HELD_SHOWN]
        return Forgotten(self.items + items, self.held + len(held), shown)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a look goes on.

    Attributes:
        sealed: Which items are looked at: those that are sealed, those that are not, or both.
        behind: The last one that was looked at; None to begin.
        copy: The checkpoint whose items are looked at that are not in the memory; empty: the memory itself.
        number: In a checkpoint, the last number that was looked at.
    """

    sealed: bool | None = None
    behind: Row | None = None
    copy: str = ""
    number: int = 0


def places(wanted: Wanted, copies: Sequence[str]) -> Sequence[Place]:
    """Where items may be that are wanted."""
    live = (Place(sealed=False), Place(sealed=True)) if by_content(wanted) else (Place(),)
    return (*live, *(Place(copy=one) for one in copies))


def meant(store: MemoryStore, vault: Vault | None, wanted: Wanted, place: Place) -> tuple[Sequence[str], Place | None]:
    """Ids of some items that are wanted, and where to go on; None at the end.

    Raises:
        DecryptionFailed, StoreUnavailable: An item was altered, or cannot be read.
        ConfigError: There is no master key.
    """
    if place.copy:
        return _in_copy(store, vault, wanted, place)
    if place.sealed:
        found, last = sealed_page(store, vault, wanted, place.behind)
        return [row.id for row, _ in found], None if last is None else replace(place, behind=last)
    ids: list[str] = []
    while len(ids) < AT_ONCE:
        asked = wanted if place.behind is None else behind_row(wanted, place.behind)
        rows = store.find_items(replace(asked, sealed=place.sealed, limit=AT_A_TIME))
        ids += [row.id for row in rows]
        if len(rows) < AT_A_TIME:
            return ids, None
        place = replace(place, behind=rows[-1])
    return ids, place


def _in_copy(
    store: MemoryStore, vault: Vault | None, wanted: Wanted, place: Place
) -> tuple[Sequence[str], Place | None]:
    rows = store.copied_items(place.copy, place.number, AT_A_TIME)
    wanted = replace(
        wanted, levels=frozenset(row.level for row in rows)
    )  # a copy may have some that the memory has not
    ids = [row.id for row in rows if fits(row, wanted) and _says(row, vault, wanted)]
    return ids, replace(place, number=rows[-1].number) if len(rows) == AT_A_TIME else None


def _says(row: Row, vault: Vault | None, wanted: Wanted) -> bool:
    if not by_content(wanted):
        return True
    body = opened_body(row, vault)
    return body is not None and says(body.content, body.tags, wanted)
