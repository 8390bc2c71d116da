"""How `published.json` was made: in an environment of its own, with `pip install schemapin==1.3.0`.

    python make.py > published.json

Form `digest` is signed by the package's own `SignatureManager`. Form `bytes` is what the Go implementation signs, the
canonical form itself; it is signed here with `cryptography`, over the package's canonical form.
"""

import base64
import json
import sys
from importlib.metadata import version

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from schemapin.core import SchemaPinCore
from schemapin.crypto import KeyManager, SignatureManager

TEXT = {"type": "string"}
DOCUMENTS = [
    {"name": "echo", "description": "", "inputSchema": {"type": "object"}},
    {
        "name": "send",
        "title": "Send a message",
        "description": 'Quotes ", backslash \\, tab \t, line\nfeed, \u0001, \u007f, \u2028, größe, 漢字, \U0001f600.',
        "inputSchema": {
            "type": "object",
            "properties": {
                "to": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 9007199254740991},
                "body": {"type": ["string", "null"], "default": None},
                "Zeta": {"const": True},
                "alpha": {"enum": ["a", "b", False, 0, -1]},
                "é": TEXT,
                "z": TEXT,
                "": TEXT,
            },
            "required": ["to"],
            "additionalProperties": False,
        },
        "outputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}},
        "annotations": {"readOnlyHint": False, "title": "T"},
    },
    {
        "name": "digits",
        "description": "d",
        "inputSchema": {"type": "object", "properties": {"1": TEXT, "2": TEXT, "a": TEXT}},
    },
]


def main():
    private, public = KeyManager.generate_keypair()
    samples = []
    for document in DOCUMENTS:
        canonical = SchemaPinCore.canonicalize_schema(document)
        digest = SchemaPinCore.canonicalize_and_hash(document)
        once = private.sign(canonical.encode(), ec.ECDSA(hashes.SHA256()))
        samples += [
            {
                "form": "digest",
                "document": document,
                "canonical": canonical,
                "signature": SignatureManager.sign_schema_hash(digest, private),
            },
            {
                "form": "bytes",
                "document": document,
                "canonical": canonical,
                "signature": base64.b64encode(once).decode(),
            },
        ]
    vectors = {
        "made_with": f"schemapin {version('schemapin')}, cryptography {version('cryptography')}, make.py",
        "public_key": KeyManager.export_public_key_pem(public),
        "fingerprint": KeyManager.calculate_key_fingerprint(public),
        "samples": samples,
    }
    json.dump(vectors, sys.stdout, indent=1)
    sys.stdout.write("\n")


main()
