"""The part of a policy set that one request can touch.

Cedar evaluates the scope of a policy (principal, action, resource) before its conditions, and a policy whose scope does
not match neither fires nor fails. So it is enough to evaluate the policies whose scope can match, and a decision costs
what concerns it, not what the set holds.

Policies lie in buckets, by what their scope asks of the three. A request looks up the buckets of everything that it is
or is in, and evaluates them in up to three parts: what is written for its principal alone, what is written for its
resource alone, and the rest, which many requests share. Each part is parsed once and kept: no policy is copied for
every principal that it concerns, and a principal that is seen for the first time costs the parsing of its own policies.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

import cedarpy

from symbi.policy.decision import PASSING, PolicyRequest
from symbi.types import JsonValue, PolicyId

MAX_PREPARED_POLICIES: Final = 32_768  # bounds the parsed policies that are kept, at about 2 KiB each
MAX_SLICE_POLICIES: Final = 20_000  # bounds one evaluation: some 10 ms; a request that touches more is denied

_PRINCIPAL: Final = "Agent"  # the type of every principal
_ANY: Final = ()

Uid: TypeAlias = tuple[str, str]
Key: TypeAlias = tuple[str, ...]
"""What a scope asks of an entity: `()` nothing, `(type,)` its type, `(type, id)` to be it or to be in it."""


class Sliceable(Protocol):
    """What is asked of a policy here."""

    @property
    def id(self) -> PolicyId:
        """Its id."""

    @property
    def json(self) -> Mapping[str, Any]:
        """Cedar's JSON form."""


