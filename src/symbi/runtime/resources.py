"""Resources of nodes in integer units, and who gets them: pure.

Processor time is counted in milli-cores, memory in mebibytes, disk bandwidth in mebibytes a second and network
bandwidth in mebibits a second, so that nothing is rounded and what is given back is exactly what was taken.

| strategy         | where a claim goes                                                                        |
|------------------|-------------------------------------------------------------------------------------------|
| `FIRST_FIT`      | the first node with room: the least work                                                   |
| `BEST_FIT`       | the node that it leaves least room on, so that large claims find whole nodes               |
| `PRIORITY_BASED` | a critical claim: the node with most room; any other: as best fit, but never into the      |
|                  | share of each node that is kept for critical claims                                        |
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final, NewType

from symbi.errors import InputError, InternalError
from symbi.types import JsonValue, Priority, ResourceLimits

NodeId = NewType("NodeId", str)
"""A machine, or a part of one, that work is placed on."""

MILLI: Final = 1000  # milli-cores in a core
PERMILLE: Final = 1000
CRITICAL_SHARE: Final = 100  # permille of every node that PRIORITY_BASED keeps for critical claims
_SCALE: Final = 10_000  # resolution in which nodes are compared: ten-thousandths of their capacity


class Strategy(StrEnum):
    """How a node is chosen; the seed's three."""

    FIRST_FIT = "first_fit"
    BEST_FIT = "best_fit"
    PRIORITY_BASED = "priority_based"


