"""The checks of the ports of agents that stay and of their messages, to be run on every store."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Final, Protocol, TypeAlias

from symbi.errors import InputError, InternalError
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.mailbox import MailboxStore, Message
from symbi.runtime.roster import AgentRecord, AgentStore
from symbi.types import AgentId, RunId

_AT: Final = "2026-01-01T00:00:00.000000000Z"
_LATER: Final = "2026-01-02T00:00:00.000000000Z"
_MANY: Final = 100
A, B, C = (AgentId(f"w/{name}") for name in "abc")
W: Final = AgentId("w")


class AgentStoreUnderTest(AgentStore, Protocol):
    """A store with its transactions."""

    def transaction(self) -> AbstractContextManager[None]:
        """One transaction."""


class MailboxStoreUnderTest(MailboxStore, Protocol):
    """A store with its transactions."""

    def transaction(self) -> AbstractContextManager[None]:
        """One transaction."""


def agent_record(name: AgentId = A, state: AgentState = AgentState.READY) -> AgentRecord:
    """An agent that was just made."""
    return AgentRecord(name, "/agents/w.symbi", "0" * 64, state, 2, "", "boss", _AT, _AT)


def message(number: int = 0, agent: AgentId = A, due_ns: int = 0) -> Message:
    """A message."""
    return Message(RunId(f"m{number}"), agent, "boss", b"{}", due_ns=due_ns)


# --- agents -------------------------------------------------------------------------------------


def an_agent_comes_back_as_it_was_put(store: AgentStoreUnderTest) -> None:
    """By its name, among all, among those of its state; and is counted there."""
    records = [agent_record(A), agent_record(B, AgentState.SUSPENDED), agent_record(C)]
    with store.transaction():
        store.put_agents(records)
    assert store.get_agent(B) == records[1]
    assert store.get_agent(W) is None
    assert list(store.agents(None, "", _MANY)) == records
    assert list(store.agents(None, A, 1)) == [records[1]]
    assert list(store.agents(AgentState.READY, A, _MANY)) == [records[2]]
    assert dict(store.count_agents()) == {AgentState.READY: 2, AgentState.SUSPENDED: 1}


def an_agent_that_is_there_is_not_made_again(store: AgentStoreUnderTest) -> None:
    """The error names it; one that is terminated is made anew, and nobody else's record changes."""
    gone = agent_record(A, AgentState.TERMINATED)
    with store.transaction():
        store.put_agents([gone, agent_record(B)])
    again = replace(agent_record(A), created_at=_LATER, changed_at=_LATER)
    refusal = _refused(store, lambda: store.put_agents([again, replace(agent_record(B), created_at=_LATER)]))
    assert refusal.code == "input.agent_exists"
    assert f"`{B}`" in refusal.message
    assert store.get_agent(A) == gone
    with store.transaction():
        store.put_agents([again])
    assert store.get_agent(A) == again


def a_stale_move_is_refused(store: AgentStoreUnderTest) -> None:
    """Who has not seen the last move, or means an agent of an earlier life, or one that is not there, moves nothing."""
    first = agent_record(A)
    with store.transaction():
        store.put_agents([first])
        store.move_agent(replace(first, state=AgentState.RUNNING, revision=3, changed_at=_LATER), 2)
    for wrong in (
        replace(first, state=AgentState.TERMINATED, revision=3),
        replace(first, agent_id=B, state=AgentState.RUNNING, revision=3),
    ):
        _stale(store, wrong, 2)
    _stale(store, replace(first, state=AgentState.READY, revision=4, created_at=_LATER), 3)
    found = store.get_agent(A)
    assert found is not None
    assert (found.state, found.revision, found.changed_at) == (AgentState.RUNNING, 3, _LATER)


def an_undone_move_was_never_made(store: AgentStoreUnderTest) -> None:
    """A transaction that fails takes its moves and its agents with it."""
    first = agent_record(A)
    with store.transaction():
        store.put_agents([first])
    with suppress(InputError), store.transaction():
        store.put_agents([agent_record(B)])
        store.move_agent(replace(first, state=AgentState.RUNNING, revision=3), 2)
        store.put_agents([first])  # which is refused
    assert store.get_agent(A) == first
    assert store.get_agent(B) is None


def instances_are_numbered_behind_those_there_are(store: AgentStoreUnderTest) -> None:
    """Whatever else instances of this or of another declaration are called, and whether they live."""
    assert store.last_number(W) == 0
    names = ("w", "w/9", "w/10", "w/x99", "w0/77", "w-a/78", "v/79")
    with store.transaction():
        store.put_agents([agent_record(AgentId(name), AgentState.TERMINATED) for name in names])
    assert store.last_number(W) == 10  # noqa: PLR2004 - of `w/10`


def that_everything_was_stopped_is_remembered(store: AgentStoreUnderTest) -> None:
    """Until things go on; by whom it was."""
    assert store.halted() == ""
    with store.transaction():
        store.set_halted("anna")
    assert store.halted() == "anna"
    with store.transaction():
        store.set_halted("")
    assert store.halted() == ""


AgentStoreCheck: TypeAlias = Callable[[AgentStoreUnderTest], None]

AGENT_STORE_CHECKS: Final[tuple[AgentStoreCheck, ...]] = (
    an_agent_comes_back_as_it_was_put,
    an_agent_that_is_there_is_not_made_again,
    a_stale_move_is_refused,
    an_undone_move_was_never_made,
    instances_are_numbered_behind_those_there_are,
    that_everything_was_stopped_is_remembered,
)


