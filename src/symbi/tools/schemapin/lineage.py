"""Where a definition comes from: which version it says it is, what it succeeds, when its signature ends.

None of it is covered by the signature, by the specification. So it can only make a tool be refused: a change of a pinned
definition waits for a person in any case, and what is said here decides what that person may accept.
"""

import re
from dataclasses import dataclass
from typing import Final

from symbi.tools.schemapin.documents import parse_time
from symbi.tools.schemapin.signature import SignatureEntry

_SEMVER: Final = re.compile(
    r"(0|[1-9]\d{0,17})\.(0|[1-9]\d{0,17})\.(0|[1-9]\d{0,17})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
)
_SOURCE: Final = re.compile(r"[!-~]{1,300}")

_Order = tuple[tuple[int, int, int], bool, tuple[tuple[bool, int, str], ...]]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a pin keeps of how its tool was signed.

    Attributes:
        form: `digest` or `bytes`; empty where it is not signed.
        version: The version that the signer gave.
        source: Where the key came from, if not from `public_key`: a domain's documents, a bundle, a folder.
    """

    form: str = ""
    version: str = ""
    source: str = ""

    @property
    def text(self) -> str:
        """As it stands in a pin: the form alone where nothing else is known."""
        parts = [self.form, self.version and f"version={self.version}", self.source and f"key={self.source}"]
        return " ".join(part for part in parts if part)


def parse_provenance(text: str) -> Provenance:
    """What `Provenance.text` wrote."""
    form, *rest = text.split(" ")
    said = dict(part.split("=", 1) for part in rest if "=" in part)
    return Provenance(form, said.get("version", ""), said.get("key", ""))


def provenance(form: str, version: str, source: str) -> Provenance:
    """What is kept; a source that is no plain word is written as `_`."""
    return Provenance(form, version, source if not source or _SOURCE.fullmatch(source) else "_")


def why_older(entry: SignatureEntry, pinned: Provenance) -> str:
    """Why a definition that is not the pinned one would be a step back; empty where it is none, or nobody can say."""
    if not pinned.version:
        return ""
    if not entry.version:
        return f"the pinned one was version {pinned.version}, and this one says none"
    if entry.version == pinned.version:
        return f"it says that it is version {entry.version} as the pinned one, and differs"
    before, now = _order(pinned.version), _order(entry.version)
    if before is None or now is None or now > before:
        return ""
    return f"it is version {entry.version}, older than the pinned {pinned.version}"


def of_descent(entry: SignatureEntry | None, pinned_digest: str) -> str:
    """What a changed definition says of the one before it, in words for the person who reviews it."""
    if entry is None or not entry.previous:
        return "it does not say what it succeeds"
    if entry.previous == f"sha256:{pinned_digest}":
        return "it says that it succeeds the pinned one"
    return f"it says that it succeeds {entry.previous[:23]}, which is not what is pinned"


def why_ended(entry: SignatureEntry, now_ns: int) -> str:
    """Why a signature is past its end; empty where it is not."""
    if not entry.expires_at:
        return ""
    end_ns = parse_time(entry.expires_at)
    if end_ns is None:
        return "the end of its signature cannot be read"
    return f"its signature has ended on {entry.expires_at}" if now_ns >= end_ns else ""


def _order(version: str) -> _Order | None:
    """By semantic versioning 2.0, section 11; None for what is no such version."""
    found = _SEMVER.fullmatch(version)
    if found is None:
        return None
    numbers = (int(found[1]), int(found[2]), int(found[3]))
    parts = (found[4] or "").split(".") if found[4] else []
    before = tuple((not one.isdigit(), int(one) if one.isdigit() else 0, one) for one in parts)
    return numbers, not parts, before
