"""What goes where there is more than there may be, and what stays beyond the bound, for it is under a legal hold.

Each write puts one item over the bound and looks at the first few beyond it, however many are held behind these; a
sweep looks at all of them. Inside the store's transaction.
"""

from collections.abc import Mapping
from typing import Final

from symbi.context.kinds import MemoryKind
from symbi.context.port import COPIES, MemoryStore
from symbi.types import AgentId

MOST_OF: Final[Mapping[MemoryKind, int]] = {MemoryKind.WORKING: 1000, MemoryKind.SHORT_TERM: 1000}
"""Items of a kind that one agent has; a further one makes the oldest go."""
MAX_CHECKPOINTS: Final = 32  # of one agent; a further one makes the oldest go
AT_A_WRITE: Final = 4  # beyond the bound, that a write looks at


def trim_items(
    store: MemoryStore, space: AgentId, kind: MemoryKind, held: int = 0, limit: int = AT_A_WRITE
) -> tuple[int, int]:
    """Remove items of a kind beyond its bound.

    Args:
        store: Where they are.
        space: Whose.
        kind: Of which.
        held: So many beyond the bound are known to stay.
        limit: So many are looked at, at most.

    Returns:
        How many were looked at, and how many of these stay.
    """
    most = MOST_OF.get(kind)
    if most is None:
        return 0, 0
    there = store.surplus(space, kind, most + held, limit)
    staying = frozenset(store.held_items(there))
    if staying:
        store.note_surplus(space, kind.value)
    store.remove_items([one for one in there if one not in staying])
    return len(there), len(staying)


def trim_copies(store: MemoryStore, space: AgentId, held: int = 0, limit: int = AT_A_WRITE) -> tuple[int, int]:
    """Remove checkpoints beyond their bound; one that alone has something that is held stays. As `trim_items`."""
    there, staying = store.surplus_copies(space, MAX_CHECKPOINTS + held, limit), 0
    for one in there:
        if store.held_items(store.only_in_copy(one)):
            staying += 1
        else:
            store.drop_checkpoint(space, one)
    if staying:
        store.note_surplus(space, COPIES)
    return len(there), staying


def trim_noted(store: MemoryStore, space: AgentId, kind: str, held: int, limit: int) -> tuple[int, int]:
    """Of what was noted, remove what is not held any more; the note goes where nothing stays. As `trim_items`."""
    if kind == COPIES:
        seen, staying = trim_copies(store, space, held, limit)
    else:
        seen, staying = trim_items(store, space, MemoryKind(kind), held, limit)
    if seen < limit and not held + staying:
        store.surplus_over(space, kind)
    return seen, staying
