"""Both providers against the same published vectors, and against the same malformed input."""

import hashlib
import json
from itertools import product
from pathlib import Path

import pytest

from symbi.crypto import libsodium
from symbi.crypto.libsodium import LibsodiumAead, has_hardware_aes
from symbi.crypto.openssl import OpensslAead
from symbi.crypto.provider import MAX_HKDF_BYTES, open_provider, resolve_provider
from symbi.errors import ConfigError, InputError

DATA = Path(__file__).parents[2] / "data/crypto"
ORDER = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19
SMALL_ORDER = [
    0,
    1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    P - 1,
    P,
    P + 1,
]

SMALL_ORDER_U = [  # u coordinates of X25519 with a shared secret of zero, and what is not reduced
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]


def vectors(name):
    published = json.loads((DATA / f"{name}.json").read_text("utf-8"))
    assert published["source"]
    return [pytest.param(case, id=case["name"]) for case in published["vectors"]]


def raw(text):
    return bytes.fromhex(text)


def points(y):
    """The encodings of both points with this y."""
    return [(y | sign << 255).to_bytes(32, "little") for sign in (0, 1)]


@pytest.fixture(params=["openssl", "libsodium"])
def provider(request):
    return open_provider(request.param)


def test_ring_is_taken_as_openssl_and_said_so():
    assert resolve_provider("ring") == "openssl"
    assert open_provider("ring").name == "openssl"


@pytest.mark.parametrize("name", ["openssl", "libsodium"])
def test_a_provider_bears_the_name_that_chose_it(name):
    assert resolve_provider(name) == open_provider(name).name == name


@pytest.mark.parametrize(
    ("name", "hint"), [("libsodum", "did you mean `libsodium`?"), ("", "use `openssl` or `libsodium`")]
)
def test_an_unknown_provider_is_refused_with_a_hint(name, hint):
    with pytest.raises(ConfigError) as caught:
        open_provider(name)
    assert caught.value.hint == hint


@pytest.mark.parametrize("case", vectors("ed25519"))
def test_ed25519_as_published(provider, case):
    signer = provider.signer(raw(case["seed"]))
    assert signer.public.hex() == case["public"]
    assert signer.sign(raw(case["message"])).hex() == case["signature"]
    assert provider.verifier(raw(case["public"]))(raw(case["signature"]), raw(case["message"]))


@pytest.mark.parametrize("case", vectors("x25519"))
def test_x25519_as_published(provider, case):
    agreement = provider.agreement(raw(case["private"]))
    assert agreement.exchange(raw(case["public"])).hex() == case["shared"]
    assert agreement.public.hex() == case.get("own", agreement.public.hex())
    assert case["private"] not in repr(agreement)


@pytest.mark.parametrize("public", [point for y in SMALL_ORDER_U for point in points(y)] + [b"", bytes(31), bytes(33)])
def test_no_secret_is_shared_with_a_key_of_small_order_or_none(provider, public):
    assert provider.agreement(bytes(range(32))).exchange(public) is None


@pytest.mark.parametrize("case", vectors("hkdf_sha256"))
def test_hkdf_as_published(provider, case):
    output = raw(case["output"])
    derived = provider.hkdf_sha256(
        raw(case["secret"]), salt=raw(case["salt"]), info=raw(case["info"]), length=len(output)
    )
    assert derived == output


@pytest.mark.parametrize("case", vectors("aes256gcm"))
def test_aes_256_gcm_as_published(provider, case):
    aead = provider.aead(raw(case["key"]))
    nonce, plaintext, associated = raw(case["nonce"]), raw(case["plaintext"]), raw(case["associated"])
    sealed = raw(case["ciphertext"] + case["tag"])
    assert aead.seal(nonce, plaintext, associated) == sealed
    assert aead.open(nonce, sealed, associated) == plaintext


@pytest.mark.parametrize("case", vectors("sha256"))
def test_sha_256_as_published(provider, case):
    assert provider.sha256(raw(case["message"])).hex() == case["digest"]


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, MAX_HKDF_BYTES])
def test_providers_derive_the_same_at_every_length(length):
    derived = {
        open_provider(name).hkdf_sha256(b"secret", salt=b"salt", info=b"info", length=length)
        for name in ("openssl", "libsodium")
    }
    assert len(derived) == 1
    assert len(derived.pop()) == length


