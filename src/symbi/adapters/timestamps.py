"""A time-stamping authority over HTTP (RFC 3161), and the check of what it answers."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
import httpx2
from cryptography.x509 import Certificate, load_pem_x509_certificates
from rfc3161_client import (
    HashAlgorithm,
    TimeStampRequest,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from symbi.audit.anchor import Stamped
from symbi.clock import rfc3339
from symbi.errors import ConfigError, SignatureInvalid, Unavailable

MAX_ANSWER_BYTES: Final = 65_536  # a token with a few certificates has some 5,000
MAX_CERTIFICATES_BYTES: Final = 1_048_576
SHA256_OID: Final = "2.16.840.1.101.3.4.2.1"

_PRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
_OK: Final = 200


class TimeStampAuthority:
    """Asks an authority for tokens, and takes none that does not hold.

    Args:
        url: Where it takes requests.
        certificates: PEM file of the roots that are trusted, and of what may stand between them and the signer.
        timeout_s: How long it may take.

    Raises:
        ConfigError: The file cannot be read, or has no root in it.
    """

    def __init__(self, url: str, certificates: Path, *, timeout_s: float) -> None:
        self._url = url
        self._certificates = read_certificates(certificates)
        self._timeout_s = timeout_s

    async def __call__(self, data: bytes) -> Stamped:
        """Have the SHA-256 of some bytes stamped.

        Raises:
            Unavailable: The authority cannot be reached, took too long, or refuses.
            SignatureInvalid: It answers with a token that does not hold, or is for something else.
        """
        request = TimestampRequestBuilder(data, HashAlgorithm.SHA256, nonce=True, cert_req=True).build()
        answer = await self._post(request.as_bytes())
        response = _decoded(answer)
        time = _checked(response, data, self._certificates, request)
        return Stamped(answer, time, str(response.tst_info.serial_number), self._url)

    async def _post(self, body: bytes) -> bytes:
        headers = {"content-type": "application/timestamp-query", "accept": "application/timestamp-reply"}
        data = b""
        try:
            with anyio.fail_after(self._timeout_s):
                async with (
                    httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=self._timeout_s) as client,
                    client.stream("POST", self._url, content=body, headers=headers) as answer,
                ):
                    if answer.status_code != _OK:
                        raise _failed(f"answered {answer.status_code}")
                    async for part in answer.aiter_bytes():
                        data += part
                        if len(data) > MAX_ANSWER_BYTES:
                            raise _failed(f"answers more than {MAX_ANSWER_BYTES} bytes")
        except (TimeoutError, httpx2.TimeoutException):
            raise _failed(f"took longer than {self._timeout_s:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise _failed(f"cannot be reached: {type(error).__name__}") from error
        return data


def read_certificates(path: Path) -> tuple[Certificate, ...]:
    """The certificates of a PEM file.

    Raises:
        ConfigError: It cannot be read, or no root, which signs itself, is in it.
    """
    try:
        with path.open("rb") as file:
            found = tuple(load_pem_x509_certificates(file.read(MAX_CERTIFICATES_BYTES)))
    except (OSError, ValueError) as error:
        msg = f"`{path}` holds no certificates: {error}"
        raise ConfigError(msg, code="config.tsa_certificate") from error
    if not any(_is_root(one) for one in found):
        msg = f"`{path}` holds no root certificate, which signs itself"
        raise ConfigError(msg, code="config.tsa_certificate", hint="add the root of the authority's chain")
    return found


def verify_token(token: bytes, data: bytes, certificates: Sequence[Certificate]) -> str:
    """When an authority saw some bytes, by its clock: RFC 3339 in UTC with nine decimals.

    Raises:
        SignatureInvalid: The token does not hold, is for other bytes, or not by a signer whose chain ends at a root.
    """
    return _checked(_decoded(token), data, certificates, None)


def _decoded(token: bytes) -> TimeStampResponse:
    try:
        return decode_timestamp_response(token)
    except ValueError as error:
        msg = "the time-stamping authority's answer is not of RFC 3161"
        raise SignatureInvalid(msg) from error


def _checked(
    response: TimeStampResponse, data: bytes, certificates: Sequence[Certificate], request: TimeStampRequest | None
) -> str:
    if response.status != 0:
        said = _PRINTABLE.sub("?", "; ".join(response.status_string))[:200]
        raise _failed(f"refuses: status {response.status} {said}".rstrip())
    roots = [one for one in certificates if _is_root(one)]
    between = [one for one in certificates if not _is_root(one)]
    nonce = None if request is None else request.nonce
    verifier = VerifierBuilder(roots=roots, intermediates=between, nonce=nonce).build()
    try:
        if response.tst_info.message_imprint.hash_algorithm.dotted_string != SHA256_OID:
            msg = "the token is over another hash than SHA-256"
            raise SignatureInvalid(msg)
        verifier.verify_message(response, data)
        at: datetime = response.tst_info.gen_time
    except (VerificationError, ValueError) as error:
        msg = f"the time stamp does not hold: {_PRINTABLE.sub('?', str(error))[:200]}"
        raise SignatureInvalid(msg) from error
    whole = at if at.tzinfo else at.replace(tzinfo=UTC)
    return rfc3339(int(whole.timestamp()) * 1_000_000_000 + whole.microsecond * 1000)


def _is_root(certificate: Certificate) -> bool:
    return certificate.issuer == certificate.subject


def _failed(what: str) -> Unavailable:
    return Unavailable(f"the time-stamping authority {what}", code="unavailable.tsa")