@dataclass(frozen=True, slots=True)
class Reads:
    """What policies read of a context; all of it where that cannot be told.

    Attributes:
        fields: By top-level name, the names below it that are read; None where the whole field is.
        everything: The context is used as a value, so all of it counts as read.
    """

    fields: Mapping[str, frozenset[str] | None]
    everything: bool = False

    @property
    def volatile(self) -> bool:
        """Whether a fact is read that changes without the action."""
        return self.everything or not PASSING.isdisjoint(self.fields)

    def of(self, context: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """The part of a context that is read: policies evaluate on it as on the whole."""
        if self.everything:
            return context
        part: dict[str, JsonValue] = {}
        for name, within in self.fields.items():
            if name in context:
                value = context[name]
                if within is not None and isinstance(value, Mapping):
                    value = {inner: value[inner] for inner in within if inner in value}
                part[name] = value
        return part


@dataclass(frozen=True, slots=True)
class Slice:
    """Parsed policies.

    Attributes:
        ids: Which, in order.
        cedar: The parsed set.
        reads: What they read of the context.
    """

    ids: tuple[PolicyId, ...] = field(repr=False)
    cedar: cedarpy.PolicySet = field(repr=False)
    reads: Reads


def cedar_set(policies: Mapping[PolicyId, Mapping[str, Any]]) -> cedarpy.PolicySet:
    """A parsed set of policies in Cedar's JSON form, under the ids given."""
    text = json.dumps({"staticPolicies": policies, "templates": {}, "templateLinks": []})
    return cedarpy.PolicySet.from_json_str(text)


class SliceTooLarge(Exception):
    """More policies concern a request than are evaluated for one."""


class Slices:
    """An index of policies by scope, and the parts of it that were asked for last, parsed.

    Args:
        policies: All of them, in order.
        groups: The groups that each action is in, at any distance.
    """

    def __init__(self, policies: Sequence[Sliceable], groups: Mapping[str, frozenset[str]]) -> None:
        self._policies = policies
        self._groups = groups
        self._buckets: list[list[int]] = []  # positions of policies
        self._index: dict[Key, dict[Key, dict[Key, int]]] = {}  # by principal, action, resource: number of a bucket
        self._prepared: OrderedDict[tuple[int, ...], Slice] = OrderedDict()
        self._kept = 0
        self._lock = threading.Lock()
        for position, policy in enumerate(policies):
            for keys in _keys(policy.json):
                self._put(keys, position)
        self._prepare_narrow()

    def _prepare_narrow(self) -> None:
        """Parse what is written for single principals, as far as it may be kept: it is most of a large set."""
        for key, by_action in self._index.items():
            if len(key) > 1 and key[0] == _PRINCIPAL:
                for by_resource in by_action.values():
                    for number in by_resource.values():
                        if self._kept + len(self._buckets[number]) <= MAX_PREPARED_POLICIES // 2:
                            self._prepare((number,))

    def _put(self, keys: tuple[Key, Key, Key], position: int) -> None:
        principal, action, resource = keys
        numbers = self._index.setdefault(principal, {}).setdefault(action, {})
        number = numbers.setdefault(resource, len(self._buckets))
        if number == len(self._buckets):
            self._buckets.append([])
        self._buckets[number].append(position)

    def of(self, request: PolicyRequest) -> tuple[Slice, ...]:
        """What has to be evaluated for a request: none of the policies left out can fire or fail.

        Raises:
            SliceTooLarge: That is too much for one decision.
        """
        slices = tuple(self._prepare(part) for part in self._parts(request) if part)
        if sum(len(part.ids) for part in slices) > MAX_SLICE_POLICIES:
            raise SliceTooLarge
        return slices

    def volatile(self, request: PolicyRequest) -> bool:
        """Whether a policy that concerns a request reads a fact that changes without the action.

        Raises:
            SliceTooLarge: As above.
        """
        return any(part.reads.volatile for part in self.of(request))

    def _parts(self, request: PolicyRequest) -> tuple[tuple[int, ...], ...]:
        resource = request.resource
        own, target = (_PRINCIPAL, request.principal.agent), (resource.type, resource.id)
        principals, resources = _scopes(request)
        actions: list[Key] = [_ANY, ("Action", request.action)]
        actions.extend(("Action", group) for group in self._groups.get(request.action, ()))
        parts: tuple[list[int], list[int], list[int]] = ([], [], [])
        for principal in principals:
            by_action = self._index.get(principal)
            if by_action is None:
                continue
            for action in actions:
                by_resource = by_action.get(action)
                if by_resource is None:
                    continue
                for key in resources:
                    number = by_resource.get(key)
                    if number is not None:
                        parts[1 if principal == own else 2 if key == target else 0].append(number)
        return tuple(map(tuple, parts))

    def _prepare(self, part: tuple[int, ...]) -> Slice:
        with self._lock:
            known = self._prepared.get(part)
            if known is not None:
                self._prepared.move_to_end(part)
                return known
        positions = sorted({position for number in part for position in self._buckets[number]})
        if len(positions) > MAX_SLICE_POLICIES:
            raise SliceTooLarge
        policies = [self._policies[position] for position in positions]
        made = Slice(
            tuple(each.id for each in policies),
            cedar_set({each.id: {**each.json, "annotations": {}} for each in policies}),
            _reads(policies),
        )
        with self._lock:
            if part not in self._prepared:
                self._prepared[part] = made
                self._kept += len(made.ids)
            while self._kept > MAX_PREPARED_POLICIES and len(self._prepared) > 1:
                self._kept -= len(self._prepared.popitem(last=False)[1].ids)
        return made


# --- scopes -----------------------------------------------------------------------------------


def _scopes(request: PolicyRequest) -> tuple[list[Key], list[Key]]:
    """The keys that match the principal, and those that match the resource: nothing, type, itself, what it is in."""
    principal, resource = request.principal, request.resource
    own, target = (_PRINCIPAL, principal.agent), (resource.type, resource.id)
    groups = [("Group", group) for group in principal.groups]
    above = list(resource.parents)
    if target in groups:  # the two are the only entities with parents, and either may lie above the other
        groups = [*groups, *above]
    elif own in above:
        above = [*above, *groups]
    principals = dict.fromkeys([_ANY, (_PRINCIPAL,), own, *groups])
    resources = dict.fromkeys([_ANY, (resource.type,), target, *above])
    return list(principals), list(resources)


def _keys(policy: Mapping[str, Any]) -> Iterator[tuple[Key, Key, Key]]:
    """Where a policy lies; in several places if its action is one of several."""
    principal, resource = _key(policy["principal"]), _key(policy["resource"])
    action = policy["action"]
    actions = {_uid(entity) for entity in action["entities"]} if "entities" in action else {_key(action)}
    for each in sorted(actions):
        yield principal, each, resource


def _key(scope: Mapping[str, Any]) -> Key:
    """What a scope asks; nothing where it is not understood, so that the policy is looked at each time."""
    match scope:
        case {"op": "==" | "in", "entity": entity} | {"op": "is", "in": {"entity": entity}}:
            return _uid(entity)
        case {"op": "is", "entity_type": str(type_)}:
            return (type_,)
        case _:
            return _ANY


def _uid(entity: Mapping[str, str]) -> Uid:
    return entity["type"], entity["id"]


# --- what is read -----------------------------------------------------------------------------


def _reads(policies: Sequence[Sliceable]) -> Reads:
    fields: dict[str, set[str] | None] = {}
    for policy in policies:
        for path in _paths(policy.json["conditions"]):
            if not path:
                return Reads({}, everything=True)
            known = fields.setdefault(path[0], set())
            if len(path) == 1:
                fields[path[0]] = None
            elif known is not None:
                known.add(path[1])
    return Reads({name: None if within is None else frozenset(within) for name, within in fields.items()})


def _paths(conditions: object) -> Iterator[tuple[str, ...]]:
    """The attributes of the context that conditions name, cut after the second step; `()` is the context itself."""
    stack = [conditions]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            path = _path(node)
            if path is None:
                stack.extend(node.values())
            else:
                yield path[:2]


def _path(node: Mapping[str, Any]) -> tuple[str, ...] | None:
    """`context`, or a chain of `.name` and `has name` on it; None for anything else."""
    steps: list[str] = []
    while True:
        match node:
            case {"Var": "context"}:
                return tuple(reversed(steps))
            case {".": {"left": dict(left), "attr": str(name)}} | {"has": {"left": dict(left), "attr": str(name)}}:
                steps.append(name)
                node = left
            case _:
                return None
