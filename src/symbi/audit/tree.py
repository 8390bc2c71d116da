"""The Merkle tree over the records of the trail: how the writer grows it, and how readers get at its nodes.

The leaf at index i is the record of event i + 1. Complete tiles are kept (`symbi.audit.port.Tile`): 256 hashes of a
level, whose root is one hash of the level above. The right edge is made anew from at most 255 records and the tiles
next to it whenever a trail is opened, so that what is kept of a tree is never half written.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Final

from symbi.audit.port import Tile
from symbi.crypto.merkle import HASH_BYTES, Frontier, Nodes, frontier_of, leaf_hash, node_hash

TILE_HEIGHT: Final = 8  # levels of the tree in one tile
TILE_WIDTH: Final = 1 << TILE_HEIGHT
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES
CACHED_TILES: Final = 64  # half a MiB: a proof needs one tile a level, and its neighbours
CACHED_ROOTS: Final = 4096  # of tiles; two whole levels of the right edge, some hundred KiB

TileOf = Callable[[int, int], bytes | None]
"""`(level, number) -> hashes` of a complete tile, or None."""
RecordOf = Callable[[int], bytes]
"""`sequence -> record`."""


class Tree:
    """A tree that grows, and gives out each tile as it becomes complete.

    Args:
        frontier: Where it stands.
        edge: For each level of tiles, the hashes of the tile that is not complete yet.
    """

    __slots__ = ("_edge", "_hashes", "_size")

    def __init__(self, frontier: Frontier | None = None, edge: Sequence[Sequence[bytes]] = ((),)) -> None:
        self._size = 0 if frontier is None else frontier.size
        self._hashes = [] if frontier is None else list(frontier.hashes)
        self._edge = [list(hashes) for hashes in edge]

    @classmethod
    def rebuild(cls, size: int, tile: TileOf, record: RecordOf) -> "Tree":
        """The tree over the first `size` records, from complete tiles and the records after them.

        Raises:
            ChainBroken: A tile or a record is missing; as `tile` and `record` raise.
        """
        node = nodes_of(size, tile, record)
        edge: list[list[bytes]] = []
        for level in range(max(1, -(-size.bit_length() // TILE_HEIGHT))):
            here = size >> level * TILE_HEIGHT
            edge.append([node(level * TILE_HEIGHT, index) for index in range(here - here % TILE_WIDTH, here)])
        return cls(frontier_of(size, node), edge)

    @property
    def size(self) -> int:
        """How many leaves."""
        return self._size

    def extend(self, records: Sequence[bytes]) -> list[Tile]:
        """Add records; the tiles that became complete, lower levels first."""
        tiles: list[Tile] = []
        edge, hashes, lowest = self._edge, self._hashes, self._edge[0]
        for record in records:
            carried = sha256(b"\x00" + record).digest()
            lowest.append(carried)
            size, height = self._size, 0
            while size & 1:
                carried = sha256(b"\x01" + hashes.pop() + carried).digest()
                size >>= 1
                height += 1
                if not height % TILE_HEIGHT:
                    level = height // TILE_HEIGHT
                    tiles.append(Tile(level - 1, size, b"".join(edge[level - 1])))
                    edge[level - 1].clear()
                    if level == len(edge):
                        edge.append([])
                    edge[level].append(carried)
            hashes.append(carried)
            self._size += 1
        return tiles

    def root(self) -> bytes:
        """The root of the tree as it stands."""
        return Frontier(self._size, self._hashes).root()

    def copy(self) -> "Tree":
        """Another tree that stands where this one does."""
        return Tree(Frontier(self._size, self._hashes), self._edge)


def nodes_of(size: int, tile: TileOf, record: RecordOf) -> Nodes:
    """The nodes of the complete subtrees of the tree over the first `size` records, for roots and proofs.

    Args:
        size: How many records; those after them are not asked for.
        tile: Complete tiles.
        record: Records, for the leaves that stand in no complete tile.

    Returns:
        A function that raises ValueError for a subtree that is not complete, and whatever `tile` and `record` raise. It
        keeps some of what it read, so it is of use for one look at a trail.
    """

    @lru_cache(CACHED_TILES)
    def kept(level: int, number: int) -> bytes | None:
        complete = (number + 1) * TILE_WIDTH <= size >> level * TILE_HEIGHT
        return tile(level, number) if complete else None

    @lru_cache(CACHED_ROOTS)
    def edge(level: int, index: int) -> bytes:
        """One hash of a level of tiles that is not kept in a tile."""
        return leaf_hash(record(index + 1)) if level == 0 else under(level - 1, index * TILE_WIDTH, TILE_WIDTH)

    def under(level: int, first: int, count: int) -> bytes:
        """The root over some neighbours in one tile; `count` is a power of two and divides `first`."""
        number, at = divmod(first, TILE_WIDTH)
        row = kept(level, number)
        if row is None:
            hashes = [edge(level, index) for index in range(first, first + count)]
        else:
            hashes = [row[place * HASH_BYTES : (place + 1) * HASH_BYTES] for place in range(at, at + count)]
        while len(hashes) > 1:
            hashes = [node_hash(*hashes[at : at + 2]) for at in range(0, len(hashes), 2)]
        return hashes[0]

    def node(level: int, index: int) -> bytes:
        if level < 0 or index < 0 or (index + 1) << level > size:
            msg = f"a tree of {size} leaves has no complete subtree {index} at level {level}"
            raise ValueError(msg)
        tiles, height = divmod(level, TILE_HEIGHT)
        return under(tiles, index << height, 1 << height)

    return node