@dataclass(frozen=True, slots=True)
class Amount:
    """So much of everything: a claim, a capacity, or what is free.

    Attributes:
        memory_mib: Mebibytes.
        cpu_milli: Thousandths of a core.
        disk_mibps: Mebibytes a second.
        network_mibitps: Mebibits a second.

    Raises:
        InputError: A part is negative.
    """

    memory_mib: int = 0
    cpu_milli: int = 0
    disk_mibps: int = 0
    network_mibitps: int = 0

    def __post_init__(self) -> None:
        if min(self.parts) < 0:
            msg = f"an amount of {self} has a negative part"
            raise InputError(msg, code="resources.negative")

    def __str__(self) -> str:
        return (
            f"{self.memory_mib} MiB, {self.cpu_milli} milli-cores, "
            f"{self.disk_mibps} MiB/s of disk, {self.network_mibitps} Mibit/s of network"
        )

    @property
    def parts(self) -> tuple[int, int, int, int]:
        """Its numbers, in the order of its attributes."""
        return self.memory_mib, self.cpu_milli, self.disk_mibps, self.network_mibitps

    def fits(self, room: "Amount") -> bool:
        """No part of it is more than there is."""
        return (
            self.memory_mib <= room.memory_mib
            and self.cpu_milli <= room.cpu_milli
            and self.disk_mibps <= room.disk_mibps
            and self.network_mibitps <= room.network_mibitps
        )

    def plus(self, other: "Amount") -> "Amount":
        """Both together."""
        return Amount(*(mine + its for mine, its in zip(self.parts, other.parts, strict=True)))

    def minus(self, other: "Amount") -> "Amount":
        """What is left; `other` must fit.

        Raises:
            InputError: It does not.
        """
        return Amount(*(mine - its for mine, its in zip(self.parts, other.parts, strict=True)))

    def share(self, permille: int) -> "Amount":
        """So many thousandths of every part, rounded down."""
        return Amount(*(part * permille // PERMILLE for part in self.parts))

    def facts(self) -> dict[str, JsonValue]:
        """Its parts by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


NOTHING: Final = Amount()


def amount_of(limits: ResourceLimits) -> Amount:
    """What an agent with these limits takes from a pool, exactly.

    Raises:
        InputError: The cores are not a whole number of thousandths, or a limit is negative or no number.
    """
    milli = Decimal(str(limits.cpu_cores)) * MILLI
    if not milli.is_finite() or milli != int(milli):
        msg = f"`{limits.cpu_cores}` cores are not a whole number of thousandths"
        raise InputError(msg, code="resources.cpu", hint="give at most three decimals")
    return Amount(limits.memory_mb, int(milli), limits.disk_io_mbps, limits.network_io_mbps)


@dataclass(frozen=True, slots=True)
class Node:
    """A node and what is left on it.

    Attributes:
        id: The node.
        capacity: All that it has.
        free: What nobody has taken.
    """

    id: NodeId
    capacity: Amount
    free: Amount

    @classmethod
    def empty(cls, node_id: NodeId, capacity: Amount) -> "Node":
        """A node on which nothing is taken."""
        return cls(node_id, capacity, capacity)

    def room_without(self, claim: Amount) -> int:
        """What is left after a claim, as a sum of ten-thousandths of each part of the capacity."""
        return sum(
            (free - part) * _SCALE // capacity
            for free, part, capacity in zip(self.free.parts, claim.parts, self.capacity.parts, strict=True)
            if capacity
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """What was taken and where; the receipt that `release` takes back."""

    node: NodeId
    claim: Amount


@dataclass(frozen=True, slots=True)
class ResourcePool:
    """Nodes and a strategy; a value: allocating gives a new one.

    Who holds what is the caller's to know: it keeps the placements. The pool makes sure that nothing is given out twice
    and that nothing more comes back than there is.

    Attributes:
        nodes: In the order in which first fit tries them; no two with one id.
        strategy: How a node is chosen.
        critical_share: Thousandths of every node that `PRIORITY_BASED` keeps for critical claims.

    Raises:
        InputError: Two nodes bear one id, or the share is not within 0 to 1000.
    """

    nodes: tuple[Node, ...]
    strategy: Strategy = Strategy.FIRST_FIT
    critical_share: int = CRITICAL_SHARE
    _most: tuple[int, int, int, int] = field(init=False, repr=False, compare=False)  # that is free of each part

    def __post_init__(self) -> None:
        most = tuple(map(max, (0, 0, 0, 0), (0, 0, 0, 0), *(node.free.parts for node in self.nodes)))
        object.__setattr__(self, "_most", most)
        if len({node.id for node in self.nodes}) != len(self.nodes):
            msg = "two nodes of the pool bear one id"
            raise InputError(msg, code="resources.node")
        if not 0 <= self.critical_share <= PERMILLE:
            msg = f"a critical share of `{self.critical_share}` permille is not within 0 to {PERMILLE}"
            raise InputError(msg, code="resources.share")

    @property
    def capacity(self) -> Amount:
        """All that the nodes have."""
        return _sum(node.capacity for node in self.nodes)

    @property
    def free(self) -> Amount:
        """All that nobody has taken."""
        return _sum(node.free for node in self.nodes)

    def require_possible(self, claim: Amount, priority: Priority = Priority.NORMAL) -> None:
        """See that a claim could be met if the pool were empty; a claim is never spread over nodes.

        Raises:
            InputError: It could not, on any node; the message and `fields` have the numbers.
        """
        rooms = [node.capacity.minus(self._kept(node, priority)) for node in self.nodes]
        if any(claim.fits(room) for room in rooms):
            return
        largest = (
            Amount(*(max(parts) for parts in zip(*(room.parts for room in rooms), strict=True))) if rooms else NOTHING
        )
        msg = f"a claim of {claim} can never be met: the most that a node gives is {largest}"
        raise InputError(
            msg,
            code="resources.impossible",
            hint="lower the agent's limits, or enlarge the pool",
            claim=claim.facts(),
            largest=largest.facts(),
        )

    def allocate(self, claim: Amount, priority: Priority = Priority.NORMAL) -> "tuple[ResourcePool, Placement] | None":
        """Take a claim from one node, as the strategy chooses.

        Returns:
            The pool without it and the placement, or None where there is no room now.

        Raises:
            InputError: There never will be.
        """
        answer = self.allocate_possible(claim, priority)
        if answer is None:
            self.require_possible(claim, priority)
        return answer

    def allocate_possible(
        self, claim: Amount, priority: Priority = Priority.NORMAL
    ) -> "tuple[ResourcePool, Placement] | None":
        """As `allocate`, for a claim that `require_possible` has let pass; None where there is no room now."""
        memory, cpu, disk, network = self._most
        if (
            claim.memory_mib > memory
            or claim.cpu_milli > cpu
            or claim.disk_mibps > disk
            or claim.network_mibitps > network
        ):
            return None  # most looks at a full pool end here
        fitting = [index for index, node in enumerate(self.nodes) if self._has_room(node, claim, priority)]
        if not fitting:
            return None
        chosen = self._choose(fitting, claim, priority)
        node = self.nodes[chosen]
        pool = self._with(chosen, replace(node, free=node.free.minus(claim)))
        return pool, Placement(node.id, claim)

    def allocate_on(self, node_id: NodeId, claim: Amount) -> "tuple[ResourcePool, Placement] | None":
        """Take a claim from one node, whatever the strategy keeps there; None where there is no room now."""
        for index, node in enumerate(self.nodes):
            if node.id == node_id and claim.fits(node.free):
                return self._with(index, replace(node, free=node.free.minus(claim))), Placement(node.id, claim)
        return None

    def without(self, node_id: NodeId, kept: Amount) -> "ResourcePool":
        """The pool as it looks to others while so much of a node is kept for somebody, as far as it is free."""
        for index, node in enumerate(self.nodes):
            if node.id == node_id:
                parts = zip(node.free.parts, kept.parts, strict=True)
                left = Amount(*(max(0, free - part) for free, part in parts))
                return self._with(index, replace(node, free=left))
        return self

    def release(self, placement: Placement) -> "ResourcePool":
        """Give a placement back.

        Raises:
            InternalError: The node is unknown, or would have more than its capacity: it was given back before.
        """
        for index, node in enumerate(self.nodes):
            if node.id == placement.node:
                free = node.free.plus(placement.claim)
                if not free.fits(node.capacity):
                    msg = f"more is given back to node `{node.id}` than was taken from it"
                    raise InternalError(msg, code="internal.resources")
                return self._with(index, replace(node, free=free))
        msg = f"there is no node `{placement.node}` in the pool"
        raise InternalError(msg, code="internal.resources")

    def _choose(self, fitting: Sequence[int], claim: Amount, priority: Priority) -> int:
        def room_left(index: int) -> int:
            return self.nodes[index].room_without(claim)

        if self.strategy is Strategy.FIRST_FIT:
            return fitting[0]
        if self.strategy is Strategy.PRIORITY_BASED and priority is Priority.CRITICAL:
            return max(fitting, key=room_left)
        return min(fitting, key=room_left)

    def _kept(self, node: Node, priority: Priority) -> Amount:
        """What a claim of this priority must leave free on a node."""
        if self.strategy is not Strategy.PRIORITY_BASED or priority is Priority.CRITICAL:
            return NOTHING
        return node.capacity.share(self.critical_share)

    def _has_room(self, node: Node, claim: Amount, priority: Priority) -> bool:
        if not claim.fits(node.free):
            return False
        kept = self._kept(node, priority)
        return kept is NOTHING or claim.plus(kept).fits(node.free)

    def _with(self, index: int, node: Node) -> "ResourcePool":
        return replace(self, nodes=(*self.nodes[:index], node, *self.nodes[index + 1 :]))


def _sum(amounts: Iterable[Amount]) -> Amount:
    total = NOTHING
    for amount in amounts:
        total = total.plus(amount)
    return total
