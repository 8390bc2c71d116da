"""Merkle trees as of RFC 6962, section 2.1, and RFC 9162, section 2.1: roots, inclusion proofs, consistency proofs.

A leaf hashes to SHA-256(0x00, data) and a node to SHA-256(0x01, left, right); a tree of n leaves splits at the largest
power of two below n. Like the chain (`symbi.crypto.chain`) it takes the interpreter's SHA-256 and no provider.

Proofs are made from the hashes of complete subtrees: `node(level, index)` is the hash over the leaves
`index * 2**level` to `(index + 1) * 2**level - 1`, so whoever keeps those need not keep the leaves.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""

Nodes: TypeAlias = Callable[[int, int], bytes]
"""`(level, index) -> hash` of a complete subtree."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf; 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over its two children, each of 32 bytes; 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """All that is needed of a tree to append to it: the roots of its complete subtrees, largest first.

    Args:
        size: How many leaves.
        hashes: One of 32 bytes for each one bit of the size, most significant first.

    Raises:
        ValueError: The number of hashes is not that of the ones in the size, or one has another length.
    """

    __slots__ = ("_hashes", "_size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self._size = size
        self._hashes = list(hashes)
        if size < 0 or len(self._hashes) != size.bit_count() or any(len(one) != HASH_BYTES for one in self._hashes):
            msg = f"the frontier of {size} leaves has {max(size, 0).bit_count()} hashes of {HASH_BYTES} bytes"
            raise ValueError(msg)

    @property
    def size(self) -> int:
        """How many leaves."""
        return self._size

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Roots of the complete subtrees, largest first."""
        return tuple(self._hashes)

    def append(self, leaf: bytes) -> None:
        """Add the hash of one leaf."""
        carried, size = leaf, self._size
        while size & 1:
            carried = node_hash(self._hashes.pop(), carried)
            size >>= 1
        self._hashes.append(carried)
        self._size += 1

    def append_subtree(self, level: int, root: bytes) -> None:
        """Add a complete subtree of `2**level` leaves by its root.

        Raises:
            ValueError: Subtrees of that level do not begin here.
        """
        size = self._size >> level
        if size << level != self._size:
            msg = f"no subtree of {1 << level} leaves begins after {self._size} leaves"
            raise ValueError(msg)
        carried = root
        while size & 1:
            carried = node_hash(self._hashes.pop(), carried)
            size >>= 1
        self._hashes.append(carried)
        self._size += 1 << level

    def root(self) -> bytes:
        """The root of the tree as it stands."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            root = node_hash(left, root)
        return root

    def copy(self) -> "Frontier":
        """Another frontier that stands where this one does."""
        return Frontier(self._size, self._hashes)


class Stretch:
    """A stretch of leaves by the roots of its complete subtrees, so that stretches can be hashed apart and joined.

    Args:
        first: Index of its first leaf.
    """

    __slots__ = ("_size", "_subtrees")

    def __init__(self, first: int) -> None:
        self._size = first
        self._subtrees: list[tuple[int, bytes]] = []

    @property
    def subtrees(self) -> tuple[tuple[int, bytes], ...]:
        """`(level, root)` in order; `Frontier.append_subtree` takes each."""
        return tuple(self._subtrees)

    def append(self, leaf: bytes) -> None:
        """Add the hash of one leaf."""
        subtrees = self._subtrees
        size, level = self._size, 0
        self._size += 1
        while size & 1 and subtrees and subtrees[-1][0] == level:
            leaf = node_hash(subtrees.pop()[1], leaf)
            size >>= 1
            level += 1
        subtrees.append((level, leaf))


def root_of(size: int, node: Nodes) -> bytes:
    """The root of the first `size` leaves."""
    return EMPTY_ROOT if size == 0 else _subtree(0, size, node)


def frontier_of(size: int, node: Nodes) -> Frontier:
    """The frontier of the first `size` leaves."""
    hashes, at = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            hashes.append(node(level, at >> level))
            at += 1 << level
    return Frontier(size, hashes)


def inclusion_proof(index: int, size: int, node: Nodes) -> list[bytes]:
    """The proof that a leaf stands in a tree (RFC 9162, section 2.1.3.1).

    Args:
        index: Of the leaf, from 0.
        size: How many leaves the tree has.
        node: Hashes of complete subtrees.

    Raises:
        ValueError: There is no such leaf.
    """
    if not 0 <= index < size:
        msg = f"a tree of {size} leaves has no leaf {index}"
        raise ValueError(msg)
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(_subtree(middle, high, node))
            high = middle
        else:
            proof.append(_subtree(low, middle, node))
            low = middle
    return proof[::-1]


def consistency_proof(old: int, size: int, node: Nodes) -> list[bytes]:
    """The proof that a tree continues an earlier one (RFC 9162, section 2.1.4.1).

    Args:
        old: How many leaves the earlier tree had.
        size: How many leaves the tree has.
        node: Hashes of complete subtrees.

    Returns:
        No hashes where either tree says all: an earlier one that is empty, or is the same.

    Raises:
        ValueError: The earlier tree is not the smaller one.
    """
    if not 0 <= old <= size:
        msg = f"a tree of {size} leaves does not continue one of {old}"
        raise ValueError(msg)
    if old in {0, size}:
        return []
    proof: list[bytes] = []
    low, high, whole = 0, size, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            proof.append(_subtree(middle, high, node))
            high = middle
        else:
            proof.append(_subtree(low, middle, node))
            low, whole = middle, False
    if not whole:
        proof.append(_subtree(low, high, node))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether a proof shows that a leaf's hash stands at an index of the tree with that root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for one in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(one, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, one)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def verify_consistency(old: int, size: int, proof: Sequence[bytes], old_root: bytes, root: bytes) -> bool:
    """Whether a proof shows that the tree with one root continues the one with another (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= size:
        return False
    if old in {0, size}:
        return not proof and old_root == (EMPTY_ROOT if old == 0 else root)
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    at, last = old - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for one in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node_hash(one, first), node_hash(one, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, one)
        at, last = at >> 1, last >> 1
    return last == 0 and first == old_root and second == root


def _split(size: int) -> int:
    """The largest power of two below a size of at least two."""
    return int(1 << (size - 1).bit_length() - 1)


def _subtree(low: int, high: int, node: Nodes) -> bytes:
    """The root over the leaves from `low` to `high`, where `low` stands at the beginning of a subtree."""
    size = high - low
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, low >> level)
    middle = low + _split(size)
    return node_hash(_subtree(low, middle, node), _subtree(middle, high, node))
