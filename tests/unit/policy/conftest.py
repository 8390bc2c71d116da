"""Requests and sets that the tests of this folder share."""

from collections.abc import Callable, Mapping

import pytest

from symbi.policy.catalog import ToolType
from symbi.policy.context import NO_REQUEST, label_context, tool_context
from symbi.policy.decision import PolicyRequest
from symbi.policy.engine import PolicySet, PolicySource
from symbi.types import AgentId, JsonValue, Label, Principal, Resource

SEND: Mapping[str, JsonValue] = {
    "type": "object",
    "properties": {"recipient": {"type": "string"}, "body": {"type": "string"}, "amount": {"type": "integer"}},
    "required": ["recipient"],
}


@pytest.fixture
def triage() -> Principal:
    return Principal(AgentId("triage"), "ops", ("oncall",))


@pytest.fixture
def notify() -> ToolType:
    return ToolType("notify.send", SEND)


@pytest.fixture
def log_request(triage) -> Callable[..., PolicyRequest]:
    def make(label: Label = Label(), principal: Principal = triage) -> PolicyRequest:  # noqa: B008 - a frozen value
        return PolicyRequest(
            principal,
            "WriteLog",
            Resource("Resource", "log"),
            {"label": label_context(label), "request": dict(NO_REQUEST)},
        )

    return make


@pytest.fixture
def send_request(triage) -> Callable[..., PolicyRequest]:
    def make(values: Mapping[str, JsonValue], labels: Mapping[str, Label] | None = None) -> PolicyRequest:
        resource = Resource(
            "Tool",
            "notify.send",
            (
                ("server", "notify"),
                ("verified", True),
                ("recovery", "idempotent"),
                ("risk", "medium"),
                ("effect", "send"),
            ),
            (("ToolServer", "notify"),),
        )
        context = {**tool_context(SEND, values, labels or {}, Label(), ()), "request": dict(NO_REQUEST)}
        return PolicyRequest(triage, "InvokeTool::notify.send", resource, context)

    return make


@pytest.fixture
def load(notify) -> Callable[..., PolicySet]:
    def make(*texts: str, tools: tuple[ToolType, ...] = (notify,)) -> PolicySet:
        sources = [PolicySource(f"p{index}.cedar", text) for index, text in enumerate(texts)]
        return PolicySet.load(sources, (), tools)

    return make
