"""Documents of SchemaPin, read and judged: bundles, DNS records, versions, listings, skill folders."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from symbi.errors import InputError, SignatureInvalid
from symbi.tools.schemapin import SignatureEntry, entry_of, key_id, load_public_key, public_pem, verify
from symbi.tools.schemapin.bundle import parse_bundle, sign_bundle, verify_bundle
from symbi.tools.schemapin.dns import txt_name
from symbi.tools.schemapin.documents import (
    parse_discovery,
    parse_domain,
    parse_revocation,
    parse_time,
    why_revoked,
)
from symbi.tools.schemapin.lineage import parse_provenance, provenance, why_ended, why_older
from symbi.tools.schemapin.listing import SigningTerms, hashes_of, parse_listing, signed_entries, with_entries
from symbi.tools.schemapin.skills import SkillTerms, check_descent, file_hash, parse_skill, sign_skill, verify_skill

KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
OTHER = ec.derive_private_key(0x5EED + 1, ec.SECP256R1())
DOMAIN = "tools.example.com"
SECOND_NS = 10**9
NOW_NS = 1_800_000_000 * SECOND_NS  # January 2027


def discovery(**said):
    return {"schema_version": "1.2", "public_key_pem": public_pem(KEY.public_key())} | said


def signed_bundle(**options):
    content = {"documents": [discovery(domain=DOMAIN)], "revocations": []}
    return sign_bundle(content, KEY, "acme", "2026-01-01T00:00:00Z", **options)


def read(content):
    return parse_bundle("the bundle", json.dumps(content).encode())


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("Tools.Example.COM", DOMAIN),
        (DOMAIN + ".", DOMAIN),
        (DOMAIN + ":443", DOMAIN),
        (DOMAIN + ":8443", DOMAIN + ":8443"),
    ],
)
def test_a_domain_has_one_spelling(text, domain):
    assert parse_domain(text) == domain
    assert txt_name(domain) == f"_schemapin.{DOMAIN}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "127.0.0.1",
        "93.184.216.34",
        "https://a.example",
        "a.example/x",
        "a b.example",
        "0x7f.1",
        "a..b",
        "é.example",
    ],
)
def test_what_is_no_domain_is_refused(text):
    with pytest.raises(InputError, match="is no domain"):
        parse_domain(text)


def test_times_are_read_as_rfc_3339_and_nothing_else():
    assert parse_time("2027-01-15T08:00:00Z") == NOW_NS
    assert parse_time("2027-01-15T10:00:00.500000+02:00") == NOW_NS + SECOND_NS // 2
    assert parse_time("2026-02-11T07:00:00.123456+00:00") is not None  # as Python's isoformat writes it
    for text in ("2027-01-15", "2027-01-15T08:00:00", "soon", "", "2027-13-01T00:00:00Z", "2027-01-15 08:00:00Z"):
        assert parse_time(text) is None


def test_keys_of_both_lists_are_revoked():
    found = parse_discovery(DOMAIN, discovery(revoked_keys=[key_id(OTHER.public_key())]))
    assert why_revoked(found.key, found, ()) == ""
    assert "discovery document" in why_revoked(OTHER.public_key(), found, ())
    entry = {"fingerprint": key_id(KEY.public_key()), "revoked_at": "x", "reason": "superseded"}
    listed = parse_revocation(DOMAIN, {"domain": DOMAIN, "revoked_keys": [entry]})
    assert "superseded" in why_revoked(found.key, found, (listed,))


@pytest.mark.parametrize("spelling", [DOMAIN, DOMAIN.upper(), DOMAIN + ".", DOMAIN + ":443"])
def test_a_revocation_in_a_bundle_counts_however_its_domain_is_written(spelling):
    entry = {"fingerprint": key_id(KEY.public_key()), "revoked_at": "x", "reason": "superseded"}
    listed = {"domain": spelling, "revoked_keys": [entry]}
    bundle = read(sign_bundle({"revocations": [listed]}, KEY, "acme", "2026-01-01T00:00:00Z"))
    found = parse_revocation(DOMAIN, bundle.revoking(DOMAIN))
    assert "superseded" in why_revoked(KEY.public_key(), None, (found,))


def test_a_bundle_that_nobody_could_use_is_not_signed():
    documents = [discovery(domain=DOMAIN), discovery(domain=DOMAIN + ":443")]
    with pytest.raises(InputError, match="two documents of one domain"):
        sign_bundle({"documents": documents}, KEY, "acme", "2026-01-01T00:00:00Z")
    with pytest.raises(InputError, match="no time"):
        signed_bundle(expires_at="soon")


# --- bundles -----------------------------------------------------------------------------------------------------------


def test_the_published_bundle_holds_and_only_under_its_authority(root):
    bundle = parse_bundle("it", (root / "tests/data/schemapin/published_bundle.json").read_bytes())
    assert bundle.kid == "schemapin-bundle-authority-2026"
    verify_bundle(bundle, [bundle.authority], NOW_NS)
    with pytest.raises(SignatureInvalid) as caught:
        verify_bundle(bundle, [KEY.public_key()], NOW_NS)
    assert caught.value.code == "verify.bundle_authority"
    with pytest.raises(SignatureInvalid) as caught:
        verify_bundle(bundle, [bundle.authority], parse_time("2099-01-01T00:00:00Z"))
    assert caught.value.code == "verify.bundle_expired"


def test_a_bundle_knows_the_domains_that_it_holds():
    bundle = read(signed_bundle())
    assert parse_discovery(DOMAIN, bundle.document(DOMAIN)).key.public_numbers() == KEY.public_key().public_numbers()
    assert bundle.document("other.example.com") is None
    assert bundle.revoking(DOMAIN) is None


def test_a_bundle_without_a_signature_is_none_that_verifies():
    for content in (
        {"schemapin_bundle_version": "1.2", "created_at": "x"},
        signed_bundle() | {"signature": ""},
        {name: value for name, value in signed_bundle().items() if name != "bundle_authority"},
    ):
        with pytest.raises(SignatureInvalid) as caught:
            verify_bundle(read(content), [KEY.public_key()], NOW_NS)
        assert caught.value.code == "verify.bundle_unsigned"


@pytest.mark.parametrize(
    "said",
    [
        {"schemapin_bundle_version": "2.0"},
        {"documents": [discovery(domain=DOMAIN), discovery(domain=DOMAIN.upper())]},
        {"documents": [discovery()]},
        {"documents": "none"},
        {"revocations": [7]},
        {"expires_at": "soon"},
        {"bundle_authority": {"kid": "a"}},
        {"bundle_authority": {"kid": "a", "public_key_pem": "x"}},
    ],
    ids=str,
)
def test_a_malformed_bundle_is_refused(said):
    with pytest.raises(InputError, match="cannot be used"):
        read(signed_bundle() | said)


# --- versions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "older"),
    [
        ("1.2.0", "1.2.1", False),
        ("1.9.0", "1.10.0", False),
        ("1.10.0", "1.9.9", True),
        ("2.0.0-rc.1", "2.0.0", False),
        ("2.0.0", "2.0.0-rc.1", True),
        ("2.0.0-rc.2", "2.0.0-rc.10", False),
        ("2.0.0-rc.1", "2.0.0-alpha", True),
        ("1.0.0+a", "1.0.0+b", True),
        ("1.0.0", "1.0.0", True),
        ("1.0.0", "", True),
        ("", "0.0.1", False),
        ("spring", "autumn", False),  # no order is known
        ("spring", "spring", True),
    ],
)
def test_a_version_that_is_not_newer_is_a_step_back(before, now, older):
    assert bool(why_older(SignatureEntry("x", version=now), provenance("digest", before, ""))) is older


NUMBERS = st.tuples(*[st.integers(0, 20)] * 3)


@given(NUMBERS, NUMBERS)
def test_versions_are_ordered_by_their_numbers(before, now):
    entry = SignatureEntry("x", version=".".join(map(str, now)))
    assert bool(why_older(entry, provenance("digest", ".".join(map(str, before)), ""))) is (now <= before)


@given(
    st.sampled_from(["", "digest", "bytes"]),
    st.from_regex(r"[0-9A-Za-z.+_-]{0,20}", fullmatch=True),
    st.text(max_size=20),
)
def test_what_a_pin_keeps_of_a_signature_comes_back(form, version, source):
    kept = provenance(form, version, source)
    assert parse_provenance(kept.text) == kept or not form


def test_an_end_that_has_come_or_cannot_be_read_is_said():
    assert why_ended(SignatureEntry("x"), NOW_NS) == ""
    assert why_ended(SignatureEntry("x", expires_at="2027-01-15T08:00:01Z"), NOW_NS) == ""
    assert "has ended" in why_ended(SignatureEntry("x", expires_at="2027-01-15T08:00:00Z"), NOW_NS)
    assert "cannot be read" in why_ended(SignatureEntry("x", expires_at="soon"), NOW_NS)


# --- listings ----------------------------------------------------------------------------------------------------------

LISTING = {
    "tools": [{"name": "a", "inputSchema": {}}, {"name": "b", "description": "B", "inputSchema": {}, "_meta": {"x": 1}}]
}


def test_a_listing_is_signed_as_a_whole_and_says_what_it_succeeds():
    text = json.dumps(LISTING)
    first = with_entries(text, signed_entries(parse_listing(text), KEY, SigningTerms("1.0.0")))
    assert first["tools"][1]["_meta"]["x"] == 1
    newer = json.loads(json.dumps(first))
    newer["tools"][0]["description"] = "A"
    terms = SigningTerms("1.1.0", previous=hashes_of(json.dumps(first)))
    second = with_entries(json.dumps(newer), signed_entries(parse_listing(json.dumps(newer)), KEY, terms))
    for one in parse_listing(json.dumps(second)):
        entry = entry_of(one)
        assert verify(one, entry.signature, KEY.public_key()) == "digest"
        assert entry.version == "1.1.0"
        assert entry.previous == first["tools"][["a", "b"].index(one.name)]["_meta"]["schemapin"]["schema_hash"]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "7", '[{"name": 1}]', '[{"name": "a"}]', '[{"name": "a", "inputSchema": {}, "title": 1}]', "[" * 100_000,
     '[{"name": "a", "inputSchema": {}}, {"name": "a", "inputSchema": {}}]'],
)  # fmt: skip
def test_a_malformed_listing_is_refused(text):
    with pytest.raises(InputError, match="listing cannot be used"):
        parse_listing(text)


# --- skill folders -----------------------------------------------------------------------------------------------------

FILES = {"SKILL.md": file_hash("SKILL.md", b"x")}
TERMS = SkillTerms("s", DOMAIN, "2026-01-01T00:00:00Z")


def test_a_folder_that_was_not_changed_verifies_and_one_with_a_further_file_does_not():
    document = parse_skill(json.dumps(sign_skill(FILES, TERMS, KEY)).encode())
    assert document["schemapin_version"] == "1.3"
    found = verify_skill(FILES, document, KEY.public_key(), NOW_NS)
    assert (found.name, found.domain, found.form, found.covered, found.warnings) == ("s", DOMAIN, "digest", True, ())
    with pytest.raises(SignatureInvalid, match=r"`more\.md` of skill `s` was added"):
        verify_skill(FILES | {"more.md": file_hash("more.md", b"")}, document, KEY.public_key(), NOW_NS)
    with pytest.raises(SignatureInvalid, match="does not hold"):
        verify_skill(FILES, document, OTHER.public_key(), NOW_NS)


def test_the_end_of_a_folders_signature_is_refused_or_told_of():
    terms = SkillTerms("s", DOMAIN, "2026-01-01T00:00:00Z", expires_at="2026-06-01T00:00:00Z")
    document = sign_skill(FILES, terms, KEY)
    with pytest.raises(SignatureInvalid) as caught:
        verify_skill(FILES, document, KEY.public_key(), NOW_NS)
    assert caught.value.code == "verify.expired"
    assert "has ended" in verify_skill(FILES, document, KEY.public_key(), NOW_NS, strict=False).warnings[0]


def test_a_folder_succeeds_what_is_known_or_is_refused():
    first = verify_skill(FILES, sign_skill(FILES, TERMS, KEY), KEY.public_key(), NOW_NS)
    files = {"SKILL.md": file_hash("SKILL.md", b"y")}
    terms = SkillTerms("s", DOMAIN, TERMS.signed_at, version="2.0.0", previous=first.skill_hash)
    second = verify_skill(files, sign_skill(files, terms, KEY), KEY.public_key(), NOW_NS)
    check_descent(second, first.skill_hash)
    check_descent(first, first.skill_hash)
    for one, known in ((first, second.skill_hash), (second, "sha256:" + "0" * 64)):
        with pytest.raises(SignatureInvalid) as caught:
            check_descent(one, known)
        assert caught.value.code == "verify.descent"


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "a//b",
        "a/./b",
        "",
        ".",
        ".schemapin.sig",
        "a/.schemapin.sig",
        "a\\b",
        "a\nb",
        "\U0001f600",
    ],
)
def test_a_path_that_leads_out_or_is_written_differently_elsewhere_is_refused(path):
    with pytest.raises(InputError, match="is no path in it"):
        file_hash(path, b"x")
    document = sign_skill(FILES, TERMS, KEY)
    with pytest.raises(InputError, match="is no path in it"):
        parse_skill(json.dumps(document | {"file_manifest": {path: "sha256:" + "0" * 64}}).encode())


def test_an_authority_may_be_given_as_published(root):
    content = json.loads((root / "tests/data/schemapin/published_bundle.json").read_text())
    assert key_id(load_public_key(content["bundle_authority"]["public_key_pem"])).startswith("sha256:")
