"""PyPI's `schemapin` as an oracle: one request in JSON on each line of the input, one answer on each line of the output.

It runs in the environment that `tools/oracles.sh` makes, and knows nothing of Symbi.
"""

import json
import sys

from schemapin.bundle import SchemaPinTrustBundle
from schemapin.core import SchemaPinCore
from schemapin.crypto import KeyManager, SignatureManager
from schemapin.resolver import TrustBundleResolver
from schemapin.skill import SkillSigner
from schemapin.verification import KeyPinStore, verify_schema_offline


def keygen():
    private, public = KeyManager.generate_keypair()
    return {
        "private": KeyManager.export_private_key_pem(private),
        "public": KeyManager.export_public_key_pem(public),
        "fingerprint": KeyManager.calculate_key_fingerprint(public),
    }


def canonical(schema):
    return SchemaPinCore.canonicalize_schema(schema)


def sign(schema, private):
    digest = SchemaPinCore.canonicalize_and_hash(schema)
    return SignatureManager.sign_schema_hash(digest, KeyManager.load_private_key_pem(private))


def verify(schema, signature, discovery, revocation=None):
    bundle = {"schemapin_bundle_version": "1.2", "created_at": "x", "revocations": [revocation] if revocation else []}
    found = SchemaPinTrustBundle.from_dict(bundle).find_revocation("tools.example.com")
    result = verify_schema_offline(schema, signature, "tools.example.com", "t", discovery, found, KeyPinStore())
    return {"valid": result.valid, "error": result.error_code and result.error_code.value}


def sign_skill(folder, private, domain):
    return SkillSigner.sign_skill(folder, private, domain)


def verify_skill(folder, discovery):
    return SkillSigner.verify_skill_offline(folder, discovery).valid


def resolve(bundle, domain):
    resolver = TrustBundleResolver.from_json(json.dumps(bundle))
    discovery = resolver.resolve_discovery(domain)
    revocation = resolver.resolve_revocation(domain, discovery or {})
    return {"discovery": discovery, "revocation": revocation and revocation.to_dict()}


OPERATIONS = {one.__name__: one for one in (keygen, canonical, sign, verify, sign_skill, verify_skill, resolve)}

for line in sys.stdin:
    request = json.loads(line)
    answer = OPERATIONS[request["do"]](**request["with"])
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
