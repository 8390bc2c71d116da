"""Requests and policy sets as a store keeps them, so that a decision can be derived again.

A request stands as `{form, principal, action, resource, context, label, labels}`, and as `withheld` where some of it may
not be kept or is too large; then its decision cannot be derived again in full. A set stands with everything that
`PolicySet.load` needs, and with its schema, which its version covers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from symbi.errors import InputError, Place, PolicySyntaxError
from symbi.policy.catalog import ToolType
from symbi.policy.decision import PolicyRequest
from symbi.policy.policies import PolicySet, version_of
from symbi.policy.source import PolicySource
from symbi.types import AgentId, JsonValue, Principal, Resource

STORED_FORM: Final = 1  # of requests and of sets
MAX_SET_CHARS: Final = 33_554_432  # of one set; a larger one is not kept, and `load_set` says so


def _plain(value: object) -> object:
    """What the JSON encoder does not know by itself: read-only mappings, and sequences that are no lists."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"a value of type `{type(value).__name__}`")


_encode: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain).encode


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request as it was decided.

    Attributes:
        request: The question; where `withheld` is not empty, with other values than those that were decided on.
        withheld: Why some of it is not kept, in one line; empty where all of it is.
        labels: (argument, integrity, confidentiality, sources), the joined label first, as argument ``""``.
    """

    request: PolicyRequest
    withheld: str
    labels: tuple[tuple[str, str, str, tuple[str, ...]], ...]


def request_json(request: PolicyRequest) -> dict[str, JsonValue]:
    """A request as JSON, without labels."""
    who, what = request.principal, request.resource
    return {
        "form": STORED_FORM,
        "principal": {
            "agent": who.agent,
            "owner": who.owner,
            "groups": sorted(set(who.groups)),
            "trust": who.trust,
            "tier": who.tier,
            "capabilities": sorted(set(who.capabilities)),
        },
        "action": request.action,
        "resource": {
            "type": what.type,
            "id": what.id,
            "attributes": dict(what.attributes),
            "parents": sorted([kind, name] for kind, name in set(what.parents)),
        },
        "context": request.context,
    }


def encode(document: Mapping[str, JsonValue]) -> bytes:
    """A document as bytes: JSON with sorted keys, in ASCII.

    Raises:
        InputError: It is not JSON.
    """
    try:
        return _encode(document).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"a request is not JSON: {error}", code="policy.stored") from error


def read_request(data: bytes) -> StoredRequest:
    """A stored request; inverse of `request_json` and `encode`.

    Raises:
        InputError: It is not one.
    """
    document = _document(data, "request")
    try:
        who, what, context = document["principal"], document["resource"], document["context"]
        request = PolicyRequest(
            Principal(
                AgentId(_text(who["agent"])),
                _text(who["owner"]),
                tuple(who["groups"]),
                _text(who["trust"]),
                _text(who["tier"]),
                tuple(who["capabilities"]),
            ),
            _text(document["action"]),
            Resource(
                _text(what["type"]),
                _text(what["id"]),
                tuple(dict(what["attributes"]).items()),
                tuple((_text(kind), _text(name)) for kind, name in what["parents"]),
            ),
            dict(context),
        )
        named = {"": document.get("label", {}), **document.get("labels", {})}
        labels = tuple(
            (name, _text(label["integrity"]), _text(label["confidentiality"]), tuple(label["sources"]))
            for name, label in named.items()
            if label
        )
        return StoredRequest(request, _text(document.get("withheld", "")), labels)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged("request") from error


def set_text(policies: PolicySet) -> str:
    """A set as text, with all that makes it again; of one that is too large, only that it is."""
    document: dict[str, Any] = {
        "form": STORED_FORM,
        "version": policies.version,
        "schema": policies.schema,
        "sources": [{"file": source.file, "text": source.text} for source in policies.sources],
        "compiled": [
            {"id": rule.id, "text": rule.text, "place": [rule.place.file, rule.place.line, rule.place.column]}
            for rule in policies.compiled
        ],
        "tools": [{"name": tool.name, "input_schema": tool.input_schema} for tool in policies.tools],
    }
    text = _encode(document)
    if len(text) > MAX_SET_CHARS:
        return _encode({"form": STORED_FORM, "version": policies.version, "withheld": len(text)})
    return text


@dataclass(frozen=True, slots=True)
class _Rule:
    """A compiled policy as it was stored."""

    id: str
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A policy set made again.

    Attributes:
        policies: The set.
        same_schema: Its schema is the one that was in force then; otherwise another release made it, and what is
            derived with this one may differ.
    """

    policies: PolicySet
    same_schema: bool


def load_set(text: str, version: str) -> StoredSet:
    """Make a stored set again, and see that it is the one of this version.

    Raises:
        InputError: With the code `policy.stored`: it is damaged, of another version than it should be, was too large
            to be kept, or does not load with this release.
    """
    document = _document(text, "policy set")
    if "withheld" in document:
        msg = f"policy set `{version[:16]}` was not kept: it has {document['withheld']} characters"
        raise InputError(msg, code="policy.stored", hint=f"sets of up to {MAX_SET_CHARS} characters are kept")
    try:
        schema = _text(document["schema"])
        sources = [PolicySource(_text(entry["file"]), _text(entry["text"])) for entry in document["sources"]]
        compiled = [
            _Rule(_text(entry["id"]), _text(entry["text"]), Place(*entry["place"])) for entry in document["compiled"]
        ]
        tools = [ToolType(_text(entry["name"]), dict(entry["input_schema"])) for entry in document["tools"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged("policy set") from error
    try:
        policies = PolicySet.load(sources, compiled, tools)
    except PolicySyntaxError as error:
        msg = f"policy set `{version[:16]}` does not load with this release: {error}"
        raise InputError(msg, code="policy.stored", place=error.place) from error
    if version_of(policies.policies, policies.counters, schema) != version:
        msg = f"what is stored as policy set `{version[:16]}` is another set"
        raise InputError(msg, code="policy.stored_altered", hint="the row was changed, or another release wrote it")
    return StoredSet(policies, policies.schema == schema)


def _document(data: str | bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(what) from error
    if not isinstance(document, dict) or document.get("form") != STORED_FORM:
        raise _damaged(what)
    return document


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _damaged(what: str) -> InputError:
    return InputError(f"the stored {what} is damaged", code="policy.stored", hint="restore the data folder from a copy")
