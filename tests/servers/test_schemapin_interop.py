"""PyPI's `schemapin` 1.3.0 beside ours: what it signs we take, what we sign it takes, and what is changed nobody takes.

`make servers` installs it in an environment of its own. Where it takes what we refuse, a test says so.
"""

import json
import random
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from symbi.adapters.schemapin.skill_folder import read_skill_folder
from symbi.errors import InputError, SignatureInvalid
from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin import (
    canonical_definition,
    canonical_json,
    key_id,
    load_private_key,
    load_public_key,
    public_pem,
    sign,
    verify,
)
from symbi.tools.schemapin.bundle import parse_bundle, sign_bundle
from symbi.tools.schemapin.documents import parse_discovery, parse_revocation, why_revoked
from symbi.tools.schemapin.skills import SkillTerms, parse_skill, sign_skill, verify_skill

pytestmark = pytest.mark.servers
KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
DOMAIN = "tools.example.com"
NOW_NS = 1_800_000_000 * 10**9
ROUNDS = 200
DISCOVERY = {"schema_version": "1.2", "developer_name": "Acme", "public_key_pem": public_pem(KEY.public_key())}
OURS = DISCOVERY | {"revoked_keys": []}


class Oracle:
    """Asks the package, in one process for all tests."""

    def __init__(self, process):
        self.process = process

    def __getattr__(self, name):
        def ask(**values):
            self.process.stdin.write(json.dumps({"do": name, "with": values}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            assert line, "the oracle has ended"
            return json.loads(line)

        return ask


@pytest.fixture(scope="module")
def oracle(root):
    python = root / ".tools" / "schemapin" / "bin" / "python"
    if not python.exists():
        pytest.fail("PyPI's `schemapin` is not installed; run `make servers`")
    script = root / "tests" / "data" / "schemapin" / "oracle.py"
    with subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Oracle(process)
        process.stdin.close()
        process.wait(timeout=10)


def draw(rng, depth=0):
    """Some JSON of the kinds that schemas hold, without what implementations write differently."""
    kind = rng.randrange(7 if depth < 4 else 4)
    if kind < 2:
        return "".join(rng.choice('ab "\\/\n\té漢\u2028😀') for _ in range(rng.randrange(12)))
    if kind == 2:
        return rng.choice([None, True, False])
    if kind == 3:
        return rng.randrange(-(2**53) + 1, 2**53)
    if kind == 4:
        return [draw(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(["type", "Zeta", "é", "", "a b", "$ref"]): draw(rng, depth + 1) for _ in range(rng.randrange(5))}


def drawn(seed):
    rng = random.Random(seed)
    for number in range(ROUNDS):
        schema = {f"p{number}": draw(rng) for _ in range(3)} | {"type": "object"}
        yield ToolDefinition("s", f"tool_{number}", draw_text(rng), schema)


def draw_text(rng):
    return "".join(rng.choice("abc é漢😀\n") for _ in range(rng.randrange(40)))


def document_of(definition):
    return json.loads(canonical_definition(definition))


def test_both_write_the_same_canonical_form(oracle):
    for definition in drawn("canonical"):
        document = document_of(definition)
        assert oracle.canonical(schema=document).encode() == canonical_json(document)


def test_what_it_signs_we_take_and_a_changed_one_we_refuse(oracle):
    made = oracle.keygen()
    key = load_public_key(made["public"])
    assert key_id(key) == made["fingerprint"]
    for definition in drawn("theirs"):
        signature = oracle.sign(schema=document_of(definition), private=made["private"])
        assert verify(definition, signature, key) == "digest"
        for changed in (
            ToolDefinition("s", definition.name, definition.description + " ", definition.input_schema),
            ToolDefinition("s", definition.name + "x", definition.description, definition.input_schema),
            ToolDefinition("s", definition.name, definition.description, {**definition.input_schema, "x": 1}),
        ):
            with pytest.raises(SignatureInvalid):
                verify(changed, signature, key)


def test_what_we_sign_it_takes_and_a_changed_one_it_refuses(oracle):
    for definition in drawn("ours"):
        document, signature = document_of(definition), sign(definition, KEY)
        assert oracle.verify(schema=document, signature=signature, discovery=OURS) == {"valid": True, "error": None}
        changed = oracle.verify(schema=document | {"name": "x"}, signature=signature, discovery=OURS)
        assert changed == {"valid": False, "error": "signature_invalid"}


def test_it_reads_keys_that_we_made_and_we_read_its(oracle):
    made = oracle.keygen()
    definition = ToolDefinition("s", "t", "", {})
    signature = sign(definition, load_private_key(made["private"]))
    discovery = OURS | {"public_key_pem": made["public"]}
    assert oracle.verify(schema=document_of(definition), signature=signature, discovery=discovery)["valid"]


def test_the_form_that_it_does_not_sign_we_take_and_it_does_not(oracle):
    definition = ToolDefinition("s", "t", "", {})
    once = sign(definition, KEY, "bytes")
    assert verify(definition, once, KEY.public_key()) == "bytes"
    assert not oracle.verify(schema=document_of(definition), signature=once, discovery=OURS)["valid"]


def test_both_refuse_keys_that_were_revoked_in_either_way(oracle):
    definition = ToolDefinition("s", "t", "", {})
    signature, name = sign(definition, KEY), key_id(KEY.public_key())
    entry = {"fingerprint": name, "revoked_at": "2026-01-01T00:00:00Z", "reason": "key_compromise"}
    listed = {
        "schemapin_version": "1.2",
        "domain": DOMAIN,
        "updated_at": "2026-01-01T00:00:00Z",
        "revoked_keys": [entry],
    }
    for discovery, revocation in ((OURS | {"revoked_keys": [name]}, None), (OURS, listed)):
        theirs = oracle.verify(
            schema=document_of(definition), signature=signature, discovery=discovery, revocation=revocation
        )
        assert theirs == {"valid": False, "error": "key_revoked"}
        found = parse_discovery(DOMAIN, discovery)
        lists = () if revocation is None else (parse_revocation(DOMAIN, revocation),)
        assert why_revoked(found.key, found, lists)


@pytest.fixture
def skill(tmp_path):
    folder = tmp_path / "skill"
    (folder / "lib" / "inner").mkdir(parents=True)
    (folder / "SKILL.md").write_text("---\nname: sender\n---\nSends.\n")
    (folder / "lib" / "a.py").write_bytes(bytes(range(256)))
    (folder / "lib" / "inner" / "größe.txt").write_text("")
    (folder / "lib.txt").write_text("sorts between")
    return folder


def test_a_folder_that_it_signed_we_take_and_a_changed_one_we_refuse(oracle, skill):
    made = oracle.keygen()
    oracle.sign_skill(folder=str(skill), private=made["private"], domain=DOMAIN)
    key = load_public_key(made["public"])
    files, raw = read_skill_folder(skill)
    found = verify_skill(files, parse_skill(raw), key, NOW_NS)
    assert (found.name, found.domain, found.form, found.covered) == ("sender", DOMAIN, "digest", False)
    (skill / "new.md").write_text("x")
    with pytest.raises(SignatureInvalid):
        verify_skill(read_skill_folder(skill)[0], parse_skill(raw), key, NOW_NS)


def test_a_folder_that_we_signed_it_takes_and_a_changed_one_it_refuses(oracle, skill):
    files, _ = read_skill_folder(skill)
    terms = SkillTerms("sender", DOMAIN, "2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "1.0.0")
    (skill / ".schemapin.sig").write_text(json.dumps(sign_skill(files, terms, KEY)))
    assert oracle.verify_skill(folder=str(skill), discovery=OURS)
    (skill / "lib" / "a.py").write_bytes(b"x")
    assert not oracle.verify_skill(folder=str(skill), discovery=OURS)


def test_a_link_in_a_folder_it_passes_over_and_we_refuse(oracle, skill):
    files, _ = read_skill_folder(skill)
    terms = SkillTerms("sender", DOMAIN, "2026-01-01T00:00:00Z")
    (skill / ".schemapin.sig").write_text(json.dumps(sign_skill(files, terms, KEY)))
    (skill / "evil.md").symlink_to("/etc/hostname")
    assert oracle.verify_skill(folder=str(skill), discovery=OURS)
    with pytest.raises(InputError):
        read_skill_folder(skill)


def test_it_reads_bundles_that_we_signed(oracle):
    revoked = {"schemapin_version": "1.2", "domain": DOMAIN, "updated_at": "2026-01-01T00:00:00Z", "revoked_keys": []}
    content = {"documents": [{"domain": DOMAIN} | OURS], "revocations": [revoked]}
    bundle = sign_bundle(content, KEY, "acme", "2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z")
    assert oracle.resolve(bundle=bundle, domain=DOMAIN) == {"discovery": OURS, "revocation": revoked}
    ours = parse_bundle("it", json.dumps(bundle).encode())
    assert parse_discovery(DOMAIN, ours.document(DOMAIN)).developer == "Acme"


@pytest.mark.parametrize("part", [{"minimum": 0.5}, {"maximum": 2**53}, {"properties": {"10": {}, "9": {}}}], ids=str)
def test_content_that_it_signs_and_others_would_write_differently_we_refuse(oracle, part):
    made = oracle.keygen()
    document = {"name": "t", "description": "", "inputSchema": part}
    signature = oracle.sign(schema=document, private=made["private"])
    with pytest.raises(SignatureInvalid, match="cannot be checked"):
        verify(ToolDefinition("s", "t", "", part), signature, load_public_key(made["public"]))
