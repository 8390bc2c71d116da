"""Whatever stands in a document of SchemaPin, it is read or refused with a reason, and never believed in part."""

import json
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

from symbi.errors import InputError, SignatureInvalid, SymbiError
from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin import entry_of, key_id, public_pem, sign
from symbi.tools.schemapin.bundle import parse_bundle, sign_bundle, verify_bundle
from symbi.tools.schemapin.dns import DnsCheck, check_txt
from symbi.tools.schemapin.documents import parse_discovery, parse_domain, parse_revocation, parse_time, why_revoked
from symbi.tools.schemapin.listing import hashes_of, parse_listing
from symbi.tools.schemapin.skills import SkillTerms, file_hash, parse_skill, sign_skill, verify_skill

KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
PEM = public_pem(KEY.public_key())
NAME = key_id(KEY.public_key())
DOMAIN = "tools.example.com"
NOW_NS = 1_800_000_000 * 10**9
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(NAME) | st.just(PEM)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FILES = {"SKILL.md": file_hash("SKILL.md", b"x")}
BASES = {
    "discovery": {
        "schema_version": "1.2",
        "public_key_pem": PEM,
        "revoked_keys": [NAME],
        "revocation_endpoint": f"https://{DOMAIN}/r",
    },
    "revocation": {
        "schemapin_version": "1.2",
        "domain": DOMAIN,
        "revoked_keys": [{"fingerprint": NAME, "reason": "superseded"}],
    },
    "bundle": sign_bundle({}, KEY, "a", "2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z"),
    "skill": sign_skill(FILES, SkillTerms("s", DOMAIN, "2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "1.0.0"), KEY),
    "listing": {"tools": [{"name": "a", "inputSchema": {}}]},
}


def altered(base):
    """A document of a kind with some of its members taken away or set to anything."""
    names = st.sampled_from(sorted(BASES[base]))
    return st.builds(
        lambda gone, put: {k: v for k, v in BASES[base].items() if k not in gone} | put,
        st.sets(names, max_size=2),
        st.dictionaries(
            names | st.sampled_from(["domain", "expires_at", "canonicalization", "_meta"]), JSON, max_size=2
        ),
    )


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 10_000)
@example(b'{"a": 1, "a": 2}')
def test_bytes_are_read_or_refused(raw):
    for read in (
        lambda: parse_discovery(DOMAIN, raw),
        lambda: parse_revocation(DOMAIN, raw),
        lambda: parse_bundle("it", raw),
        lambda: parse_skill(raw),
        lambda: parse_listing(raw.decode("utf-8", "replace")),
        lambda: hashes_of(raw.decode("utf-8", "replace")),
    ):
        with suppress(InputError):
            read()


@given(altered("discovery"))
def test_a_discovery_document_that_is_read_revokes_what_it_names(document):
    try:
        found = parse_discovery(DOMAIN, json.dumps(document).encode())
    except InputError:
        return
    named = NAME in document.get("revoked_keys", [])
    assert bool(why_revoked(KEY.public_key(), found, ())) is named
    assert found.revocation_endpoint in {None, f"https://{DOMAIN}/r"}


@given(altered("revocation"))
def test_a_revocation_document_that_is_read_revokes_what_it_names(document):
    try:
        found = parse_revocation(DOMAIN, json.dumps(document).encode())
    except InputError:
        return
    named = any(entry["fingerprint"] == NAME for entry in document["revoked_keys"])
    assert bool(why_revoked(KEY.public_key(), None, (found,))) is named
    assert document["domain"].lower().removesuffix(".") == DOMAIN


@given(altered("bundle"))
def test_an_altered_bundle_is_refused(document):
    try:
        verify_bundle(parse_bundle("it", json.dumps(document).encode()), [KEY.public_key()], NOW_NS)
    except (InputError, SignatureInvalid):
        return
    assert document == BASES["bundle"]


@given(altered("skill"))
def test_an_altered_signature_of_a_folder_is_refused_or_says_what_it_does_not_cover(document):
    try:
        found = verify_skill(FILES, parse_skill(json.dumps(document).encode()), KEY.public_key(), NOW_NS)
    except (InputError, SignatureInvalid):
        return
    assert document == BASES["skill"] or not found.covered
    assert document["signature"] == BASES["skill"]["signature"]


@given(
    JSON
    | st.dictionaries(
        st.sampled_from(["signature", "schema_version", "previous_hash", "expires_at", "canonicalization"]), JSON
    )
)
def test_what_a_definition_carries_is_read_or_refused(entry):
    try:
        found = entry_of(ToolDefinition("s", "t", "", {}, meta={"schemapin": entry}))
    except SymbiError:
        return
    assert found.signature == entry["signature"]


@given(st.lists(st.text(alphabet=st.sampled_from("vfp=;schemapin12 :" + NAME), max_size=120), max_size=3))
def test_a_txt_record_agrees_only_if_it_says_this_key(records):
    try:
        agreed = check_txt(DOMAIN, records, KEY.public_key(), DnsCheck.PRESENT)
    except SignatureInvalid:
        return
    assert not agreed or any(NAME in one for one in records)


@given(st.text(max_size=40))
@example("2027-02-30T00:00:00Z")
@example("0001-01-01T00:00:00+23:59")
def test_texts_are_times_and_domains_or_not(text):
    parse_time(text)
    try:
        domain = parse_domain(text)
    except InputError:
        return
    assert parse_domain(domain) == domain


@given(st.text(max_size=30), st.binary(max_size=20))
def test_a_path_of_a_folder_stays_in_it(path, content):
    try:
        file_hash(path, content)
    except InputError:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")


def test_the_documents_that_are_altered_are_good():
    assert parse_discovery(DOMAIN, BASES["discovery"]).revoked
    assert parse_revocation(DOMAIN, BASES["revocation"]).revoked
    assert verify_bundle(parse_bundle("it", json.dumps(BASES["bundle"]).encode()), [KEY.public_key()], NOW_NS)
    assert verify_skill(FILES, BASES["skill"], KEY.public_key(), NOW_NS).covered
    assert sign(parse_listing(json.dumps(BASES["listing"]))[0], KEY)
