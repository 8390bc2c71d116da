"""Proofs of who sent a message: a signature for each, or one for a batch with a path for each. Pure.

A batch is a Merkle tree in the manner of RFC 6962, section 2.1, with prefixes of its own, whose last row is filled up to
a power of two, so that every path of a batch is equally long. What is signed is the number of messages and the root:
a path shows that a message stands at its index of that tree. Nothing hashes to the filling.

A reader of a batch in order verifies one signature, and for each message the part of its path that the message before
has not shown yet: one hash of a node on average. The rest of the path has to be the same, byte for byte. Who has a
whole batch before it makes the tree anew, and compares what its sender must have written.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from symbi.bus.envelope import HASH_BYTES, MAX_BATCH, PLACE_BYTES, depth_of, place, read_place
from symbi.crypto.ed25519 import SIGNATURE_BYTES
from symbi.crypto.signing import SigningKey, VerifyingKey

MESSAGE_DOMAIN: Final = "symbi/bus/message/1"
BATCH_DOMAIN: Final = "symbi/bus/batch/1"
MAX_PROVEN: Final = 16_384  # batches that a reader remembers at once, the oldest forgotten first; some 1.5 KiB each

_LEAF: Final = b"\x00symbi/bus/leaf/1\0"
_NODE: Final = b"\x01symbi/bus/node/1\0"
_FILLING: Final = b"\x02symbi/bus/filling/1\0"


def _fillings() -> tuple[bytes, ...]:
    rows = [sha256(_FILLING).digest()]
    for _ in range(depth_of(MAX_BATCH)):
        rows.append(sha256(_NODE + rows[-1] + rows[-1]).digest())
    return tuple(rows)


FILLINGS: Final = _fillings()
"""By row, from the leaves: the hash of a subtree without messages."""


def leaf_of(signed: bytes) -> bytes:
    """The hash of a message in its batch, over all its bytes before the proof; 32 bytes."""
    return sha256(_LEAF + signed).digest()


def leaves_of(signed: Sequence[bytes]) -> list[bytes]:
    """Likewise, of several."""
    hashed, before = sha256, _LEAF
    return [hashed(before + one).digest() for one in signed]


def sign_one(key: SigningKey, signed: bytes) -> bytes:
    """The proof of a message that stands alone: 64 bytes over the SHA-256 of what stands before it."""
    return key.sign(MESSAGE_DOMAIN, sha256(signed).digest())


def verifies_one(key: VerifyingKey, signed: bytes, proof: bytes) -> bool:
    """Whether that proof is by this key."""
    return key.verifies(MESSAGE_DOMAIN, sha256(signed).digest(), proof)


def sign_batch(key: SigningKey, leaves: Sequence[bytes]) -> list[bytes]:
    """The proofs of the messages of a batch: size, index, path, signature.

    Args:
        key: Of their sender.
        leaves: By `leaf_of`, 2 to `MAX_BATCH`.
    """
    size, rows = len(leaves), _rows_over(leaves)
    return _proofs_below(rows, size, key.sign(BATCH_DOMAIN, _root_text(size, rows[-1][0])))


def _rows_over(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """The tree over some leaves, from them up to the root, which is a row of its own."""
    rows = [list(leaves)]
    hashed, node = sha256, _NODE
    for filling in FILLINGS[: depth_of(len(leaves))]:
        row = rows[-1]
        if len(row) & 1:
            row.append(filling)
        nodes = iter(row)
        rows.append([hashed(node + left + right).digest() for left, right in zip(nodes, nodes, strict=True)])
    return rows


def _proofs_below(rows: Sequence[list[bytes]], size: int, signature: bytes) -> list[bytes]:
    """The proofs of all messages of a batch."""
    above = [signature]
    for row in reversed(rows[:-1]):
        above = [row[index ^ 1] + above[index >> 1] for index in range(len(row))]
    return [place(size, index) + above[index] for index in range(size)]


class _Proven:
    """What a reader knows of a batch whose signature it has verified: the way of one message to the root.

    Args:
        key: By which it verified.
        size: Of the batch.
        index: Of the message.
        nodes: The hashes on its way, from its leaf to the root.
        beside: The hashes beside them, up to below the root, then the signature.
    """

    __slots__ = ("_beside", "_index", "_nodes", "key", "size")

    def __init__(self, key: VerifyingKey, size: int, index: int, nodes: list[bytes], beside: bytes) -> None:
        self.key = key
        self.size = size
        self._index = index
        self._nodes = nodes
        self._beside = beside

    @property
    def root(self) -> bytes:
        """Of the batch."""
        return self._nodes[-1]

    def shows(self, leaf: bytes, index: int, beside: bytes) -> bool:
        """Whether a path of the same length, with the same signature, leads from a leaf to the root of this batch."""
        known, nodes = self._beside, self._nodes
        parting = (index ^ self._index).bit_length()  # the row where the two ways have met
        if parting == 1:  # neighbours, as every second message in order is: each leaf is beside the other
            if not known.startswith(leaf) or beside != nodes[0] + known[HASH_BYTES:]:
                return False
            nodes[0] = leaf
        elif parting:
            row = parting - 1  # below the row where they meet, each is what stands beside the other
            at = HASH_BYTES * row
            fresh = climb(leaf, index, beside, row)
            if not known.startswith(fresh[row], at) or beside[at:] != nodes[row] + known[at + HASH_BYTES :]:
                return False
            nodes[:parting] = fresh
        else:
            return leaf == nodes[0] and beside == known
        self._index, self._beside = index, beside
        return True


class Proofs:
    """Verifies proofs, each signature of a batch once; what is remembered changes no answer."""

    __slots__ = ("_proven",)

    def __init__(self) -> None:
        self._proven: OrderedDict[bytes, _Proven] = OrderedDict()

    def verifies(self, key: VerifyingKey, signed: bytes, proof: bytes) -> bool:
        """Whether a batch that this key signed has this message at this place.

        Args:
            key: Of the sender that the message names.
            signed: All bytes before the proof.
            proof: As `sign_batch` makes it, of the length that its size asks for.
        """
        size, index = read_place(proof)
        leaf = sha256(_LEAF + signed).digest()
        beside, signature = proof[PLACE_BYTES:], proof[-SIGNATURE_BYTES:]
        proven = self._proven.get(signature)
        if proven is not None and proven.size == size and (proven.key is key or proven.key == key):
            return proven.shows(leaf, index, beside)
        nodes = climb(leaf, index, beside, depth_of(size))
        if not key.verifies(BATCH_DOMAIN, _root_text(size, nodes[-1]), signature):
            return False
        self._keep(signature, _Proven(key, size, index, nodes, beside))
        return True

    def verifies_whole(self, key: VerifyingKey, signed: Sequence[bytes], proofs: Sequence[bytes]) -> bool:
        """Whether these are all messages of one batch that this key signed, in order, each with the proof of its sender.

        Every byte of every proof is compared. That they are not says nothing of any one of them; `verifies` does.

        Args:
            key: Of the sender that the messages name.
            signed: Of each message, all bytes before the proof; 2 to `MAX_BATCH`.
            proofs: As many.
        """
        size, signature = len(signed), proofs[0][-SIGNATURE_BYTES:]
        rows = _rows_over(leaves_of(signed))
        root = rows[-1][0]
        if _proofs_below(rows, size, signature) != proofs:
            return False
        proven = self._proven.get(signature)
        if proven is not None and proven.size == size and proven.key == key and proven.root == root:
            return True
        if not key.verifies(BATCH_DOMAIN, _root_text(size, root), signature):
            return False
        self._keep(signature, _Proven(key, size, 0, [row[0] for row in rows], proofs[0][PLACE_BYTES:]))
        return True

    def _keep(self, signature: bytes, proven: _Proven) -> None:
        if len(self._proven) >= MAX_PROVEN:
            self._proven.popitem(last=False)
        self._proven[signature] = proven

    def forget(self) -> None:
        """Know nothing any more."""
        self._proven.clear()


def climb(leaf: bytes, index: int, beside: bytes, rows: int) -> list[bytes]:
    """The hashes on the way up from a leaf: the leaf, and one for each of so many rows."""
    nodes = [leaf]
    node = leaf
    for at in range(0, HASH_BYTES * rows, HASH_BYTES):
        other = beside[at : at + HASH_BYTES]
        node = sha256(_NODE + other + node if index & 1 else _NODE + node + other).digest()
        nodes.append(node)
        index >>= 1
    return nodes


def _root_text(size: int, root: bytes) -> bytes:
    return size.to_bytes(2) + root
