"""The TXT record `_schemapin.DOMAIN`: a second way by which a domain says under which key it signs.

`v=schemapin1; fp=sha256:…; kid=…` in any order, white space around `;` and `=`; other fields are passed over. A record
that is there must agree, whether or not one has to be there.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from symbi.errors import SignatureInvalid
from symbi.tools.schemapin.documents import host_and_port
from symbi.tools.schemapin.keys import FINGERPRINT, PublicKey, key_id

TXT_VERSION: Final = "schemapin1"
_MARK: Final = re.compile(rf"(?:^|;)\s*v\s*=\s*{TXT_VERSION}\s*(?:;|$)")
_ANY_MARK: Final = re.compile(r"(?:^|;)\s*v\s*=\s*schemapin", re.IGNORECASE)


class DnsCheck(StrEnum):
    """Whether the TXT record of a domain is asked for."""

    OFF = "off"
    """It is not."""
    PRESENT = "present"
    """It is, and one that is there must agree."""
    REQUIRED = "required"
    """It is, and must be there and agree."""


def txt_name(domain: str) -> str:
    """Where the record is."""
    return f"_schemapin.{host_and_port(domain)[0]}"


def check_txt(domain: str, records: Sequence[str], key: PublicKey, check: DnsCheck) -> bool:
    """Return if what DNS says of a key is what the document says.

    Args:
        domain: Whose.
        records: All TXT records of the name, the chunks of each joined.
        key: As the discovery document gives it.
        check: Whether one has to be there.

    Returns:
        Whether there was a record that agrees.

    Raises:
        SignatureInvalid: It is malformed, says another key, or is not there and has to be.
    """
    ours = [one for one in records if _MARK.search(one)]
    if not ours:
        malformed = any(_ANY_MARK.search(one) for one in records)
        if malformed or check is DnsCheck.REQUIRED:
            why = "is of a version that is not known" if malformed else "is not there"
            msg = f"the TXT record `{txt_name(domain)}` {why}"
            raise SignatureInvalid(msg, code="verify.dns", domain=domain)
        return False
    fields: dict[str, str] = {}
    for part in ours[0].split(";"):
        name, equals, value = part.partition("=")
        if equals and name.strip() in fields:
            msg = f"the TXT record `{txt_name(domain)}` says `{name.strip()}` twice"
            raise SignatureInvalid(msg, code="verify.dns", domain=domain)
        fields[name.strip()] = value.strip()
    if not FINGERPRINT.fullmatch(fields.get("fp", "")):
        msg = f"the TXT record `{txt_name(domain)}` has no `fp=sha256:…`"
        raise SignatureInvalid(msg, code="verify.dns", domain=domain)
    if fields["fp"] != key_id(key):
        msg = f"DNS says that `{domain}` signs with {fields['fp'][:23]}, its discovery document {key_id(key)[:23]}"
        hint = "one of the two was changed by somebody else, or a change of keys is under way"
        raise SignatureInvalid(msg, code="verify.dns_mismatch", hint=hint, domain=domain)
    return True
