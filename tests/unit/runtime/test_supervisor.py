"""What is done about each class of error, and how long it waits."""

import inspect
from itertools import pairwise

import pytest

from symbi import errors
from symbi.agent.remedies import REMEDIES, RESTARTS, RETRIES, Backoff, Remedy, remedy_for
from symbi.errors import (
    InternalError,
    Overloaded,
    PolicyDenied,
    SandboxUnavailable,
    StoreUnavailable,
    SymbiError,
    ToolFailed,
)
from symbi.runtime.supervisor import Verdict, judge

CLASSES = [thing for _, thing in inspect.getmembers(errors, inspect.isclass) if issubclass(thing, SymbiError)]
LEAVES = [thing for thing in CLASSES if not any(other is not thing and issubclass(other, thing) for other in CLASSES)]

EXPECTED = {
    "DslError": "terminate",
    "PolicySyntaxError": "terminate",
    "ConfigError": "terminate",
    "PolicyDenied": "suspend",
    "ApprovalRequired": "suspend",
    "ApprovalPending": "suspend",
    "RateLimited": "retry",
    "PermitRefused": "suspend",
    "SignatureInvalid": "suspend",
    "PinMismatch": "suspend",
    "ChainBroken": "terminate",
    "DecryptionFailed": "suspend",
    "MessageRefused": "suspend",
    "TimeLimit": "suspend",
    "MemoryLimit": "suspend",
    "OutputLimit": "suspend",
    "TokenLimit": "suspend",
    "StepLimit": "suspend",
    "BudgetExceeded": "suspend",
    "StoreUnavailable": "retry",
    "SandboxUnavailable": "retry",
    "ToolServerUnavailable": "retry",
    "Overloaded": "retry",
    "ToolFailed": "restart",
    "ModelFailed": "restart",
    "CodeFailed": "terminate",
    "ScriptFailed": "terminate",
    "AskFailed": "terminate",
    "EffectInDoubt": "suspend",
    "InternalError": "restart",
}


def test_every_leaf_of_the_error_tree_has_a_remedy_that_was_thought_about():
    assert {leaf.__name__: remedy_for(leaf).value for leaf in LEAVES} == EXPECTED


def test_no_leaf_falls_through_to_the_root():
    for leaf in LEAVES:
        nearest = next(ancestor for ancestor in leaf.__mro__ if ancestor in REMEDIES)
        assert nearest is not SymbiError, leaf


def test_what_calls_itself_retryable_is_retried_and_nothing_else():
    for leaf in LEAVES:
        assert (remedy_for(leaf) is Remedy.RETRY) == leaf.retryable, leaf


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError(), MemoryError()])
def test_an_error_that_is_none_of_ours_is_a_defect(error):
    assert remedy_for(type(error)) is remedy_for(InternalError) is Remedy.RESTART


def test_a_class_that_comes_later_inherits_its_remedy_and_a_stranger_below_the_root_ends_the_agent():
    assert remedy_for(type("Later", (PolicyDenied,), {})) is Remedy.SUSPEND
    assert remedy_for(type("Stranger", (SymbiError,), {})) is Remedy.TERMINATE


def test_waits_double_up_to_the_longest_and_then_there_are_no_more():
    backoff = Backoff(attempts=5, first_s=1.0, factor=2.0, most_s=6.0)
    assert [backoff.next_delay_s(attempt, 0.0) for attempt in range(1, 8)] == [0.5, 1.0, 2.0, 3.0, 3.0, None, None]


@pytest.mark.parametrize("backoff", [RETRIES, RESTARTS])
def test_jitter_spreads_a_wait_over_its_upper_half(backoff):
    for attempt in range(1, backoff.attempts + 1):
        low, middle, high = (backoff.next_delay_s(attempt, jitter) for jitter in (0.0, 0.5, 0.999))
        assert 0 < low < middle < high < 2 * low
        assert high <= backoff.most_s


@pytest.mark.parametrize("backoff", [RETRIES, RESTARTS])
def test_waits_never_shrink(backoff):
    delays = [backoff.next_delay_s(attempt, 0.3) for attempt in range(1, backoff.attempts + 1)]
    assert all(earlier <= later for earlier, later in pairwise(delays))


def test_a_wait_does_not_overflow_however_many_attempts_there_are():
    backoff = Backoff(attempts=100_000, first_s=1.0, factor=10.0, most_s=5.0)
    assert backoff.next_delay_s(99_999, 0.0) == 2.5


@pytest.mark.parametrize(("attempt", "jitter"), [(0, 0.0), (-1, 0.0), (1, 1.0), (1, -0.1), (1, float("nan"))])
def test_numbers_out_of_range_are_a_defect(attempt, jitter):
    with pytest.raises(InternalError):
        RETRIES.next_delay_s(attempt, jitter)


def test_a_dependency_is_tried_again_a_bounded_number_of_times_and_then_given_up():
    verdicts = [judge(StoreUnavailable("x"), attempt=attempt, jitter=0.5) for attempt in range(1, 9)]
    assert [one.remedy for one in verdicts] == [Remedy.RETRY] * 6 + [Remedy.TERMINATE] * 2
    assert [one.exhausted for one in verdicts] == [False] * 6 + [True] * 2
    assert all(one.after_s > 0 for one in verdicts[:6])


def test_a_crash_loop_ends_an_agent():
    verdicts = [judge(ToolFailed("x"), attempt=attempt, jitter=0.0) for attempt in range(1, 5)]
    assert [one.remedy for one in verdicts] == [Remedy.RESTART] * 3 + [Remedy.TERMINATE]
    assert verdicts[-1] == Verdict(Remedy.TERMINATE, exhausted=True)


def test_what_is_suspended_or_ended_is_not_counted():
    assert judge(PolicyDenied("x"), attempt=99, jitter=0.0) == Verdict(Remedy.SUSPEND)
    assert judge(errors.ConfigError("x"), attempt=99, jitter=0.0) == Verdict(Remedy.TERMINATE)


def test_an_overloaded_dependency_is_left_alone_as_long_as_it_asks_for_within_reason():
    assert judge(Overloaded("x", retry_after_s=7.0), attempt=1, jitter=0.0).after_s == 7.0
    assert judge(Overloaded("x", retry_after_s=0.0), attempt=1, jitter=0.0).after_s == 0.25
    assert judge(Overloaded("x", retry_after_s=1e9), attempt=1, jitter=0.0).after_s == RETRIES.most_s
    assert judge(SandboxUnavailable("x"), attempt=1, jitter=0.0).after_s == 0.25


def test_the_severest_error_of_a_group_decides():
    group = ExceptionGroup("g", [StoreUnavailable("x"), ExceptionGroup("h", [PolicyDenied("x"), ToolFailed("x")])])
    assert judge(group, attempt=1, jitter=0.0) == Verdict(Remedy.SUSPEND)
    assert judge(ExceptionGroup("g", [StoreUnavailable("x")]), attempt=1, jitter=0.0).remedy is Remedy.RETRY
