"""The ports of memory: rows of items, and how they are kept up. All methods block, on the store's thread.

Those that write run inside the store's running transaction. Each raises StoreUnavailable where the store cannot be used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from symbi.context.kinds import Form, MemoryKind
from symbi.types import AgentId

EVERYBODY: Final = AgentId("")
"""Stands for all agents."""


@dataclass(frozen=True, slots=True)
class DuePlace:
    """Where a look at what is due stands: no row before it is looked at again.

    Attributes:
        among: Among what the store has looked; empty for the beginning.
        ms: When the last row became due, or how old it is.
        number: Of that row.
    """

    among: str = ""
    ms: int = 0
    number: int = 0


START: Final = DuePlace()


class Meaning(IntEnum):
    """How it stands with the vector of an item."""

    NONE = 0
    """It has none, and gets none."""
    DUE = 1
    """It is to get one."""
    THERE = 2


@dataclass(frozen=True, slots=True)
class Row:
    """An item as the store keeps it.

    Attributes:
        id: UUIDv7.
        space: The agent whose it is.
        kind, form, shared, importance: As the item.
        level: What readers are decided on: see `symbi.context.sealing.level_of`.
        at_ms: When it was kept last.
        expires_ms: When it goes by itself, beside what retention says of all; None where nothing else says so.
        half_life_days: After how long it counts half.
        tokens: Of its content, about.
        times: How often the same was kept.
        digest: Of what it says; the same item has the same.
        meaning: How it stands with its vector.
        body: Content, tags, label and where it came from, as JSON; sealed where its label asks for it.
        words: How often it has each word, as JSON; None where it is sealed.
        number: Its place in the order in which items were kept; 0 before the store has given it one.
    """

    id: str
    space: AgentId
    kind: MemoryKind
    form: Form
    shared: bool
    level: str
    at_ms: int
    expires_ms: int | None
    importance: float
    half_life_days: float
    tokens: int
    times: int
    digest: bytes
    meaning: Meaning
    body: bytes
    words: bytes | None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which items are looked for. There is no way to make one without a space and without levels.

    Attributes:
        space: Whose.
        levels: Of one of these; of none if empty.
        now_ms: What has expired by now is not there.
        oldest_ms: What was kept before is not there.
        shared_only: Only what others may read.
        kinds, forms, tags, since_ms, until_ms, min_importance: As the question.
        words: Items that have all of these.
        sealed: Sealed items, whose tags and words nobody can ask the store for; None: all that fit, sealed or not.
        limit: The newest of them.
        before: Of those that were kept before the one of this number.
    """

    space: AgentId
    levels: frozenset[str]
    now_ms: int
    oldest_ms: int
    shared_only: bool = False
    kinds: tuple[MemoryKind, ...] = ()
    forms: tuple[Form, ...] = ()
    tags: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    min_importance: float = 0.0
    words: tuple[str, ...] = ()
    sealed: bool | None = None
    limit: int = 1000
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """What the store holds of an agent.

    Attributes:
        levels: How many items there are of each level.
    """

    levels: Mapping[str, int]

    @property
    def items(self) -> int:
        """How many there are."""
        return sum(self.levels.values())


class ContextStore(Protocol):
    """Items, by agent."""

    def put_item(self, row: Row, tags: Sequence[str]) -> None:
        """Insert an item, with the tags and words that it is found by; in the place of the one with the same id."""

    def same_item(self, space: AgentId, kind: MemoryKind, digest: bytes) -> Row | None:
        """The item of this kind that says the same, or None."""

    def find_items(self, wanted: Wanted) -> Sequence[Row]:
        """Items that fit, newest first."""

    def items_of(self, space: AgentId, ids: Sequence[str]) -> Sequence[Row]:
        """Items of an agent by their ids; those that are not there are left out."""

    def space_of(self, space: AgentId) -> Space:
        """What there is of an agent."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A copy of an agent's memory.

    Attributes:
        id: UUIDv7.
        space: Whose.
        at_ms: When it was made.
        items: How many there are in it by now.
    """

    id: str
    space: AgentId
    at_ms: int
    items: int


