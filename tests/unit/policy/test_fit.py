"""Contexts are checked against the schema once for each form, and taken as the schema means them."""

import cedarpy
import pytest

from symbi.policy.catalog import ToolType
from symbi.policy.context import NO_REQUEST, tool_context
from symbi.policy.decision import Allow, Deny, PolicyRequest
from symbi.policy.engine import decide, decide_whole
from symbi.policy.fit import Unformed, form
from symbi.types import AgentId, Label, Principal, Resource

PAY = {"type": "object", "properties": {"price": {"type": "number"}, "to": {"type": "string"}}}
CHEAP = (
    'permit(principal, action, resource is Tool) when { context.arguments.price.lessThan(decimal("2.0")) };'.replace(
        "action,", 'action == Action::"InvokeTool::shop.pay",'
    ).replace("context.arguments.price", "context.arguments has price && context.arguments.price")
)


@pytest.fixture
def pay():
    def make(**arguments):
        resource = Resource(
            "Tool",
            "shop.pay",
            (
                ("server", "shop"),
                ("verified", True),
                ("recovery", "never-retry"),
                ("risk", "medium"),
                ("effect", "any"),
            ),
        )
        context = {**tool_context(PAY, {}, {}, Label(), ()), "arguments": arguments, "request": dict(NO_REQUEST)}
        return PolicyRequest(Principal(AgentId("a")), "InvokeTool::shop.pay", resource, context)

    return make


@pytest.fixture
def cheap(load):
    return load(CHEAP, tools=(ToolType("shop.pay", PAY),))


def _decimal(text):
    return {"__extn": {"fn": "decimal", "arg": text}}


@pytest.mark.parametrize(
    ("price", "allowed"),
    [
        (_decimal("1.9999"), True),
        (_decimal("2.0000"), False),
        ("1.9999", True),  # the schema makes a decimal of it
        ("2.0000", False),
        (_decimal("1.5"), True),
        (_decimal("99999999999999999.0000"), False),
        (_decimal("x"), False),
        ({"__extn": {"fn": "ip", "arg": "127.0.0.1"}}, False),
    ],
)
def test_a_decimal_is_one_however_it_is_written(cheap, pay, price, allowed):
    for _ in range(2):
        decision = decide(cheap, pay(price=price))
        assert isinstance(decision, Allow) is allowed
        assert decision == decide_whole(cheap, pay(price=price))


def test_the_schema_is_asked_once_for_each_form(cheap, pay, monkeypatch):
    asked, ask = [], cedarpy.is_authorized
    monkeypatch.setattr(cedarpy, "is_authorized", lambda *args: asked.append(len(args)) or ask(*args))
    for price in ("1.0000", "1.5000", "3.0000"):
        decide(cheap, pay(price=_decimal(price), to=price))
    assert asked == [4, 3, 3, 3]  # one with the schema, about a probe
    assert isinstance(decide(cheap, pay(price=_decimal("1.0000"), to=1)), Deny)
    assert asked[4:] == [4, 4]  # the probe does not fit, and the request is checked itself


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.0,
        b"x",
        2**63,
        -(2**63) - 1,
        "\ud800",
        {"__entity": {}},
        {"__extn": {"fn": "decimal", "arg": "1"}},
        object(),
    ],
)
def test_what_cedar_has_to_look_at_has_no_form(value):
    with pytest.raises(Unformed):
        form({"x": [value]})
