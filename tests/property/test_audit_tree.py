"""The writer's tree against the plain tree of `symbi.crypto.merkle`, and records against canonical JSON."""

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from symbi.audit.event import AuditEventType, Draft, Signing, parse_event, seal_event
from symbi.audit.tree import TILE_BYTES, TILE_WIDTH, Tree, nodes_of
from symbi.crypto.canonical import canonical_json, parse_canonical
from symbi.crypto.merkle import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from symbi.testing.trail import fixed_signing_key
from symbi.types import AgentId, EventId

MANY = 70_000  # more than two levels of tiles
KEY = fixed_signing_key()


def record(sequence: int) -> bytes:
    return b"%d" % sequence


class Kept:
    """Tiles as a store keeps them, and how often records were asked for."""

    def __init__(self):
        self.tiles = {}
        self.asked = 0

    def take(self, tiles):
        for tile in tiles:
            assert len(tile.hashes) == TILE_BYTES
            assert (tile.level, tile.number) not in self.tiles
            self.tiles[tile.level, tile.number] = tile.hashes

    def tile(self, level, number):
        return self.tiles.get((level, number))

    def record(self, sequence):
        self.asked += 1
        return record(sequence)


@pytest.fixture(scope="module")
def large():
    kept, tree, frontier, roots = Kept(), Tree(), Frontier(), {0: Frontier().root()}
    for start in range(0, MANY, 1000):
        kept.take(tree.extend([record(sequence) for sequence in range(start + 1, start + 1001)]))
        for sequence in range(start + 1, start + 1001):
            frontier.append(leaf_hash(record(sequence)))
            roots[sequence] = frontier.root()
        assert tree.root() == frontier.root()
    return kept, roots


@given(sizes=st.lists(st.integers(0, 700), max_size=6))
@settings(max_examples=50, deadline=None)
def test_however_a_tree_grows_and_is_opened_again_its_root_is_that_of_its_records(sizes):
    kept, tree, plain = Kept(), Tree(), Frontier()
    for more in sizes:
        records = [record(plain.size + number) for number in range(1, more + 1)]
        kept.take(tree.copy().extend(records))
        tree.extend(records)
        for one in records:
            plain.append(leaf_hash(one))
        assert (tree.size, tree.root()) == (plain.size, plain.root())
        kept.asked = 0
        tree = Tree.rebuild(plain.size, kept.tile, kept.record)
        assert kept.asked < TILE_WIDTH
        assert (tree.size, tree.root()) == (plain.size, plain.root())


@given(data=st.data())
@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.generate))
def test_proofs_from_tiles_hold(large, data):
    kept, roots = large
    size = data.draw(st.integers(1, MANY))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))
    node = nodes_of(size, kept.tile, kept.record)
    kept.asked = 0
    assert root_of(size, node) == roots[size]
    proof = inclusion_proof(index, size, node)
    assert verify_inclusion(leaf_hash(record(index + 1)), index, size, proof, roots[size])
    assert verify_consistency(old, size, consistency_proof(old, size, node), roots[old], roots[size])
    assert kept.asked < TILE_WIDTH


def test_a_subtree_that_is_not_complete_has_no_hash(large):
    node = nodes_of(300, large[0].tile, large[0].record)
    for level, index in ((8, 1), (0, 300), (9, 0), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="no complete subtree"):
            node(level, index)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(
    details=st.dictionaries(TEXT, JSON, max_size=5),
    agent=TEXT,
    run=TEXT | st.just(""),
    sequence=st.integers(2, 2**53 - 1),
    signing=st.sampled_from(Signing),
)
@settings(max_examples=300, deadline=None)
def test_a_record_put_together_from_pieces_is_the_canonical_json_of_its_fields(details, agent, run, sequence, signing):
    event, stored = seal_event(
        Draft(AuditEventType.RUN_STARTED, AgentId(agent), details, run),
        sequence=sequence,
        previous_hash="ab" * 32,
        event_id=EventId("01900000-0000-7000-9000-000000000002"),
        timestamp="2026-01-02T03:04:05.000000006Z",
        key=KEY,
        signing=signing,
    )
    fields = parse_canonical(stored.record)
    assert canonical_json(fields) == stored.record
    assert (fields["agent_id"], fields["run_id"], fields["sequence"]) == (agent, run, sequence)
    assert canonical_json(fields["details"]) == canonical_json(details)
    assert bool(fields["signature"]) is (signing is Signing.EVENT)
    assert parse_event(stored.record) == event
