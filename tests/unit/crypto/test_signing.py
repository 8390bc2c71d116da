import copy
import hashlib
import pickle

import pytest

from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import InputError, SignatureInvalid

SEED = b"\x5a" * 32


@pytest.fixture(params=["openssl", "libsodium"])
def provider(request):
    return open_provider(request.param)


@pytest.fixture
def key(provider):
    return SigningKey(SEED, provider)


def test_what_was_signed_verifies(key):
    signature = key.sign("audit.event", b"message")
    assert key.verifying_key().verify("audit.event", b"message", signature) is None


def test_a_signature_verifies_by_the_other_provider():
    keys = [SigningKey(SEED, open_provider(name)) for name in ("openssl", "libsodium")]
    signatures = {key.sign("audit.event", b"message") for key in keys}
    assert len(signatures) == 1
    for key in keys:
        key.verifying_key().verify("audit.event", b"message", min(signatures))


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("audit.head", b"message"),
        ("audit.even", b"tmessage"),
        ("audit.eventm", b"essage"),
        ("audit.event", b"Message"),
        ("audit.event", b""),
    ],
)
def test_a_signature_is_for_its_domain_and_message_alone(key, domain, message):
    signature = key.sign("audit.event", b"message")
    with pytest.raises(SignatureInvalid) as caught:
        key.verifying_key().verify(domain, message, signature)
    assert caught.value.fields == {"key_id": key.key_id}


def test_what_is_signed_is_documented(provider, key):
    signature = key.sign("audit.event", b"message")
    verify = provider.verifier(key.verifying_key().public)
    assert verify(signature, b"symbi/sign/1\0" + b"\x0b" + b"audit.event" + b"message")
    assert not verify(signature, b"message")


@pytest.mark.parametrize("signature", [b"", bytes(64), b"\xff" * 64, bytes(63), bytes(65)])
def test_what_is_no_signature_is_refused(key, signature):
    with pytest.raises(SignatureInvalid):
        key.verifying_key().verify("audit.event", b"message", signature)


def test_another_key_does_not_verify(provider, key):
    with pytest.raises(SignatureInvalid):
        SigningKey(bytes(32), provider).verifying_key().verify("d", b"m", key.sign("d", b"m"))


@pytest.mark.parametrize("domain", ["", "d" * 256, "dömäne"])
def test_a_domain_is_short_ascii(key, domain):
    with pytest.raises(InputError, match="1 to 255 ASCII characters"):
        key.sign(domain, b"message")
    with pytest.raises(InputError, match="1 to 255 ASCII characters"):
        key.verifying_key().verify(domain, b"message", bytes(64))


def test_the_id_is_of_the_public_key(key):
    public = key.verifying_key().public
    assert key.key_id == key.verifying_key().key_id == hashlib.sha256(public).hexdigest()[:16]


def test_a_public_key_goes_through_hexadecimal(provider, key):
    again = VerifyingKey.from_hex(key.verifying_key().hex, provider)
    assert again == key.verifying_key()
    assert hash(again) == hash(key.verifying_key())
    assert again != SigningKey(bytes(32), provider).verifying_key()
    assert again != again.public
    again.verify("d", b"m", key.sign("d", b"m"))


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "00" * 32, "01" + "00" * 31])
def test_what_is_no_public_key_is_refused(provider, text):
    with pytest.raises(InputError) as caught:
        VerifyingKey.from_hex(text, provider)
    assert caught.value.code == "crypto.public_key"


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused(provider, length):
    with pytest.raises(InputError, match=f"32 bytes long, not {length}"):
        SigningKey(bytes(length), provider)


def test_a_signing_key_shows_nothing_but_its_id(key):
    shown = f"{key!r} {key!s} {key.verifying_key()!r}"
    assert key.key_id in shown
    for secret in (SEED.hex(), repr(SEED)[2:-1], "ZZZZ"):
        assert secret not in shown
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_keys_are_not_pickled_or_copied(key, leave):
    for held in (key, key.verifying_key()):
        with pytest.raises(TypeError, match="is not pickled or copied"):
            leave(held)
