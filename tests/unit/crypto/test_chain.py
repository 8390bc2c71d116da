import hashlib

import pytest

from symbi.crypto.chain import GENESIS, link


def test_the_first_link_follows_zeros():
    assert bytes(32) == GENESIS


def test_a_link_is_the_documented_hash():
    assert link(GENESIS, b"body") == hashlib.sha256(b"symbi/chain/1\0" + bytes(32) + b"body").digest()


def test_a_link_depends_on_body_and_place():
    first = link(GENESIS, b"a")
    assert len({first, link(GENESIS, b"b"), link(first, b"a"), link(first, b"b"), link(GENESIS, b"")}) == 5


def test_bytes_cannot_move_between_hash_and_body():
    with pytest.raises(ValueError, match="32 bytes long, not 31"):
        link(GENESIS[:-1], b"\0body")
    with pytest.raises(ValueError, match="32 bytes long, not 33"):
        link(GENESIS + b"b", b"ody")