def _stale(store: AgentStoreUnderTest, record: AgentRecord, was_revision: int) -> None:
    refusal = _refused(store, lambda: store.move_agent(record, was_revision))
    assert refusal.code == "lifecycle.stale"
    assert refusal.fields["wanted"] == record.state.value


def _refused(store: AgentStoreUnderTest, write: Callable[[], None]) -> InputError:
    try:
        with store.transaction():
            write()
    except InputError as refusal:
        return refusal
    msg = "it was not refused"
    raise AssertionError(msg)


# --- messages -----------------------------------------------------------------------------------


def messages_keep_their_order(store: MailboxStoreUnderTest) -> None:
    """Each agent has its own; each is there until it is dropped; one that is there changes nothing."""
    with store.transaction():
        assert [store.put_message(message(n, agent)) for n, agent in enumerate((A, B, A))] == [True] * 3
        assert not store.put_message(replace(message(0), body=b'{"other":1}'))
    first = store.next_message(A)
    assert first is not None
    assert replace(first, sequence=0) == message(0)
    assert store.get_message(first.message_id) == first
    with store.transaction():
        assert store.drop_message(first.message_id)
        assert not store.drop_message(first.message_id)
    following = store.next_message(A)
    assert following is not None
    assert following.message_id == "m2"
    assert store.next_message(C) is None
    assert store.get_message(first.message_id) is None
    assert (store.count_messages(A, _MANY), store.count_messages(B, 0)) == (1, 0)


def whatever_was_put_comes_back(store: MailboxStoreUnderTest) -> None:
    """Labels, expiry, and that it has no place of its sender's choice."""
    put = replace(message(), body=b"\x01sealed", labels=b"\x01labels", expires_ns=7, sequence=99)
    with store.transaction():
        store.put_message(put)
    found = store.next_message(A)
    assert found is not None
    assert found == replace(put, sequence=found.sequence)


def who_has_messages_is_found_in_pages(store: MailboxStoreUnderTest) -> None:
    """In the order in which they came, and for the agents of one declaration; a place is never given twice."""
    other = AgentId("v/a")
    with store.transaction():
        for number, agent in enumerate((A, other, B, A)):
            store.put_message(message(number, agent))
    page = store.waiting_agents(W, 0, 2)
    assert [agent for _, agent in page] == [A, B]
    rest = store.waiting_agents(W, page[-1][0], 2)
    assert [agent for _, agent in rest] == [A]
    assert [agent for _, agent in store.waiting_agents(AgentId("v"), 0, _MANY)] == [other]
    with store.transaction():
        store.drop_message(RunId("m3"))
        store.put_message(message(4, C))
    assert [agent for _, agent in store.waiting_agents(W, rest[-1][0], _MANY)] == [C]


def a_later_message_takes_its_place_in_time(store: MailboxStoreUnderTest) -> None:
    """Nobody gets it before; then it stands behind what was there."""
    with store.transaction():
        store.put_message(message(0, A, due_ns=20))
        store.put_message(message(1, A, due_ns=10))
        store.put_message(message(2, A))
    assert store.earliest_due() == 10  # noqa: PLR2004 - of m1
    assert store.count_messages(A, _MANY) == 3  # noqa: PLR2004 - all of them
    assert [agent for _, agent in store.waiting_agents(W, 0, _MANY)] == [A]
    with store.transaction():
        assert list(store.ripen(9, _MANY)) == []
        assert list(store.ripen(10, _MANY)) == [A]
    assert store.earliest_due() == 20  # noqa: PLR2004 - of m0
    order = []
    with store.transaction():
        store.ripen(30, _MANY)
        while (found := store.next_message(A)) is not None:
            order.append(found.message_id)
            store.drop_message(found.message_id)
    assert order == ["m2", "m1", "m0"]
    assert store.earliest_due() is None


def beginnings_are_counted(store: MailboxStoreUnderTest) -> None:
    """Also where the message waits for another time meanwhile; of what is not there nothing."""
    with store.transaction():
        store.put_message(message(0, A, due_ns=5))
        store.ripen(5, _MANY)
        assert [store.begin_message(RunId("m0")) for _ in range(2)] == [1, 2]
        assert store.begin_message(RunId("m1")) == 0
    found = store.next_message(A)
    assert found is not None
    assert found.attempts == 2  # noqa: PLR2004 - both
    with store.transaction():
        store.rest_message(RunId("m0"))
        assert store.begin_message(RunId("m0")) == 1


def an_undone_message_was_never_put(store: MailboxStoreUnderTest) -> None:
    """A transaction that fails takes its messages with it, and brings back what it dropped."""
    with store.transaction():
        store.put_message(message(0))
    with suppress(InternalError), store.transaction():
        store.put_message(message(1))
        store.drop_message(RunId("m0"))
        store.put_message(message(2))
        raise InternalError("undo")
    assert store.get_message(RunId("m0")) is not None
    assert store.get_message(RunId("m1")) is None


MailboxCheck: TypeAlias = Callable[[MailboxStoreUnderTest], None]

MAILBOX_CHECKS: Final[tuple[MailboxCheck, ...]] = (
    messages_keep_their_order,
    whatever_was_put_comes_back,
    who_has_messages_is_found_in_pages,
    a_later_message_takes_its_place_in_time,
    beginnings_are_counted,
    an_undone_message_was_never_put,
)
