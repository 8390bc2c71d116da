"""Merkle trees: the published vectors, and proofs against a tree that is written as the RFC defines it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.crypto.merkle import (
    EMPTY_ROOT,
    Frontier,
    Stretch,
    consistency_proof,
    frontier_of,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "60" * 16)]
# Roots of the reference implementation of Certificate Transparency for the first seven of those leaves.
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
}


def reference_root(leaves: list[bytes]) -> bytes:
    """As RFC 6962 defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + reference_root(leaves[:split]) + reference_root(leaves[split:])).digest()


def nodes(leaves: list[bytes]):
    def node(level: int, index: int) -> bytes:
        part = leaves[index << level : (index + 1) << level]
        assert len(part) == 1 << level, "a proof asks for complete subtrees only"
        return reference_root(part)

    return node


@pytest.mark.parametrize("size", ROOTS)
def test_roots_as_published(size):
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier.append(leaf_hash(leaf))
    assert frontier.root().hex() == root_of(size, nodes(LEAVES)).hex() == ROOTS[size]


sizes = st.integers(1, 70)


@given(sizes)
def test_a_frontier_grows_as_the_tree_does(size):
    leaves = [bytes([number]) for number in range(size)]
    frontier = Frontier()
    for number, leaf in enumerate(leaves):
        frontier.append(leaf_hash(leaf))
        assert frontier.root() == reference_root(leaves[: number + 1])
    assert frontier_of(size, nodes(leaves)).hashes == frontier.hashes
    taken_up = Frontier(size, frontier.hashes)
    taken_up.append(leaf_hash(b"more"))
    assert taken_up.root() == reference_root([*leaves, b"more"])
    assert frontier.copy().root() == frontier.root()


@given(sizes, st.data())
def test_an_inclusion_proof_shows_one_leaf_at_one_place_and_no_other(size, data):
    leaves = [bytes([number]) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    root = reference_root(leaves)
    proof = inclusion_proof(index, size, nodes(leaves))
    assert len(proof) <= (size - 1).bit_length()
    leaf = leaf_hash(leaves[index])
    assert verify_inclusion(leaf, index, size, proof, root)
    for other in range(size):
        assert verify_inclusion(leaf, other, size, proof, root) is (other == index)
    assert not verify_inclusion(leaf_hash(b"other"), index, size, proof, root)
    assert not verify_inclusion(leaf, index, size, [*proof, EMPTY_ROOT], root)
    assert not verify_inclusion(leaf, index, size, proof, EMPTY_ROOT)
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        assert not verify_inclusion(leaf, index, size, proof[:place] + proof[place + 1 :], root)
        assert not verify_inclusion(leaf, index, size, [*proof[:place], EMPTY_ROOT, *proof[place + 1 :]], root)


@given(sizes, st.data())
def test_a_consistency_proof_shows_that_one_tree_continues_another(size, data):
    leaves = [bytes([number]) for number in range(size)]
    old = data.draw(st.integers(0, size))
    roots = reference_root(leaves[:old]), reference_root(leaves)
    proof = consistency_proof(old, size, nodes(leaves))
    assert verify_consistency(old, size, proof, *roots)
    altered = [b"x", *leaves[1:]]
    if old:
        assert not verify_consistency(old, size, proof, reference_root(altered[:old]), roots[1])
        assert not verify_consistency(
            old, size, consistency_proof(old, size, nodes(altered)), roots[0], reference_root(altered)
        )
    assert not verify_consistency(old, size, [*proof, EMPTY_ROOT], *roots)
    for place in range(len(proof)):
        assert not verify_consistency(old, size, [*proof[:place], EMPTY_ROOT, *proof[place + 1 :]], *roots)
        assert not verify_consistency(old, size, proof[:place] + proof[place + 1 :], *roots)


def test_what_is_not_there_has_no_proof():
    with pytest.raises(ValueError, match="has no leaf 3"):
        inclusion_proof(3, 3, nodes(LEAVES))
    with pytest.raises(ValueError, match="does not continue"):
        consistency_proof(4, 3, nodes(LEAVES))
    with pytest.raises(ValueError, match="the frontier of 3 leaves has 2 hashes"):
        Frontier(3, [EMPTY_ROOT])
    with pytest.raises(ValueError, match="the frontier of -1"):
        Frontier(-1)
    assert not verify_inclusion(EMPTY_ROOT, 0, 0, [], EMPTY_ROOT)
    assert not verify_consistency(2, 1, [], EMPTY_ROOT, EMPTY_ROOT)
    assert node_hash(EMPTY_ROOT, EMPTY_ROOT) != leaf_hash(EMPTY_ROOT + EMPTY_ROOT)


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 70))
def test_stretches_that_are_hashed_apart_join_to_the_same_tree(lengths, before):
    leaves = [leaf_hash(bytes([number % 256])) for number in range(before + sum(lengths))]
    joined, whole = Frontier(), Frontier()
    for leaf in leaves[:before]:
        joined.append(leaf)
    for length in lengths:
        stretch = Stretch(joined.size)
        for leaf in leaves[joined.size : joined.size + length]:
            stretch.append(leaf)
        for level, root in stretch.subtrees:
            joined.append_subtree(level, root)
    for leaf in leaves:
        whole.append(leaf)
    assert (joined.size, joined.hashes) == (whole.size, whole.hashes)


def test_a_subtree_begins_where_subtrees_of_its_level_do():
    frontier = Frontier()
    frontier.append(leaf_hash(b""))
    with pytest.raises(ValueError, match="no subtree of 2 leaves begins after 1 leaves"):
        frontier.append_subtree(1, leaf_hash(b""))