class ContextKeeping(Protocol):
    """What becomes of items."""

    def remove_items(self, ids: Sequence[str]) -> int:
        """Remove items wherever they are, in checkpoints too, and note their vectors as to be removed; how many rows it were."""

    def remove_due(self, ids: Sequence[str], now_ms: int, oldest_ms: int) -> int:
        """Of items, remove what `due_items` goes by: from the memory and from each checkpoint what has come of age there.

        What was kept again since a checkpoint stays where it is newer. Vectors and count as `remove_items`.
        """

    def due_items(
        self, now_ms: int, oldest_ms: int, after: DuePlace, limit: int, of: AgentId = EVERYBODY
    ) -> Sequence[tuple[str, DuePlace]]:
        """Ids of items, in memories and checkpoints, that have expired, or were kept before a time; behind a place, in order.

        With an agent, those of it and of its instances alone, and by their age alone. An item may come several times.
        """

    def only_in_copy(self, checkpoint: str) -> Sequence[str]:
        """Ids of items that are in one checkpoint and nowhere else."""

    def held_items(self, ids: Sequence[str]) -> Sequence[str]:
        """Of some items, those that are about somebody under a legal hold."""


COPIES: Final = "copies"
"""Stands for checkpoints, among kinds of which there is a surplus."""


class SurplusStore(Protocol):
    """What is more than there may be, and stays for it is under a hold."""

    def surplus(self, space: AgentId, kind: MemoryKind, most: int, limit: int) -> Sequence[str]:
        """Ids of items of a kind beyond as many as there may be, the newest of them first."""

    def surplus_copies(self, space: AgentId, most: int, limit: int) -> Sequence[str]:
        """The same of checkpoints."""

    def note_surplus(self, space: AgentId, kind: str) -> None:
        """Note that something of it may stay beyond the bound: all of it is to be looked at once in a while."""

    def noted_surplus(self) -> Sequence[tuple[AgentId, str]]:
        """What was noted."""

    def surplus_over(self, space: AgentId, kind: str) -> None:
        """Note that there is none any more."""


class TermsStore(Protocol):
    """What files said last."""

    def put_retention(self, agent: AgentId, days: float | None) -> None:
        """Keep how long an agent's memory lasts; None where its file says nothing any more."""

    def retentions(self) -> Mapping[AgentId, float]:
        """What was kept."""


class Spaces(Protocol):
    """Whose memories there are."""

    def spaces(self) -> Sequence[AgentId]:
        """All agents that have something."""

    def space_size(self, space: AgentId) -> tuple[int, int]:
        """How many items an agent has, and how many bytes they take."""

    def space_has(self, space: AgentId, one: str) -> bool:
        """Whether an item is an agent's, in its memory or in a copy of it."""

    def copied_items(self, checkpoint: str, after: int, limit: int) -> Sequence[Row]:
        """Items that are in a copy and not in the memory, behind a number, by number."""


class MeaningStore(Protocol):
    """What of items is still to be done in the index of vectors."""

    def meaning_due(self, after: int, limit: int) -> Sequence[Row]:
        """Items whose vector is to be made, behind a number, by number."""

    def meaning_there(self, ids: Sequence[str]) -> None:
        """Note that their vectors are there; of items that are no more by now, that these are to be removed."""

    def vectors_gone(self, limit: int) -> Sequence[str]:
        """Ids of items that are no more, and whose vectors may still be there."""

    def forget_gone(self, ids: Sequence[str]) -> None:
        """Note that these are there no more."""


class LostMeanings(Protocol):
    """What of items is not in the index of vectors, though the store says so."""

    def meanings_after(self, after: int, limit: int) -> Sequence[tuple[int, str, Meaning]]:
        """Number, id and state of items that have a vector or are to get one, behind a number, by number."""

    def meaning_lost(self, ids: Sequence[str], instead: Meaning) -> None:
        """Note how it stands with items whose vectors were said to be there, and are not."""


class CheckpointStore(Protocol):
    """Copies of memories."""

    def put_checkpoint_of(self, checkpoint: Checkpoint) -> int:
        """Copy all that an agent has; returns how many items that is."""

    def checkpoints_of(self, space: AgentId) -> Sequence[Checkpoint]:
        """The copies of an agent's memory, newest first."""

    def restore_copy(self, space: AgentId, checkpoint: str) -> int:
        """Put a copy in the place of what an agent has; returns how many items that is."""

    def not_in_copy(self, space: AgentId, checkpoint: str) -> Sequence[str]:
        """Ids of what an agent has, and a copy has not."""

    def drop_checkpoint(self, space: AgentId, checkpoint: str) -> bool:
        """Remove one copy; whether it was there."""


class MemoryStore(
    ContextStore,
    ContextKeeping,
    SurplusStore,
    TermsStore,
    Spaces,
    MeaningStore,
    LostMeanings,
    CheckpointStore,
    Protocol,
):
    """All that the one store keeps of memories."""
