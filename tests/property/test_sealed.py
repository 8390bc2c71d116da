"""Sealed values: what was sealed opens again, at its place alone, and no bit of it can be changed."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.adapters.sqlite import SqliteStore
from symbi.crypto.keys import KeyRing
from symbi.crypto.provider import open_provider
from symbi.errors import DecryptionFailed
from symbi.guard.sealed import is_sealed, read_sealed
from symbi.guard.vault import Vault, place
from symbi.testing.clock import ManualClock

SUBJECTS = st.lists(st.sampled_from(["anna", "ben", "cleo", "*"]), min_size=1, max_size=4, unique=True)
PLACES = st.builds(
    place, st.sampled_from(["effects", "runs"]), st.sampled_from(["result", "error"]), st.text(max_size=4)
)


class _InMemory:
    """A key store."""

    def __init__(self):
        self.kept = {}

    def load(self, purpose):
        return self.kept.get(purpose)

    def store(self, purpose, secret):
        self.kept[purpose] = secret

    def describe(self):
        return "memory"


@pytest.fixture(scope="module")
def vault():
    with SqliteStore(None) as store:
        yield Vault(store, KeyRing(_InMemory(), open_provider()), open_provider(), ManualClock())


@given(SUBJECTS, st.binary(max_size=200), PLACES, PLACES)
def test_a_value_comes_back_at_its_place_alone(vault, subjects, plain, here, there):
    keys = vault.keys_now(subjects)
    sealed = keys.seal(plain, here)
    assert is_sealed(sealed)
    assert vault.open(sealed, here) == plain
    assert read_sealed(sealed).keys == keys.ids
    assert len(plain) < 8 or plain not in base64.b64decode(json.loads(sealed[1:])["sealed"]["text"])
    if here != there:
        with pytest.raises(DecryptionFailed):
            vault.open(sealed, there)


@given(SUBJECTS, st.binary(max_size=40), st.data())
def test_no_bit_of_it_can_be_flipped(vault, subjects, plain, data):
    here = place("effects", "result", "e")
    document = json.loads(vault.keys_now(subjects).seal(plain, here)[1:])
    text = bytearray(base64.b64decode(document["sealed"]["text"]))
    bit = data.draw(st.integers(0, 8 * len(text) - 1))
    text[bit // 8] ^= 1 << bit % 8
    document["sealed"]["text"] = base64.b64encode(text).decode()
    with pytest.raises(DecryptionFailed):
        vault.open(b"\x01" + json.dumps(document).encode(), here)


@given(st.binary(max_size=200))
def test_what_is_none_is_refused_or_stays(vault, data):
    if is_sealed(data):
        with pytest.raises(DecryptionFailed):
            vault.open(data, b"")
    else:
        assert vault.open(data, b"") == data


@given(SUBJECTS, st.data())
def test_a_shorter_list_of_keys_does_not_open(vault, subjects, data):
    here = place("effects", "result", "e")
    document = json.loads(vault.keys_now(subjects).seal(b"plain", here)[1:])
    keys = document["sealed"]["keys"]
    document["sealed"]["keys"] = data.draw(
        st.lists(st.sampled_from(keys), unique=True).map(sorted).filter(lambda k: k != keys)
    )
    with pytest.raises(DecryptionFailed):
        vault.open(b"\x01" + json.dumps(document).encode(), here)
