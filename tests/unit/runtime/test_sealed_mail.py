"""Messages as they wait: in the epoch in which they were sealed."""

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.bus import keybook
from symbi.bus.envelope import parse_flow
from symbi.clock import IdSource
from symbi.crypto.provider import open_provider
from symbi.errors import StoreUnavailable
from symbi.guard.vault import NO_KEYS
from symbi.runtime.mailbox import Message
from symbi.runtime.sealed_mail import Mail, SealedMail
from symbi.testing.bus_keys import book_on
from symbi.testing.clock import ManualClock
from symbi.types import AgentId, RunId

CLOCK = ManualClock()
IDS = IdSource(CLOCK)


def mail(to):
    return Mail(Message(RunId(IDS.new()), AgentId(to), "a", b""), AgentId("a"), b"{}", None, NO_KEYS)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_a_message_waits_in_the_epoch_that_sealed_it_also_where_another_began(monkeypatch, at_once):
    """Else the next owner ends the epoch under which it waits, and nobody can open it any more."""
    monkeypatch.setattr(keybook, "MAX_COUNTED", 3)
    with SqliteStore(None) as store:
        mails = SealedMail(book_on(store, store.epoch), open_provider(), CLOCK, None)
        recipients = [f"agent-{number}" for number in range(10)]
        waiting = []
        with store.transaction():
            for at in range(0, 10, at_once):
                waiting += mails.sealed([mail(to) for to in recipients[at : at + at_once]])
        assert [one.epoch for one in waiting] == [parse_flow(one.body).epoch for one in waiting]
        assert len({one.epoch for one in waiting}) > 2
        for one in waiting:
            assert mails.opened(one).inputs == b"{}"


def test_where_a_key_was_altered_nothing_is_kept_unsealed_and_the_size_is_not_blamed():
    with SqliteStore(None) as store:
        mails = SealedMail(book_on(store, store.epoch), open_provider(), CLOCK, None)
        with store.transaction():
            mails.sealed([mail("b")])
        store._db.execute("UPDATE bus_agents SET wrapped = zeroblob(length(wrapped)) WHERE agent = 'a'")
        later = SealedMail(book_on(store, store.epoch), open_provider(), CLOCK, None)
        with pytest.raises(StoreUnavailable, match=r"cannot be sealed: .*agent a.* was altered"), store.transaction():
            later.sealed([mail("b")])
