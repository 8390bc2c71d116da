"""Certificates of erasure: signed in a domain of their own; any change, another key and another form are refused."""

import json

import pytest

from symbi.compliance.certificate import CERTIFICATE_DOMAIN, certificate_digest, sign_certificate, verify_certificate
from symbi.crypto.canonical import canonical_json
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.errors import InputError, SignatureInvalid

PROVIDER = open_provider("openssl")
KEY = SigningKey(b"k" * 32, PROVIDER)
OTHER = SigningKey(b"o" * 32, PROVIDER)
TRUSTED = {KEY.key_id: KEY.verifying_key()}
FACTS = {
    "pseudonym": "ab" * 16, "erased_at": "2026-01-02T03:04:05.000000006Z", "by": {"uid": 1000, "person": ""}, "reason": "",
    "keys": [{"key_id": "0" * 16, "destroyed_at": "2026-01-02T03:04:05.000000000Z", "of_many": False}],
    "stores": {"trail": {"what": "lost its key", "places": {"events.record.private": 3}}}, "open": [],
    "trail": {"events": 12, "head": "head"}, "search": {"residue": 0, "clean": True},
}  # fmt: skip


def certificate():
    return json.loads(json.dumps(sign_certificate(FACTS, KEY)))


def test_a_certificate_verifies_as_it_was_read():
    verify_certificate(certificate(), TRUSTED)
    assert len(certificate_digest(certificate())) == 64


@pytest.mark.parametrize("field", sorted(set(certificate()) - {"signature", "key_id", "format"}))
def test_no_field_can_be_changed_and_none_left_out(field):
    changed = certificate()
    changed[field] = "2026-01-02T03:04:06.000000006Z" if field == "erased_at" else "other"
    with pytest.raises(SignatureInvalid):
        verify_certificate(changed, TRUSTED)
    assert certificate_digest(changed) != certificate_digest(certificate())
    del changed[field]
    with pytest.raises(InputError, match=field):
        verify_certificate(changed, TRUSTED)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("signature", "x"),
        ("signature", None),
        ("key_id", 7),
        ("erased_at", "today"),
        ("format", "other/1"),
        ("more", 1),
    ],
)
def test_what_has_not_the_form_is_no_certificate(field, value):
    with pytest.raises(InputError, match="no certificate of erasure"):
        verify_certificate({**certificate(), field: value}, TRUSTED)


def test_another_key_is_not_trusted_because_it_signs():
    with pytest.raises(SignatureInvalid, match="not trusted here"):
        verify_certificate(sign_certificate(FACTS, OTHER), TRUSTED)
    forged = {**sign_certificate(FACTS, OTHER), "key_id": KEY.key_id}
    with pytest.raises(SignatureInvalid, match="not by key"):
        verify_certificate(forged, TRUSTED)


def test_a_signature_of_another_purpose_means_nothing_here():
    fields = {name: value for name, value in certificate().items() if name != "signature"}
    for domain in ("audit.event", "audit.head", "approval.vote"):
        assert domain != CERTIFICATE_DOMAIN
        signature = KEY.sign(domain, canonical_json(fields)).hex()
        with pytest.raises(SignatureInvalid):
            verify_certificate({**fields, "signature": signature}, TRUSTED)
