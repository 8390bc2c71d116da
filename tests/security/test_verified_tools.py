"""What was verified is worked out once; in a call it is seen that it is still the same, to the last byte."""

from copy import deepcopy
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from symbi.errors import PinMismatch, SignatureInvalid, VerificationError
from symbi.testing.gate import open_gate
from symbi.tools import verified
from symbi.tools.catalog import ToolVerifier, VerificationMode
from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin import META_KEY, load_public_key, sign

pytestmark = pytest.mark.anyio

KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
OTHER = ec.derive_private_key(0x5EED + 1, ec.SECP256R1())
PUBLIC = load_public_key(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
TOOL = ToolDefinition(
    "mail", "send", "Sends a mail.", SCHEMA, SCHEMA, "Send", {"readOnlyHint": False}, rest={"icons": [{"src": "a:b"}]}
)
PLACES = {
    "schema": lambda one: one.input_schema,
    "within the schema": lambda one: one.input_schema["properties"]["to"],
    "output": lambda one: one.output_schema,
    "annotations": lambda one: one.annotations,
    "meta": lambda one: one.meta,
    "rest": lambda one: one.rest["icons"][0],
}


@pytest.fixture
async def tool():
    definition = deepcopy(TOOL)
    signed = replace(definition, meta={META_KEY: {"signature": sign(definition, KEY)}})
    async with open_gate() as gate:
        strict = ToolVerifier(
            VerificationMode.STRICT, gate.store, gate.log, gate.guard.engine, gate.clock, keys={"mail": PUBLIC}
        )
        yield await strict.verify_tool(signed)


@pytest.fixture
def worked(monkeypatch):
    """The definitions of which the canonical form was worked out after they were verified."""
    found, original = [], verified.covered_definition
    monkeypatch.setattr(verified, "covered_definition", lambda one: found.append(one) or original(one))
    return found


@pytest.mark.parametrize("place", PLACES)
async def test_it_is_worked_out_again_only_where_something_is_another(tool, worked, place):
    for _ in range(10):
        tool.confirm()
    assert worked == [], "canonical form and signature are not found out in a call"
    PLACES[place](tool.definition)["more"] = "of it"
    with pytest.raises(PinMismatch):
        tool.confirm()
    assert worked == [tool.definition]


@pytest.mark.parametrize("signature", ["", "MEUCIQ=="])
async def test_another_signature_is_checked(tool, worked, signature):
    tool.definition.meta[META_KEY]["signature"] = signature
    with pytest.raises(VerificationError):
        tool.confirm()
    assert worked


async def test_a_proof_is_worth_nothing_beside_another_digest_or_key(tool):
    with pytest.raises(PinMismatch):
        replace(tool, ref=replace(tool.ref, schema_digest="0" * 64)).confirm()
    with pytest.raises(SignatureInvalid):
        replace(tool, key=OTHER.public_key()).confirm()


async def test_what_has_no_print_is_checked_as_ever(tool, worked):
    assert verified.print_of(replace(TOOL, rest={"odd": object()})) == ""
    bare = replace(tool, proof=replace(tool.proof, print=""))
    bare.confirm()
    assert worked == [tool.definition]
    with pytest.raises(PinMismatch):
        replace(bare, definition=replace(tool.definition, title="Sent")).confirm()
