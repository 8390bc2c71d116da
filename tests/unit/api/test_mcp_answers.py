"""What a client is told of every class of error: of a kind, for a model to read, and nothing that it should not know."""

import pytest

from symbi import errors
from symbi.api.mcp.answers import MAX_TEXT_CHARS, refusal_of
from symbi.errors import (
    ApprovalPending,
    ConfigError,
    InternalError,
    Overloaded,
    Place,
    PolicyDenied,
    RateLimited,
    SymbiError,
    ToolFailed,
    ToolServerUnavailable,
)
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource

POLICIES = PolicySet.load(
    [
        PolicySource(
            "/srv/secret/place.cedar",
            '@id("told") @reason("because") forbid (principal, action, resource) when { principal.owner == "mallory" };\n'
            'forbid (principal, action, resource) when { principal.owner == "eve" };',
        )
    ]
)
LEAVES = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, SymbiError) and cls is not SymbiError
]
INNER = "/srv/secret/place.cedar:3 mallory Traceback"


def made(cls):
    """An error of a class whose text and place are for nobody outside."""
    error = cls.__new__(cls)
    SymbiError.__init__(
        error,
        INNER,
        hint=INNER,
        place=Place("/srv/secret/place.cedar", 3, 1),
        retry_after_s=2.0,
        approval="a-1",
        path=INNER,
    )
    return error


@pytest.mark.parametrize("cls", LEAVES)
def test_every_class_of_error_has_an_answer_that_leaks_nothing_of_where_it_happened(cls):
    told = refusal_of("mail__send", made(cls), POLICIES)
    assert told.kind in {
        "denied", "held", "input", "verification", "limit", "unavailable", "failed", "doubt", "internal",
    }  # fmt: skip
    assert told.code == cls.default_code
    assert 0 < len(told.text) <= MAX_TEXT_CHARS + 1
    if issubclass(cls, errors.AgentFailed) and cls is not errors.EffectInDoubt:
        return  # the words of a tool or an agent are what the client asked for
    if issubclass(cls, errors.InputError) and not issubclass(cls, ConfigError):
        assert "place.cedar:3:1" not in told.text  # the message speaks of the client's own request; its place does not
        return
    for leak in ("/srv", "mallory", "Traceback"):
        assert leak not in told.text + str(told.meta)


def test_policies_are_named_by_their_ids_and_say_their_reason_alone():
    denial = PolicyDenied("no", policies=["told", "/srv/secret/place.cedar:2"], at=["/srv/secret/place.cedar:1"])
    told = refusal_of("mail__send", denial, POLICIES)
    assert told.facts["policies"] == ["told"]
    assert "Policy `told`: because." in told.text
    for leak in ("/srv", "mallory", "eve", "forbid ("):
        assert leak not in told.text + str(told.meta)


def test_a_policy_without_an_id_is_not_named():
    told = refusal_of("x", PolicyDenied("no", policies=["/srv/secret/place.cedar:2"]), POLICIES)
    assert "A policy forbids it." in told.text
    assert told.facts["policies"] == []
    assert "No policy permits it." in refusal_of("x", PolicyDenied("no", policies=[]), POLICIES).text


def test_what_helps_is_said():
    assert "Try again in 2 s" in refusal_of("x", RateLimited("slow", retry_after_s=2.0), POLICIES).text
    assert refusal_of("x", Overloaded("full", retry_after_s=2.5), POLICIES).facts["retry_after_s"] == 2.5
    held = refusal_of("x", ApprovalPending("held", approval="a-7", expires_at="2026"), POLICIES)
    assert "symbi approvals approve a-7" in held.text
    assert held.facts == {"approval": "a-7", "expires_at": "2026"}


def test_names_and_words_from_outside_cannot_steer_a_terminal():
    told = refusal_of("x\x1b[2J\n", ToolServerUnavailable("y"), POLICIES)
    assert told.text.isprintable()
    assert "it broke" in refusal_of("x", ToolFailed("it broke"), POLICIES).text
    assert "ValueError" not in refusal_of("x", InternalError("ValueError"), POLICIES).text
