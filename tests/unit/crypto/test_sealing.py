import copy
import pickle
from dataclasses import replace

import pytest

from symbi.crypto import sealing
from symbi.crypto.provider import open_provider
from symbi.crypto.sealing import Ciphertext, SealingKey
from symbi.errors import DecryptionFailed, InputError, LimitExceeded
from symbi.types import KeyId

SECRET = b"\x5a" * 32


@pytest.fixture(params=["openssl", "libsodium"])
def provider(request):
    return open_provider(request.param)


@pytest.fixture
def key(provider):
    return SealingKey(SECRET, "backups", provider)


@pytest.mark.parametrize("plaintext", [b"", b"x", b"a secret" * 1000])
def test_what_was_sealed_opens(key, plaintext):
    sealed = Ciphertext.from_bytes(key.seal(plaintext, b"record 7").to_bytes())
    assert key.open(sealed, b"record 7") == plaintext
    assert len(sealed.to_bytes()) == len(plaintext) + 37


def test_a_sealed_text_opens_by_the_other_provider():
    first, second = (SealingKey(SECRET, "backups", open_provider(name)) for name in ("openssl", "libsodium"))
    assert second.open(first.seal(b"text", b"a"), b"a") == b"text"
    assert first.open(second.seal(b"text", b"a"), b"a") == b"text"


def test_the_same_text_is_never_sealed_alike(key):
    sealed = [key.seal(b"text", b"") for _ in range(100)]
    assert len({one.nonce for one in sealed}) == 100
    assert len({one.body for one in sealed}) == 100
    assert {len(one.nonce) for one in sealed} == {12}


def test_no_byte_can_be_altered(key):
    data = key.seal(b"text", b"associated").to_bytes()
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        with pytest.raises(DecryptionFailed):
            key.open(Ciphertext.from_bytes(bytes(altered)), b"associated")


def test_no_byte_can_be_cut_or_added(key):
    data = key.seal(b"text", b"associated").to_bytes()
    for other in [*(data[:length] for length in range(len(data))), data + b"\0", b"\0" + data]:
        with pytest.raises(DecryptionFailed):
            key.open(Ciphertext.from_bytes(other), b"associated")


@pytest.mark.parametrize("nonce", [b"", bytes(11), bytes(13)])
def test_a_nonce_of_another_length_is_refused(key, nonce):
    with pytest.raises(DecryptionFailed):
        key.open(replace(key.seal(b"text", b""), nonce=nonce), b"")


def test_it_opens_only_where_it_belongs(key):
    with pytest.raises(DecryptionFailed, match="altered, belongs elsewhere"):
        key.open(key.seal(b"text", b"record 7"), b"record 8")


def test_another_key_is_named(provider, key):
    other = SealingKey(SECRET, "memory", provider)
    with pytest.raises(DecryptionFailed, match=f"sealed by key `{other.key_id}`, not by `{key.key_id}`"):
        key.open(other.seal(b"text", b""), b"")


def test_the_key_id_is_authenticated(provider, key):
    """Two labels for one secret: the id in the header cannot be exchanged for the other."""
    other = SealingKey(SECRET, "memory", provider)
    with pytest.raises(DecryptionFailed):
        key.open(replace(other.seal(b"text", b""), key_id=key.key_id), b"")


def test_another_secret_with_the_same_label_does_not_open(provider, key):
    with pytest.raises(DecryptionFailed):
        SealingKey(bytes(32), "backups", provider).open(key.seal(b"text", b""), b"")


def test_a_later_version_is_refused(key):
    data = key.seal(b"text", b"").to_bytes()
    with pytest.raises(DecryptionFailed, match="version 2, and this release reads 1"):
        Ciphertext.from_bytes(b"\2" + data[1:])


def test_the_stored_form_is_documented(provider):
    key = SealingKey(SECRET, "backups", provider, random=lambda count: bytes(range(count)))
    header = b"\1" + bytes.fromhex(key.key_id)
    data = key.seal(b"text", b"associated").to_bytes()
    assert data[:21] == header + bytes(range(12))
    assert provider.aead(SECRET).open(bytes(range(12)), data[21:], header + b"associated") == b"text"


def test_a_key_seals_a_bounded_number_of_texts(monkeypatch, key):
    monkeypatch.setattr(sealing, "MAX_SEALS", 2)
    key.seal(b"", b"")
    key.seal(b"", b"")
    with pytest.raises(LimitExceeded, match="has sealed 2 texts"):
        key.seal(b"", b"")


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_secret_of_another_length_is_refused(provider, length):
    with pytest.raises(InputError, match=f"32 bytes long, not {length}"):
        SealingKey(bytes(length), "backups", provider)


def test_the_id_is_of_the_label(provider, key):
    assert key.key_id == KeyId(provider.sha256(b"backups").hex()[:16])


def test_a_sealing_key_shows_nothing_but_its_id(key):
    assert repr(key) == str(key) == f"SealingKey(key_id={key.key_id})"
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_sealing_key_is_not_pickled_or_copied(key, leave):
    with pytest.raises(TypeError, match="is not pickled or copied"):
        leave(key)