@pytest.mark.parametrize("length", [0, MAX_HKDF_BYTES + 1])
def test_a_length_that_hkdf_cannot_give_is_refused(provider, length):
    with pytest.raises(ValueError):
        provider.hkdf_sha256(b"secret", salt=b"", info=b"", length=length)


def test_what_was_altered_is_not_opened(provider):
    aead = provider.aead(bytes(32))
    nonce, sealed = bytes(12), aead.seal(bytes(12), b"plaintext", b"associated")
    assert aead.open(nonce, sealed, b"associated") == b"plaintext"
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1
        assert aead.open(nonce, bytes(altered), b"associated") is None
    for shorter in range(len(sealed)):
        assert aead.open(nonce, sealed[:shorter], b"associated") is None
    assert aead.open(nonce, sealed + b"\0", b"associated") is None
    assert aead.open(nonce, sealed, b"Associated") is None
    assert aead.open(nonce, sealed, b"") is None
    assert aead.open(bytes(11) + b"\1", sealed, b"associated") is None
    assert provider.aead(b"\1" * 32).open(nonce, sealed, b"associated") is None


def test_libsodium_leaves_aes_to_openssl_where_the_processor_has_none(monkeypatch):
    assert isinstance(open_provider("libsodium").aead(bytes(32)), LibsodiumAead if has_hardware_aes() else OpensslAead)

    def unavailable(*arguments):
        raise libsodium.UnavailableError

    monkeypatch.setattr(libsodium.bindings, "crypto_aead_aes256gcm_encrypt", unavailable)
    assert isinstance(open_provider("libsodium").aead(bytes(32)), OpensslAead)


# --- what RFC 8032 leaves open, and where the libraries differ by themselves --------------------------------------


@pytest.mark.parametrize("public", [point for y in SMALL_ORDER for point in points(y)], ids=bytes.hex)
def test_a_key_of_small_order_is_refused(provider, public):
    with pytest.raises(InputError, match="small order"):
        provider.verifier(public)


@pytest.mark.parametrize("y", range(P + 2, 2**255, 5))
def test_a_key_that_is_not_reduced_is_refused(provider, y):
    for public in points(y):
        with pytest.raises(InputError, match="not canonically encoded"):
            provider.verifier(public)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(provider, length):
    with pytest.raises(InputError, match=f"32 bytes long, not {length}"):
        provider.verifier(b"\x09" * length)


def test_a_key_that_is_no_point_verifies_nothing(provider):
    no_point = (2).to_bytes(32, "little")
    assert not provider.verifier(no_point)((9).to_bytes(32, "little") + bytes(32), b"message")


def test_a_signature_with_s_beyond_the_order_is_refused(provider):
    signer = provider.signer(bytes(32))
    signature = signer.sign(b"message")
    verify = provider.verifier(signer.public)
    s = int.from_bytes(signature[32:], "little")
    assert verify(signature, b"message")
    for multiple in range(1, (2**256 - s) // ORDER + 1):
        forged = signature[:32] + (s + multiple * ORDER).to_bytes(32, "little")
        assert not verify(forged, b"message")


def test_a_signature_whose_nonce_point_has_small_order_is_refused(provider):
    """With R the neutral element and S = h * a the equation holds; libsodium refuses it by itself, OpenSSL does not."""
    signer = provider.signer(bytes(32))
    digest = hashlib.sha512
    a = int.from_bytes(digest(bytes(32)).digest()[:32], "little") & ~7 & ((1 << 254) - 1) | 1 << 254
    neutral = (1).to_bytes(32, "little")
    h = int.from_bytes(digest(neutral + signer.public + b"message").digest(), "little")
    signature = neutral + (h * a % ORDER).to_bytes(32, "little")
    assert not provider.verifier(signer.public)(signature, b"message")


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 128])
def test_a_signature_of_another_length_is_refused(provider, length):
    signer = provider.signer(bytes(32))
    signature = (signer.sign(b"message") * 2)[:length]
    assert not provider.verifier(signer.public)(signature, b"message")


def test_no_bit_of_a_signature_can_be_flipped(provider):
    signer = provider.signer(bytes(32))
    signature = signer.sign(b"message")
    verify = provider.verifier(signer.public)
    for position, bit in product(range(64), range(8)):
        altered = bytearray(signature)
        altered[position] ^= 1 << bit
        assert not verify(bytes(altered), b"message")


def test_a_signer_does_not_show_its_key():
    signer = open_provider("libsodium").signer(b"\x5a" * 32)
    assert "5a5a" not in repr(signer)
    assert "ZZZZ" not in repr(signer)
