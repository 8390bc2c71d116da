"""Compares items with the index of vectors, and has those vectors made again that are lost.

An index is lost with its disk, moved away because it was damaged or of another embedder, or put back as of an earlier day. The
items are the truth: first it is noted of each that its vector is due, then they are made, some at a time, each by a
decision for its agent. Whatever ends it in between, the next sweep goes on.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from symbi.audit.event import Draft
from symbi.context.forgetting import AT_ONCE
from symbi.context.meanings import Meanings
from symbi.context.memory import Memory
from symbi.context.port import LostMeanings, Meaning

_log = logging.getLogger("symbi.context")


@dataclass(frozen=True, slots=True)
class VerifiedMemory:
    """How items and vectors agree.

    Attributes:
        items: So many are to have a vector; sealed ones have none.
        missing: Of them, those that had none: `about` did not find them by what they mean.
        made: Vectors that were made again.
        refused: Items that have none now either, because policy does not let the embedder read them.
        repaired: Whether they were to be made again.
    """

    items: int
    missing: int
    made: int = 0
    refused: int = 0
    repaired: bool = False

    @property
    def clean(self) -> bool:
        """Nothing is left to be done."""
        return not self.refused and (self.repaired or not self.missing)


async def verify_memory(memory: Memory, mend: Callable[[], Awaitable[int]], *, repair: bool) -> VerifiedMemory:
    """Compare items with vectors; for an operator, who has passed the gate.

    Args:
        memory: The room.
        mend: Makes the vectors that are due; returns how many.
        repair: Make again what is missing, as policy lets each agent do it.

    Raises:
        ConfigError: The index is of another embedder.
        Unavailable: Store, embedder or index cannot be used; asking again goes on.
    """
    meanings = memory.rooms.meanings
    if meanings is None:
        return VerifiedMemory(0, 0, repaired=repair)
    items, due, lost = await _compared(memory, meanings, Meaning.DUE if repair else None)
    if not repair:
        return VerifiedMemory(items, due + lost)
    made = await mend()
    # What has no vector after that has nothing to say that one could be made of.
    _, refused, _ = await _compared(memory, meanings, Meaning.NONE)
    return VerifiedMemory(items, due + lost, made, refused, repaired=True)


async def make_again(memory: Memory) -> None:
    """Note of all items that have lost their vectors that these are due, and say so.

    Raises:
        ConfigError, Unavailable: As `verify_memory`.
    """
    meanings = memory.rooms.meanings
    if meanings is None:
        return
    _, _, lost = await _compared(memory, meanings, Meaning.DUE)
    if lost:
        _log.warning(
            "the vectors of %d memories are gone: they are made again, and until then `about` finds these by their words "
            "alone; `symbi memory verify --repair` waits for it",
            lost,
        )


async def _compared(memory: Memory, meanings: Meanings, instead: Meaning | None) -> tuple[int, int, int]:
    """How many items are to have a vector; how many are still to get one; and how many have lost it, which may be noted."""
    store, log = memory.rooms.store, memory.rooms.log
    items, due, lost, after = 0, 0, 0, 0
    while page := await log.read(partial(store.meanings_after, after, AT_ONCE)):
        after, making = page[-1][0], memory.being_made
        page = [one for one in page if one[1] not in making]  # these are in hand
        there = [one for _, one, meaning in page if meaning is Meaning.THERE]
        gone = await meanings.missing(there) if there else ()
        if gone and instead is not None:
            await log.transact(partial(_noted, store, gone, instead), wait=True)
        items, due, lost = items + len(page), due + len(page) - len(there), lost + len(gone)
    return items, due, lost


def _noted(store: LostMeanings, gone: Sequence[str], instead: Meaning) -> tuple[None, tuple[Draft, ...]]:
    store.meaning_lost(gone, instead)
    return None, ()
