"""A thousand signatures and a thousand definitions, each changed somewhere: none is taken, in either form, of tool, bundle
or folder. The changes are drawn from a fixed seed."""

import base64
import json
import random
from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from symbi.errors import SymbiError
from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin import canonical_definition, load_public_key, sign, verify
from symbi.tools.schemapin.bundle import parse_bundle, sign_bundle, verify_bundle
from symbi.tools.schemapin.skills import SkillTerms, file_hash, parse_skill, sign_skill, verify_skill

ROUNDS = 1_000
NOW_NS = 1_800_000_000 * 10**9
KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
OTHER = ec.derive_private_key(0x5EED + 1, ec.SECP256R1())
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
DEFINITION = ToolDefinition(
    "mail",
    "send",
    "Sends a mail to one person, and says when it was sent.",
    {
        "type": "object",
        "properties": {"to": {"type": "string"}, "n": {"type": "integer", "minimum": 0}},
        "required": ["to"],
    },
    output_schema={"type": "object", "properties": {"at": {"type": "string"}}},
    title="Send",
    annotations={"destructiveHint": True},
)


def mutated_signature(rng, signature):
    """Another text: bits of the DER, its length, its numbers, its spelling."""
    raw = bytearray(base64.b64decode(signature))
    r, s = decode_dss_signature(bytes(raw))
    match rng.randrange(7):
        case 0:
            for _ in range(rng.randint(1, 4)):
                raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        case 1:
            raw = raw[: rng.randrange(len(raw))]
        case 2:
            raw += rng.randbytes(rng.randint(1, 8))
        case 3:
            raw = bytearray(encode_dss_signature(r ^ 1 << rng.randrange(255), s))
        case 4:
            raw = bytearray(encode_dss_signature(r, (s + rng.randrange(1, ORDER - 1)) % ORDER))
        case 5:
            raw = bytearray(rng.randbytes(len(raw)))
        case _:
            at = rng.randrange(len(signature))
            return signature[:at] + rng.choice("\n =-_AZaz09+/é") + signature[at + rng.randrange(2) :]
    return base64.b64encode(raw).decode()


