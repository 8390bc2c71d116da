"""The checks that come before the libraries, by themselves: the libraries may look at the same, and need not."""

import pytest

from symbi.crypto.ed25519 import acceptable_signature, require_public_key
from symbi.errors import InputError

ORDER = 2**252 + 27742317777372353535851937790883648493
NINE = (9).to_bytes(32, "little")
NEUTRAL = (1).to_bytes(32, "little")


@pytest.mark.parametrize(("s", "accepted"), [(0, True), (ORDER - 1, True), (ORDER, False), (2**256 - 1, False)])
def test_s_is_below_the_order(s, accepted):
    assert acceptable_signature(NINE + s.to_bytes(32, "little")) is accepted


@pytest.mark.parametrize("point", [NEUTRAL, NEUTRAL[:-1] + b"\x80", bytes(32)])
def test_r_has_not_small_order(point):
    assert not acceptable_signature(point + NINE)


@pytest.mark.parametrize("length", [0, 32, 63, 65])
def test_a_signature_has_64_bytes(length):
    assert not acceptable_signature(b"\x09" * length)


def test_an_ordinary_key_is_taken_whatever_its_sign():
    require_public_key(NINE)
    require_public_key(NINE[:-1] + b"\x80")
    with pytest.raises(InputError):
        require_public_key(NEUTRAL)
