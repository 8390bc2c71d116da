"""A fault on the way to any effect: denied, for every class of action that there is.

The classes are found by reflection, and one action of each is made out of its own type hints, so that a class that is
added is tried without anybody thinking of it.
"""

import importlib
import pkgutil
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from types import UnionType

import cedarpy
import pytest

from symbi.audit.event import AuditEventType as T
from symbi.errors import InputError, InternalError, PolicyDenied, StoreUnavailable
from symbi.guard import actions
from symbi.guard.action import Action, Canary, InvokeTool, RunSlot
from symbi.guard.ledger import EffectState
from symbi.guard.spending import FIELDS
from symbi.policy import obligations
from symbi.policy.catalog import ToolType
from symbi.policy.decision import Allow, ConditionKind
from symbi.policy.engine import decide
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource
from symbi.testing.gate import ALLOW_ALL, DENY_ALL, open_gate
from symbi.types import AgentId, Principal, ResourceLimits, RunId, SecurityTier

pytestmark = pytest.mark.anyio

for found in pkgutil.iter_modules(actions.__path__, actions.__name__ + "."):
    importlib.import_module(found.name)


def classes(base: type[Action] = Action) -> set[type[Action]]:
    """Those below a class; slots make each dataclass anew, and what it was made from is none of ours."""
    below = {cls for child in base.__subclasses__() for cls in (child, *classes(child)) if hasattr(cls, "kind")}
    return {cls for cls in below if getattr(sys.modules[cls.__module__], cls.__name__, None) is cls}


# Canary is denied in any case, and tried by every start-up.
CLASSES = sorted(classes() - {Canary}, key=lambda cls: cls.__name__)
ME = Principal(AgentId("a"), "ada", ("g",))
OTHER = Principal(AgentId("b"), "bob")


def sample(kind: object, name: str = "") -> object:
    """A value of a type, from its hint; of a dataclass, what it has no default for is made likewise."""
    known: Mapping[object, object] = {Principal: ME, ResourceLimits: ResourceLimits(), SecurityTier: SecurityTier.TIER2}
    if kind in known:
        return OTHER if (kind, name) == (Principal, "to") else known[kind]
    origin = typing.get_origin(kind) or kind
    if isinstance(kind, typing.NewType):
        return "s.t" if name == "name" else "x"
    if origin is str:
        return "Memory" if name == "type" else "x"
    if origin in {int, float}:
        return origin(0)
    if origin in {Mapping, dict}:
        return {}
    if origin is tuple:
        return ()
    if origin in {UnionType, typing.Union}:
        return None
    assert is_dataclass(kind), f"{kind} of `{name}`"
    given = (each for each in fields(kind) if each.init)
    needed = [each for each in given if each.default is MISSING and each.default_factory is MISSING]
    return kind(**{each.name: sample(each.type, each.name) for each in needed})


def action_of(cls: type[Action], position: int = 1) -> Action:
    made = sample(cls)
    assert isinstance(made, Action)
    return replace(made, slot=RunSlot(RunId("r"), position))


TOOLS = [ToolType("x.t", {}), ToolType("s.t", {})]
EACH = pytest.mark.parametrize("cls", CLASSES, ids=[cls.__name__ for cls in CLASSES])


def test_every_action_of_the_schema_has_a_class_and_the_other_way_round():
    from symbi.policy.catalog import BASE_ACTIONS  # noqa: PLC0415 - of this test alone

    assert {cls.kind for cls in CLASSES} == BASE_ACTIONS - {"Canary"}


def policies(text: str) -> PolicySet:
    return PolicySet.load([PolicySource("p.cedar", text)], (), TOOLS)


@EACH
def test_the_request_that_the_others_spoil_is_allowed(cls):
    assert isinstance(decide(policies(ALLOW_ALL), action_of(cls).request()), Allow)


async def denied(cls: type[Action], text: str = ALLOW_ALL, spoil: Callable[[object], None] = lambda _: None) -> None:
    """That the body does not run, and that ledger and trail say so."""
    action = action_of(cls)
    async with open_gate(text, tools=TOOLS) as gate:
        spoil(gate)
        with pytest.raises(PolicyDenied):
            async with gate.guard.enforce(action):
                pytest.fail("the body ran")
        assert gate.store.effect_at(RunId("r"), 1).state is EffectState.DENIED
        assert gate.events()[-1].event_type == T.DECISION_DENY
        assert gate.guard.authority._live == {}