def mutated(rng, value):
    """The value, changed at one place, somewhere inside."""
    if isinstance(value, dict):
        kind, names = rng.randrange(4), sorted(value)
        name = rng.choice(names) if names else "x"
        if kind == 0 or not names:
            return value | {f"x{rng.randrange(1000)}": rng.choice([None, True, 1, "x"])}
        if kind == 1:
            return {one: value[one] for one in names if one != name}
        if kind == 2:
            return {(one + "x" if one == name else one): value[one] for one in names}
        return value | {name: mutated(rng, value[name])}
    if isinstance(value, list):
        kind, at = rng.randrange(3), rng.randrange(len(value) or 1)
        if kind == 0 or not value:
            return [*value, "x"]
        return value[:at] + value[at + 1 :] if kind == 1 else [*value[:at], mutated(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + rng.choice([-1, 1, 1 << 20])
    at = rng.randrange(len(value) + 1)
    return value[:at] + rng.choice(["\u200b", "x", " ", "\u0435", "\n"]) + value[at + rng.randrange(2) :]


def definition_of(document):
    return ToolDefinition(
        "mail",
        document.get("name", ""),
        document.get("description", ""),
        document.get("inputSchema", {}),
        output_schema=document.get("outputSchema"),
        title=document.get("title"),
        annotations=document.get("annotations", {}),
    )


@pytest.mark.parametrize("form", ["digest", "bytes"])
def test_no_mutated_signature_is_taken(form):
    rng, signature = random.Random(f"signatures {form}"), sign(DEFINITION, KEY, form)
    tried = 0
    while tried < ROUNDS:
        changed = mutated_signature(rng, signature)
        if changed == signature:
            continue
        tried += 1
        with pytest.raises(SymbiError):
            verify(DEFINITION, changed, KEY.public_key())
    assert verify(DEFINITION, signature, KEY.public_key()) == form


@pytest.mark.parametrize("form", ["digest", "bytes"])
def test_no_mutated_schema_is_taken(form):
    rng, signature = random.Random(f"schemas {form}"), sign(DEFINITION, KEY, form)
    document = json.loads(canonical_definition(DEFINITION))
    tried = 0
    while tried < ROUNDS:
        changed = {name: value for name, value in mutated(rng, document).items() if name in document}
        definition = definition_of(changed)
        with suppress(SymbiError):  # what has no canonical form is another definition for sure
            if canonical_definition(definition) == canonical_definition(DEFINITION):
                continue
        tried += 1
        with pytest.raises(SymbiError):
            verify(definition, signature, KEY.public_key())
    assert verify(definition_of(document), signature, KEY.public_key()) == form


def test_no_mutated_bundle_is_taken(root):
    rng = random.Random("bundles")
    published = json.loads((root / "tests/data/schemapin/published_bundle.json").read_text())
    key = load_public_key(published["bundle_authority"]["public_key_pem"])
    assert verify_bundle(parse_bundle("it", json.dumps(published).encode()), [key], NOW_NS)
    ours = sign_bundle({"documents": [], "revocations": []}, KEY, "a", "2026-01-01T00:00:00Z")
    for bundle, authority in ((published, key), (ours, KEY.public_key())):
        tried = 0
        while tried < ROUNDS // 2:
            changed = mutated(rng, bundle)
            if rng.randrange(3) == 0:
                changed = bundle | {"signature": mutated_signature(rng, bundle["signature"])}
            if changed == bundle:
                continue
            tried += 1
            with pytest.raises(SymbiError):
                verify_bundle(parse_bundle("it", json.dumps(changed).encode()), [authority], NOW_NS)


def test_a_bundle_that_was_signed_anew_by_somebody_else_is_not_taken():
    bundle = sign_bundle({}, OTHER, "schemapin-bundle-authority-2026", "2026-01-01T00:00:00Z")
    with pytest.raises(SymbiError, match="no authority here"):
        verify_bundle(parse_bundle("it", json.dumps(bundle).encode()), [KEY.public_key()], NOW_NS)


FILES = {"SKILL.md": b"# Send\n", "lib/a.py": b"print(1)\n", "lib/b.py": b"", "notes/a b.txt": b"x" * 100}
HASHES = {path: file_hash(path, content) for path, content in FILES.items()}
SIGNED = sign_skill(HASHES, SkillTerms("send", "tools.example.com", "2026-01-01T00:00:00Z", version="1.0.0"), KEY)


def test_no_mutated_manifest_or_folder_is_taken():
    rng = random.Random("folders")
    tried = 0
    while tried < ROUNDS:
        document, files = SIGNED, dict(FILES)
        if rng.randrange(2):
            document = mutated(rng, SIGNED)
        else:
            path = rng.choice(sorted(files))
            match rng.randrange(4):
                case 0:
                    del files[path]
                case 1:
                    files["new" + path] = b"x"
                case 2:
                    files[path] = mutated(rng, files[path].decode()).encode()
                case _:  # content moves into the name, so that both together stay the same
                    content = files.pop(path)
                    files[(path + content.decode()).strip()[: len(path) + 1] or "x"] = content[1:]
        if document == SIGNED and files == FILES:
            continue
        if "manifest_signature" not in document:  # then it is what published implementations sign: see below
            continue
        tried += 1
        with pytest.raises(SymbiError):
            hashes = {path: file_hash(path, content) for path, content in files.items()}
            verify_skill(hashes, parse_skill(json.dumps(document).encode()), KEY.public_key(), NOW_NS)
    assert verify_skill(HASHES, parse_skill(json.dumps(SIGNED).encode()), KEY.public_key(), NOW_NS).covered


def test_a_name_that_swallows_its_content_is_seen_by_our_signature_and_said_of_a_published_one():
    """`SKILL.md` with `x…` and `SKILL.mdx` with `…` hash alike: the weakness of the published form."""
    before = {"SKILL.md": file_hash("SKILL.md", b"x and more")}
    after = {"SKILL.mdx": file_hash("SKILL.mdx", b" and more")}
    document = sign_skill(before, SkillTerms("s", "tools.example.com", "2026-01-01T00:00:00Z"), KEY)
    forged = document | {"file_manifest": after}
    with pytest.raises(SymbiError, match="changed after it was signed"):
        verify_skill(after, forged, KEY.public_key(), NOW_NS)
    published = {name: value for name, value in forged.items() if name != "manifest_signature"}
    found = verify_skill(after, published, KEY.public_key(), NOW_NS)
    assert not found.covered
    assert "only content is signed" in found.warnings[0]


def test_a_signature_of_one_tool_or_server_says_nothing_of_another():
    for changed in (replace(DEFINITION, name="sent"), replace(DEFINITION, title=None)):
        with pytest.raises(SymbiError):
            verify(changed, sign(DEFINITION, KEY), KEY.public_key())
    with pytest.raises(SymbiError):
        verify(DEFINITION, sign(DEFINITION, OTHER), KEY.public_key())
