"""What both providers ask of Ed25519 keys and signatures before they look at the mathematics.

RFC 8032 leaves room where implementations differ: libsodium refuses keys and nonce points of small order, OpenSSL
takes them. A key of small order has signatures that fit almost any message, so both refuse them here, by their
encodings, and give the same answer on every input: S below the group order (RFC 8032, section 5.1.7), the key
canonically encoded (section 5.1.3), neither the key nor R of small order. After that both check the equation without
the cofactor and compare the encoded R, so that R too must be canonical.
"""

from typing import Final

from symbi.errors import InputError

PUBLIC_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_SIGN_BIT: Final = 0x80

# The y coordinates of the eight points whose order divides 8, and their encodings that are not reduced modulo p.
_SMALL_ORDER: Final = frozenset(
    y.to_bytes(PUBLIC_BYTES, "little")
    for y in (
        0,  # order 4
        1,  # the neutral element
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,  # order 8
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,  # order 8
        _P - 1,  # order 2
        _P,  # 0 again
        _P + 1,  # 1 again
    )
)


def require_public_key(public: bytes) -> None:
    """Return if the bytes may be a public key: 32 of them, reduced, not of small order.

    Raises:
        InputError: They may not.
    """
    if len(public) != PUBLIC_BYTES:
        what = f"it is {PUBLIC_BYTES} bytes long, not {len(public)}"
    elif _has_small_order(public):
        what = "it has small order, so that signatures by it mean nothing"
    elif int.from_bytes(_without_sign(public), "little") >= _P:
        what = "it is not canonically encoded"
    else:
        return
    msg = f"not an Ed25519 public key: {what}"
    raise InputError(msg, code="crypto.public_key")


def acceptable_signature(signature: bytes) -> bool:
    """Whether the bytes may be a signature: 64 of them, S reduced, R not of small order."""
    return (
        len(signature) == SIGNATURE_BYTES
        and int.from_bytes(signature[PUBLIC_BYTES:], "little") < _ORDER
        and not _has_small_order(signature[:PUBLIC_BYTES])
    )


def _has_small_order(point: bytes) -> bool:
    return _without_sign(point) in _SMALL_ORDER


def _without_sign(point: bytes) -> bytes:
    return point[:-1] + bytes((point[-1] & ~_SIGN_BIT & 0xFF,))
