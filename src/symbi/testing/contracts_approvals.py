"""The checks of the approvals port, to be run on every store."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final, Protocol, TypeAlias

from symbi.crypto.canonical import canonical_json
from symbi.errors import InternalError
from symbi.guard.approval import APPROVAL_MOVES, ApprovalRecord, ApprovalState, ApprovalStore, Vote, sealed
from symbi.types import AgentId, EffectId, RunId

_MANY: Final = 5


class ApprovalStoreUnderTest(ApprovalStore, Protocol):
    """A store with its transactions."""

    def transaction(self) -> AbstractContextManager[None]:
        """One transaction."""


def approval(number: int = 0, place: str | None = None) -> ApprovalRecord:
    """A record that waits."""
    facts = canonical_json({"effect_id": f"e{number}", "keep_arguments": True})
    return ApprovalRecord(
        id=EffectId(f"e{number}"),
        run_id=RunId("r"),
        position=number,
        agent_id=AgentId("a"),
        place=f"run:r:{number}" if place is None else place,
        facts=facts,
        digest=sealed(facts),
        shown=b"{}",
        state=ApprovalState.WAITING,
        votes=(),
        created_at="2026-01-01T00:00:00.000000000Z",
        expires_at="2026-01-02T00:00:00.000000000Z",
    )


def a_record_comes_back_as_it_was_put(store: ApprovalStoreUnderTest) -> None:
    """With its votes, by its id and by its place."""
    votes = (Vote("ada", True, "t", 7, "", "fine"), Vote("bob", False, "t", None, "ff", ""))
    record = replace(approval(), votes=votes, shown=None)
    with store.transaction():
        store.put_approval(record)
    assert store.get_approval("e0") == record
    assert store.approval_at("run:r:0") == record
    assert store.get_approval("nothing") is None
    assert store.approval_at("elsewhere") is None


def an_id_and_a_place_are_taken_once(store: ApprovalStoreUnderTest) -> None:
    """A second one of either is refused; no place at all is no place to take."""
    with store.transaction():
        store.put_approval(approval(0))
        _refused(lambda: store.put_approval(approval(0, "other")))
        _refused(lambda: store.put_approval(approval(1, "run:r:0")))
        store.put_approval(approval(2, ""))
        store.put_approval(approval(3, ""))
    assert store.approval_at("") is None


def only_the_moves_of_the_table_are_made(store: ApprovalStoreUnderTest) -> None:
    """Every pair of states."""
    number = 0
    for was in ApprovalState:
        for then in ApprovalState:
            number += 1
            before = replace(approval(number), state=was)
            after = replace(before, state=then, revision=2)
            with store.transaction():
                store.put_approval(before)
                if then in APPROVAL_MOVES[was]:
                    store.move_approval(after, before)
                else:
                    _refused(lambda after=after, before=before: store.move_approval(after, before))  # type: ignore[misc]  # bound now
            kept = store.get_approval(before.id)
            assert kept == (after if then in APPROVAL_MOVES[was] else before)


def who_comes_second_is_refused(store: ApprovalStoreUnderTest) -> None:
    """Two writes from one revision: the first counts."""
    record = approval()
    with store.transaction():
        store.put_approval(record)
    with store.transaction():
        store.move_approval(record.moved(ApprovalState.GRANTED), record)
        _refused(lambda: store.move_approval(record.moved(ApprovalState.DENIED), record))
        _refused(lambda: store.move_approval(replace(record, state=ApprovalState.GRANTED), record))
    stored = store.get_approval("e0")
    assert stored is not None
    assert stored.state is ApprovalState.GRANTED


def the_newest_come_first_and_no_more_than_asked_for(store: ApprovalStoreUnderTest) -> None:
    """In the states that were asked for."""
    with store.transaction():
        for number in range(_MANY):
            store.put_approval(approval(number))
        first = approval(0)
        store.move_approval(first.moved(ApprovalState.DENIED), first)
    waiting = store.approvals([ApprovalState.WAITING], 3)
    assert [record.id for record in waiting] == ["e4", "e3", "e2"]
    assert [record.id for record in store.approvals([ApprovalState.DENIED, ApprovalState.USED], 9)] == ["e0"]
    assert list(store.approvals([], 9)) == []


ApprovalCheck: TypeAlias = Callable[[ApprovalStoreUnderTest], None]

APPROVAL_CHECKS: Final[tuple[ApprovalCheck, ...]] = (
    a_record_comes_back_as_it_was_put,
    an_id_and_a_place_are_taken_once,
    only_the_moves_of_the_table_are_made,
    who_comes_second_is_refused,
    the_newest_come_first_and_no_more_than_asked_for,
)


def _refused(work: Callable[[], None]) -> None:
    try:
        work()
    except InternalError:
        return
    msg = "it was not refused"
    raise AssertionError(msg)