@EACH
async def test_an_empty_set_denies(cls):
    await denied(cls, DENY_ALL)


@EACH
@pytest.mark.parametrize("error", [RuntimeError("x"), TimeoutError(), MemoryError(), RecursionError(), KeyError("x")])
async def test_an_engine_that_raises_or_times_out_denies(cls, error, monkeypatch):
    def fail(*_):
        raise error

    await denied(cls, spoil=lambda gate: monkeypatch.setattr(gate.engine, "decide", fail))


@EACH
async def test_a_cedar_that_fails_denies(cls, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("x")

    def spoil(_gate):
        for name in ("is_authorized", "is_authorized_batch"):
            monkeypatch.setattr(cedarpy, name, fail, raising=False)

    await denied(cls, spoil=spoil)


NOT_PROMISED = set(FIELDS.values())
"""The schema does not promise budgets; a policy that bounds one forbids `unless` it is there, as docs/reference/budgets.md has it."""


@EACH
async def test_a_context_that_lacks_anything_denies(cls, monkeypatch):
    for missing in set(action_of(cls).request().context) - NOT_PROMISED:
        whole = cls.request

        def lacking(self, missing=missing, whole=whole):
            request = whole(self)
            return replace(request, context={name: value for name, value in request.context.items() if name != missing})

        with monkeypatch.context() as patch:
            patch.setattr(cls, "request", lacking)
            await denied(cls)


@EACH
async def test_a_context_that_cannot_be_made_denies(cls, monkeypatch):
    for error in (KeyError("x"), ValueError("x"), TypeError("x")):

        def fail(_self, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(cls, "context", fail)
            await denied(cls)


@EACH
async def test_an_entity_that_lacks_an_attribute_or_is_of_another_type_denies(cls, monkeypatch):
    resource = action_of(cls).resource
    spoilt = [
        replace(resource, attributes=tuple(pair for pair in resource.attributes if pair[0] != name))
        for name, _ in resource.attributes
    ]
    spoilt += [replace(resource, type="Nothing", attributes=()), replace(resource, attributes=(("more", 1),))]
    for wrong in spoilt:
        with monkeypatch.context() as patch:
            patch.setattr(cls, "resource", wrong)
            await denied(cls)


@EACH
async def test_a_store_that_is_down_lets_nothing_happen(cls, monkeypatch):
    async with open_gate(tools=TOOLS) as gate:

        async def down(*_, **__):
            raise StoreUnavailable("down")

        monkeypatch.setattr(gate.log, "transact", down)
        with pytest.raises(StoreUnavailable):
            async with gate.guard.enforce(action_of(cls)):
                pytest.fail("the body ran")
        assert gate.guard.authority._live == {}
        monkeypatch.undo()
        assert gate.store.effect_at(RunId("r"), 1) is None


@EACH
@pytest.mark.parametrize("effect", ["forbid", "permit", '@requires("record") forbid'])
async def test_a_policy_that_errors_denies_though_another_permits(cls, effect):
    overflow = "context.request.position + 9223372036854775807 > 0"
    await denied(cls, f"{ALLOW_ALL}\n{effect} (principal, action, resource) when {{ {overflow} }};")


@EACH
async def test_a_condition_that_nobody_knows_denies(cls, monkeypatch):
    async with open_gate('@id("may") @record("full") permit(principal, action, resource);', tools=TOOLS) as gate:
        monkeypatch.delitem(obligations._READERS, ConditionKind.RECORD)
        with pytest.raises(InputError, match="unknown condition"):
            async with gate.guard.enforce(action_of(cls)):
                pytest.fail("the body ran")
        assert gate.store.effect_at(RunId("r"), 1).state is EffectState.DENIED
        assert gate.events()[-1].event_type == T.DECISION_DENY


@EACH
async def test_a_missing_requirement_denies(cls):
    await denied(cls, f'{ALLOW_ALL}\n@requires("record") forbid (principal, action, resource);')


async def test_a_recheck_that_fails_denies():
    def fail(_action):
        raise InternalError("x")

    action = action_of(InvokeTool)
    async with open_gate(tools=TOOLS) as gate:
        with pytest.raises(InternalError):
            async with gate.guard.enforce(replace(action, recheck=fail)):
                pytest.fail("the body ran")
        assert gate.store.effect_at(RunId("r"), 1).state is EffectState.DENIED
