"""Listings of a server's tools as JSON, to be signed or checked where no server runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from symbi.errors import InputError
from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin.canonical import canonical_definition, digest_of
from symbi.tools.schemapin.documents import parse_once
from symbi.tools.schemapin.keys import FINGERPRINT, PrivateKey
from symbi.tools.schemapin.signature import META_KEY, VERSION, sign
from symbi.tools.text import shown_name
from symbi.types import JsonValue

MAX_LISTING_BYTES: Final = 33_554_432
MAX_TOOLS: Final = 10_000


@dataclass(frozen=True, slots=True)
class SigningTerms:
    """What is said beside the signatures of a server's tools; empty where nothing is.

    Attributes:
        version: `schema_version` of all of them.
        expires_at: RFC 3339.
        previous: `sha256:…` of the definition before, by tool.
    """

    version: str = ""
    expires_at: str = ""
    previous: Mapping[str, str] | None = None


def parse_listing(text: str, server: str = "listing") -> tuple[ToolDefinition, ...]:
    """The tools of a listing: an answer to `tools/list`, or the list in it.

    Args:
        text: JSON.
        server: Whose they are.

    Raises:
        InputError: It is malformed, or names a tool twice.
    """
    content = _read(text)
    tools = content.get("tools") if isinstance(content, dict) else content
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
        _refuse(f"it is no list of up to {MAX_TOOLS} tools, and has none in `tools`")
    found = tuple(_definition(one, server, index) for index, one in enumerate(tools))
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        _refuse(f"tool `{shown_name(twice)}` is in it twice")
    return found


def signed_entries(
    definitions: Sequence[ToolDefinition], key: PrivateKey, terms: SigningTerms
) -> dict[str, dict[str, JsonValue]]:
    """What each tool carries in `_meta.schemapin`, by its name.

    Raises:
        InputError: A definition cannot be signed, or what is said beside is malformed.
    """
    if terms.version and not VERSION.fullmatch(terms.version):
        raise InputError(f"`{shown_name(terms.version)}` cannot name a version", code="tool.version")
    entries: dict[str, dict[str, JsonValue]] = {}
    for definition in definitions:
        if definition.name in entries:
            msg = f"tool `{shown_name(definition.name)}` is defined twice"
            raise InputError(msg, code="tool.duplicate")
        entry: dict[str, JsonValue] = {
            "signature": sign(definition, key),
            "schema_hash": f"sha256:{digest_of(canonical_definition(definition))}",
        }
        previous = (terms.previous or {}).get(definition.name, "")
        said = {"schema_version": terms.version, "expires_at": terms.expires_at, "previous_hash": previous}
        entries[definition.name] = entry | {name: value for name, value in said.items() if value}
    return entries


def hashes_of(text: str) -> dict[str, str]:
    """`sha256:…` of each tool in what was signed before: a listing, or entries with their `schema_hash`.

    Raises:
        InputError: It is neither.
    """
    content = _read(text)
    if isinstance(content, list) or (isinstance(content, dict) and isinstance(content.get("tools"), list)):
        return {one.name: f"sha256:{digest_of(canonical_definition(one))}" for one in parse_listing(text)}
    if not isinstance(content, dict):
        _refuse("it is neither a listing nor signatures")
    hashes = {name: entry.get("schema_hash") for name, entry in content.items() if isinstance(entry, dict)}
    if not hashes or not all(isinstance(one, str) and FINGERPRINT.fullmatch(one) for one in hashes.values()):
        _refuse("it is neither a listing nor signatures with their `schema_hash`")
    return {name: str(one) for name, one in hashes.items()}


def entries_of(text: str) -> dict[str, dict[str, JsonValue]]:
    """Signatures by tool out of a file that `symbi tools sign` wrote: texts, entries, or a listing that carries them.

    Raises:
        InputError: It is none of these.
    """
    content = _read(text)
    if isinstance(content, list) or (isinstance(content, dict) and isinstance(content.get("tools"), list)):
        content = {one.name: one.meta[META_KEY] for one in parse_listing(text) if META_KEY in one.meta}
    if not isinstance(content, dict):
        _refuse("it holds no signatures")
    found: dict[str, Any] = {name: {"signature": one} if isinstance(one, str) else one for name, one in content.items()}
    odd = next((name for name, one in found.items() if not isinstance(one, dict) or "signature" not in one), None)
    if odd is not None:
        _refuse(f"`{shown_name(odd)}` has no signature in it")
    return found


def with_entries(text: str, entries: Mapping[str, Mapping[str, JsonValue]]) -> dict[str, Any]:
    """A listing that parses, with these entries in the `_meta` of its tools."""
    content = _read(text)
    listing = content if isinstance(content, dict) else {"tools": content}
    tools = [
        tool | {"_meta": {**(tool.get("_meta") or {}), META_KEY: entries[tool["name"]]}} for tool in listing["tools"]
    ]
    return listing | {"tools": tools}


def _read(text: str) -> Any:
    if len(text) > MAX_LISTING_BYTES:
        _refuse(f"it has more than {MAX_LISTING_BYTES} characters")
    try:
        return parse_once(text)
    except (ValueError, RecursionError):
        _refuse("it is no JSON in which every name stands once")


def _definition(one: object, server: str, index: int) -> ToolDefinition:
    if not isinstance(one, dict) or not isinstance(one.get("name"), str):
        _refuse(f"entry {index + 1} has no `name`")
    name = shown_name(one["name"])
    for key, kind in (
        ("description", str),
        ("title", str),
        ("outputSchema", dict),
        ("annotations", dict),
        ("_meta", dict),
    ):
        if one.get(key) is not None and not isinstance(one[key], kind):
            _refuse(f"`{key}` of tool `{name}` is malformed")
    if not isinstance(one.get("inputSchema"), dict):
        _refuse(f"tool `{name}` has no `inputSchema`")
    return ToolDefinition(
        server,
        one["name"],
        one.get("description") or "",
        one["inputSchema"],
        output_schema=one.get("outputSchema"),
        title=one.get("title"),
        annotations=one.get("annotations") or {},
        meta=one.get("_meta") or {},
    )


def _refuse(why: str) -> NoReturn:
    raise InputError(f"the listing cannot be used: {why}", code="tool.listing")
