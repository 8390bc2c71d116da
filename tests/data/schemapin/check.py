"""Show that the package takes our signatures: in its own environment, `python check.py < signed.json` prints `ok`.

`signed.json` is `{"public_key": PEM, "document": …, "signature": …}`, as `symbi.tools.schemapin.sign` makes it.
"""

import json
import sys

from schemapin.core import SchemaPinCore
from schemapin.crypto import KeyManager, SignatureManager

given = json.load(sys.stdin)
key = KeyManager.load_public_key_pem(given["public_key"])
digest = SchemaPinCore.canonicalize_and_hash(given["document"])
good = SignatureManager.verify_schema_signature(digest, given["signature"], key)
print("ok" if good else "refused")
