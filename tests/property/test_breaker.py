"""Whatever calls begin and end in whatever order, a breaker does what a plain list of failures says."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from symbi.tools.breaker import MAX_OPEN_S, MAX_RESTART_S, Breaker, BreakerState, BreakerTerms, Pace

FAILURES, WINDOW_S, OPEN_S = 3, 10.0, 4.0


class Against(RuleBasedStateMachine):
    """A breaker against a model that remembers everything, and reckons from it each time."""

    tickets = Bundle("tickets")

    def __init__(self):
        super().__init__()
        self.breaker = Breaker(BreakerTerms(FAILURES, WINDOW_S, OPEN_S))
        self.now_s = 0.0
        self.changes = [("closed", 0.0)]  # every state it came to, and when
        self.failures = []  # when, of the spell that goes on
        self.probes = 0  # calls that try it and have not ended
        self.times_open = 0

    @property
    def state(self):
        return self.changes[-1][0]

    def become(self, state):
        self.changes.append((state, self.now_s))
        self.failures, self.probes = [], 0

    @rule(seconds=st.one_of(st.floats(0, 3), st.floats(3, 400)))
    def time_passes(self, seconds):
        self.now_s += seconds

    @rule(target=tickets)
    def ask(self):
        whole_s = min(OPEN_S * 2 ** (self.times_open - 1), MAX_OPEN_S) if self.times_open else 0.0
        since_s = self.now_s - self.changes[-1][1]
        told_s = self.breaker.refused_for_s(self.now_s)
        ticket = self.breaker.ask(self.now_s)
        assert (ticket is None) == (told_s is not None)
        if self.state == "open":
            if since_s < whole_s * 0.75:
                assert ticket is None
            if since_s >= whole_s:
                assert ticket is not None
            if ticket is not None:
                self.become("half_open")
        elif self.state == "half_open":
            assert (ticket is None) == (self.probes == 1)
        else:
            assert ticket is not None
        if told_s is not None:
            assert 0 < told_s <= max(whole_s, 0.5)
        if ticket is None:
            return None
        self.probes += self.state == "half_open"
        return ticket, len(self.changes)

    @rule(given=consumes(tickets), jitter=st.floats(0, 1, exclude_max=True))
    def fails(self, given, jitter):
        if given is None:
            return
        ticket, spell = given
        self.breaker.failed(ticket, self.now_s, jitter)
        if spell != len(self.changes) or self.state == "open":
            return
        self.failures.append(self.now_s)
        if self.state == "half_open" or sum(at > self.now_s - WINDOW_S for at in self.failures) >= FAILURES:
            self.times_open += 1
            self.become("open")

    @rule(given=consumes(tickets))
    def is_answered(self, given):
        if given is None:
            return
        ticket, spell = given
        self.breaker.answered(ticket)
        if spell == len(self.changes) and self.state == "half_open":
            self.times_open = 0
            self.become("closed")

    @rule(given=consumes(tickets))
    def is_given_up(self, given):
        if given is None:
            return
        ticket, spell = given
        self.breaker.gave_up(ticket)
        if spell == len(self.changes) and self.state == "half_open":
            self.probes = 0

    @invariant()
    def they_agree(self):
        assert self.breaker.state.value == self.state
        assert self.breaker.opened == self.times_open
        assert self.probes <= 1

    @invariant()
    def nobody_is_shut_out_for_ever(self):
        """After the longest time, with all that were asked for given back, somebody may try."""
        if self.probes == 0:
            assert self.breaker.refused_for_s(self.now_s + MAX_OPEN_S) is None


TestAgainst = Against.TestCase


def test_a_breaker_of_no_failures_never_opens():
    breaker = Breaker(BreakerTerms(failures=0))
    for _ in range(1000):
        breaker.failed(breaker.ask(0.0), 0.0, 0.5)
    assert breaker.state is BreakerState.CLOSED


class Starts(RuleBasedStateMachine):
    """Starts of something that dies: the pauses between them double, are bounded, and are forgotten after a calm."""

    def __init__(self):
        super().__init__()
        self.pace, self.now_s, self.starts = Pace(), 0.0, []

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds):
        self.now_s += seconds

    @rule()
    def start_when_it_may(self):
        wait_s = self.pace.wait_s(self.now_s)
        if self.starts and self.now_s - self.starts[-1] >= 60:
            assert wait_s == 0
            self.starts = []
        expected = 0.0
        if self.starts:
            pause_s = min(0.5 * 2 ** (len(self.starts) - 1), MAX_RESTART_S)
            expected = max(0.0, self.starts[-1] + pause_s - self.now_s)
        assert abs(wait_s - expected) < 1e-6
        if wait_s == 0:
            self.pace.started(self.now_s)
            self.starts.append(self.now_s)
        assert self.pace.starts == len(self.starts) or wait_s > 0


TestStarts = Starts.TestCase
