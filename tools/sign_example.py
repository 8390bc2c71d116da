"""Sign the example's tools anew: run it after a change to the definitions in `server/log_tools.py`.

It makes a key pair, writes the public half and the signatures beside the example, and keeps the private half nowhere.
"""

import importlib.util
import json
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin import fingerprint, sign_definitions

EXAMPLE = Path(__file__).parents[1] / "examples" / "log-triage"


def main() -> None:
    """Write `tools/example.pub.pem` and `server/signatures.json`."""
    spec = importlib.util.spec_from_file_location("log_tools", EXAMPLE / "server" / "log_tools.py")
    if spec is None or spec.loader is None:
        msg = f"no server in `{EXAMPLE}`"
        raise SystemExit(msg)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    signatures = {
        role: dict(
            sign_definitions(
                [
                    ToolDefinition(
                        server=role,
                        name=one["name"],
                        description=one["description"],
                        input_schema=one["inputSchema"],
                        output_schema=one.get("outputSchema"),
                        annotations=one.get("annotations", {}),
                    )
                    for one in offered
                ],
                pem,
            )
        )
        for role, offered in module.DEFINITIONS.items()
    }
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (EXAMPLE / "tools" / "example.pub.pem").write_bytes(public)
    (EXAMPLE / "server" / "signatures.json").write_text(json.dumps(signatures, indent=2) + "\n")
    print(f"signed {sum(map(len, signatures.values()))} tools with key {fingerprint(key.public_key())[:16]}")


if __name__ == "__main__":
    main()
