"""Principal and resource as Cedar's entities, read as seldom and as little as can be.

Reading entities against the schema costs more than evaluating policies on them, the more so as all actions of the
schema are read with them, and every tool has one. Whether an entity fits depends on its form alone (as for contexts,
see `symbi.policy.fit`): its type, the names and kinds of its attributes, and the types of its parents. So Cedar is
asked once for each form, about a probe, and entities of a form that fits are read without the schema, beside those
actions that can count: the one that is asked for, and those that conditions name. A resource is asked for by many, so
it is read once, and the principal is added to it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import cedarpy
import msgspec

from symbi.errors import InputError
from symbi.policy.context import agent_attributes
from symbi.policy.decision import PolicyRequest
from symbi.policy.fit import Form, Unformed, form, probe
from symbi.types import AgentId, JsonValue, Principal, Resource

_CACHED: Final = 1024  # bounds the forms, the resources and the pairs that are kept, at about 2 KiB each
_AGENT: Final = Principal(AgentId("a"), groups=("g",), capabilities=("c",))  # its form is that of every agent
_Entity = Mapping[str, Any]


def plain(value: object) -> object:
    """What the JSON encoder does not know by itself: read-only mappings, and sequences that are no lists.

    Raises:
        InputError: It is neither.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise InputError(f"a value of type `{type(value).__name__}` is not JSON")


encode_plain: Final = msgspec.json.Encoder().encode  # for text, numbers, booleans, lists and records alone
encode: Final = json.JSONEncoder(allow_nan=False, default=plain).encode


def entities_of(principal: Principal, resource: Resource) -> list[dict[str, JsonValue]]:
    """Principal and resource in Cedar's JSON; one entity where they are the same.

    Raises:
        InputError: An attribute is there twice, or principal and resource are one agent with different attributes.
    """
    agent = _entity(
        "Agent",
        principal.agent,
        agent_attributes(principal),
        tuple(("Group", group) for group in principal.groups),
    )
    other = _entity(resource.type, resource.id, resource.attributes, resource.parents)
    if agent["uid"] != other["uid"]:
        return [agent, other]
    if agent != other:
        raise InputError("the agent has other attributes as principal than as resource")
    return [agent]


def _entity(
    type_: str, id_: str, attributes: Sequence[tuple[str, JsonValue]], parents: Sequence[tuple[str, str]]
) -> dict[str, JsonValue]:
    attrs = dict(attributes)
    if len(attrs) != len(attributes):
        raise InputError("an attribute of the resource is there twice")
    return {
        "uid": {"type": type_, "id": id_},
        "attrs": attrs,
        "parents": [{"type": parent, "id": name} for parent, name in sorted(set(parents))],
    }


class EntityReader:
    """Reads entities against a schema, and keeps the latest.

    Args:
        schema: The schema.
        groups: Its actions, each with the groups that it is in, at any distance.
        named: The actions that conditions of policies name.
    """

    def __init__(self, schema: cedarpy.Schema, groups: Mapping[str, frozenset[str]], named: frozenset[str]) -> None:
        conform = _conformity(schema)
        count = sorted(named & groups.keys())

        @lru_cache(maxsize=_CACHED)
        def whole(text: str) -> cedarpy.Entities:
            return cedarpy.Entities.from_json_str(text, schema)

        @lru_cache(maxsize=_CACHED)
        def beside(action: str, text: str) -> cedarpy.Entities | None:
            """A resource, and the actions that can count; None where it has to be read against the schema."""
            (entity,) = json.loads(text)
            if action not in groups or not conform(entity):
                return None
            actions = [
                _entity("Action", each, (), tuple(("Action", group) for group in groups[each]))
                for each in dict.fromkeys([action, *count])
            ]
            return cedarpy.Entities.from_json_str(encode([*actions, entity]))

        @lru_cache(maxsize=_CACHED)
        def both(action: str, agent: str, resource: str) -> cedarpy.Entities | None:
            known = beside(action, resource)
            return None if known is None else known.with_added_json_str(agent)

        self._whole = whole
        self._both = both
        self._knows_agents = conform(entities_of(_AGENT, Resource("Group", ""))[0])

    def whole(self, principal: Principal, resource: Resource) -> cedarpy.Entities:
        """Principal and resource beside all actions, held against the schema.

        Raises:
            InputError: They cannot be made entities.
            ValueError: They do not fit the schema, or something cannot be encoded.
        """
        return self._whole(encode(entities_of(principal, resource)))

    def of(self, request: PolicyRequest) -> cedarpy.Entities:
        """What `whole` has of a request, without the actions that no policy can ask about.

        Raises:
            InputError: As above.
            ValueError: Likewise.
        """
        principal, resource = request.principal, request.resource
        entities = entities_of(principal, resource)
        found = None
        if self._knows_agents and len(entities) > 1 and _of_texts(principal):
            agent = encode_plain(entities[:1]).decode()
            simple = all(type(value) is str or type(value) is bool for _, value in resource.attributes)
            other = encode_plain(entities[1:]).decode() if simple else encode(entities[1:])
            found = self._both(request.action, agent, other)
        return self._whole(encode(entities)) if found is None else found


def _of_texts(principal: Principal) -> bool:
    """Whether an agent has the form that every agent should have; only the annotations say that it does."""
    texts = (principal.agent, principal.owner, principal.trust, principal.tier)
    return all(type(text) is str for each in (texts, principal.groups, principal.capabilities) for text in each)


def _conformity(schema: cedarpy.Schema) -> Callable[[_Entity], bool]:
    """Tells whether an entity is known to fit a schema."""

    @lru_cache(maxsize=_CACHED)
    def fits(type_: str, attributes: Form, parents: frozenset[str]) -> bool:
        probed = {
            "uid": {"type": type_, "id": ""},
            "attrs": probe(attributes),
            "parents": [{"type": parent, "id": ""} for parent in sorted(parents)],
        }
        try:
            cedarpy.Entities.from_json_str(encode([probed]), schema)
        except ValueError:
            return False
        return True

    def conform(entity: _Entity) -> bool:
        try:
            attributes = form(entity["attrs"])
        except Unformed:
            return False
        return fits(entity["uid"]["type"], attributes, frozenset(parent["type"] for parent in entity["parents"]))

    return conform
