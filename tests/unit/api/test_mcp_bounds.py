"""What one session may ask for; what is more is refused at once."""

import pytest

from symbi.api.mcp.bounds import BURST_S, Bounds, Turnstile
from symbi.errors import InputError, Overloaded
from symbi.testing.clock import ManualClock


def passes(turnstile, arguments=None):
    with turnstile.passing(arguments):
        pass


def test_so_many_a_second_pass_and_two_seconds_worth_at_once():
    clock = ManualClock()
    turnstile = Turnstile(Bounds(rate=10.0), clock)
    for _ in range(int(10 * BURST_S)):
        passes(turnstile)
    with pytest.raises(Overloaded) as caught:
        passes(turnstile)
    assert caught.value.code == "mcp.rate"
    clock.advance(caught.value.retry_after_s)
    passes(turnstile)
    with pytest.raises(Overloaded):
        passes(turnstile)


def test_so_many_at_a_time_pass_and_a_place_comes_back_also_after_an_error():
    turnstile = Turnstile(Bounds(calls=2, rate=1000.0), ManualClock())
    with turnstile.passing(), turnstile.passing():
        with pytest.raises(Overloaded) as caught:
            passes(turnstile)
        assert caught.value.code == "mcp.calls"
    with pytest.raises(ZeroDivisionError), turnstile.passing():
        raise ZeroDivisionError
    assert turnstile.under_way == 0
    passes(turnstile)


def test_arguments_have_a_size_in_bytes():
    turnstile = Turnstile(Bounds(request_bytes=20), ManualClock())
    passes(turnstile, {"a": "x" * 10})
    with pytest.raises(InputError) as caught:
        passes(turnstile, {"a": "\u20ac" * 10})
    assert caught.value.code == "mcp.size"
    with pytest.raises(InputError):
        passes(turnstile, {"a": float("nan")})


def test_of_what_comes_too_fast_nobody_looks_at_the_size():
    class Unread(dict):
        def items(self):
            raise AssertionError

    turnstile = Turnstile(Bounds(rate=1.0), ManualClock())
    with pytest.raises(AssertionError):
        passes(turnstile, Unread(a=1))
    passes(turnstile)
    with pytest.raises(Overloaded):
        passes(turnstile, Unread(a=1))
