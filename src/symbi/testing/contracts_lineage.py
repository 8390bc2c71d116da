"""The checks of the port that keeps which run asked for which, to be run on every store."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeAlias

from symbi.agent.journal import RunRecord, RunState, RunStore
from symbi.runtime.lineage import MAX_DEPTH, Descent, LineageStore
from symbi.types import AgentId, RunId


class LineageStoreUnderTest(LineageStore, RunStore, Protocol):
    """A store with its runs and its transactions."""

    def transaction(self) -> AbstractContextManager[None]:
        """One transaction."""


def descent(number: int) -> Descent:
    """The `number`-th run of a chain; run 0 is its root."""
    return Descent(RunId(f"run{number:02}"), RunId(f"run{number - 1:02}"), RunId("run00"), number)


def _run(number: int) -> RunRecord:
    return RunRecord(RunId(f"run{number:02}"), AgentId(f"agent{number}"), "/f", "0", b"{}", RunState.RUNNING)


def a_descent_comes_back_as_it_was_noted(store: LineageStoreUnderTest) -> None:
    """By its run; a run that nobody asked for has none."""
    with store.transaction():
        store.put_descent(descent(1))
    assert store.descent_of(RunId("run01")) == descent(1)
    assert store.descent_of(RunId("run00")) is None


def what_is_noted_stays(store: LineageStoreUnderTest) -> None:
    """Noted again, also otherwise: nothing changes."""
    with store.transaction():
        store.put_descent(descent(1))
        store.put_descent(Descent(RunId("run01"), RunId("other"), RunId("other"), 1))
    assert store.descent_of(RunId("run01")) == descent(1)


def a_chain_leads_to_the_root(store: LineageStoreUnderTest) -> None:
    """From the run upward, with the agents; one whose run is not there yet has no name."""
    with store.transaction():
        for number in range(3):
            store.put_run(_run(number))
        for number in range(1, 4):
            store.put_descent(descent(number))
    names = ["", "agent2", "agent1", "agent0"]
    found = list(store.chain_of(RunId("run03")))
    assert found == [(RunId(f"run{3 - index:02}"), AgentId(name)) for index, name in enumerate(names)]
    assert list(store.chain_of(RunId("run00"))) == [(RunId("run00"), AgentId("agent0"))]


def a_circle_ends(store: LineageStoreUnderTest) -> None:
    """Nobody writes one; who did could not hang the reader."""
    with store.transaction():
        store.put_descent(Descent(RunId("a"), RunId("b"), RunId("a"), 1))
        store.put_descent(Descent(RunId("b"), RunId("a"), RunId("a"), 1))
    assert len(store.chain_of(RunId("a"))) == MAX_DEPTH + 2


def children_are_found_by_who_asked(store: LineageStoreUnderTest) -> None:
    """Oldest first, and nobody else's."""
    with store.transaction():
        for child in ("c2", "c1"):
            store.put_descent(Descent(RunId(child), RunId("run00"), RunId("run00"), 1))
        store.put_descent(Descent(RunId("c3"), RunId("c1"), RunId("run00"), 2))
    assert [one.run_id for one in store.asked_by(RunId("run00"))] == ["c1", "c2"]
    assert list(store.asked_by(RunId("c2"))) == []


Check: TypeAlias = Callable[[LineageStoreUnderTest], None]

LINEAGE_CHECKS: Final[tuple[Check, ...]] = (
    a_descent_comes_back_as_it_was_noted,
    what_is_noted_stays,
    a_chain_leads_to_the_root,
    a_circle_ends,
    children_are_found_by_who_asked,
)
