"""The checks of the port of dead letters, to be run on every store."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final, Protocol, TypeAlias

from symbi.runtime.letters import MAX_CLOSED, DeadLetter, DeadLetterStore, LetterKind, LetterState, Wanted
from symbi.types import AgentId, RunId

_LATER: Final = "2026-02-01T00:00:00.000000000Z"


class DeadLetterStoreUnderTest(DeadLetterStore, Protocol):
    """A store with its transactions."""

    def transaction(self) -> AbstractContextManager[None]:
        """One transaction."""


def letter(number: int = 0, agent: str = "worker/1") -> DeadLetter:
    """An open letter; the greater its number, the newer it is."""
    at = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000000000Z"
    return DeadLetter(
        RunId(f"run-{number:06}"), LetterKind.RUN, AgentId(agent), "/agents/worker.symbi", "unavailable.tool_server", 7, at,
        inputs=b'{"x":1}', grant=b"{}", labels=b'{"x":{}}', error=b'{"message":"it is gone"}',
    )  # fmt: skip


def closed(open_letter: DeadLetter, state: LetterState = LetterState.DROPPED, became: str = "") -> DeadLetter:
    """The same letter, closed."""
    return replace(
        open_letter, state=state, inputs=None, grant=None, labels=None, error=None, became=RunId(became),
        closed_at=_LATER, note=b'{"by":"anna"}',
    )  # fmt: skip


def a_letter_comes_back_as_it_was_put(store: DeadLetterStoreUnderTest) -> None:
    """By its run; another run has none."""
    with store.transaction():
        assert store.put_letter(letter())
    assert store.get_letter(letter().run_id) == letter()
    assert store.get_letter(RunId("nobody")) is None


def a_run_has_one_letter(store: DeadLetterStoreUnderTest) -> None:
    """A second changes nothing, whether the first is open or closed."""
    with store.transaction():
        store.put_letter(letter())
        assert not store.put_letter(replace(letter(), attempts=99))
        assert store.get_letter(letter().run_id) == letter()
        store.close_letter(closed(letter()))
        assert not store.put_letter(letter())
    assert store.get_letter(letter().run_id) == closed(letter())


def a_letter_is_closed_once_and_loses_its_payload(store: DeadLetterStoreUnderTest) -> None:
    """Who closes it second is told so, and changes nothing; so does who closes what is not there."""
    replayed = closed(letter(), LetterState.REPLAYED, "run-new")
    with store.transaction():
        store.put_letter(letter())
        assert store.close_letter(replayed)
        assert not store.close_letter(closed(letter()))
        assert not store.close_letter(closed(letter(9)))
    assert store.get_letter(letter().run_id) == replayed
    assert store.get_letter(letter(9).run_id) is None


def letters_come_newest_first_by_agent_and_state(store: DeadLetterStoreUnderTest) -> None:
    """A declared agent stands for all its instances; one instance stands for itself; `beyond` passes over the newest."""
    with store.transaction():
        for number, agent in enumerate(("worker/1", "worker/2", "worker", "other")):
            store.put_letter(letter(number, agent))
        store.close_letter(closed(letter(1, "worker/2")))

    def found(agent: str | None, state: LetterState | None = None, limit: int = 100, beyond: int = 0) -> list[int]:
        wanted = Wanted(None if agent is None else AgentId(agent), state, limit, beyond)
        return [int(one.run_id.rpartition("-")[2]) for one in store.letters(wanted)]

    assert found(None) == [3, 2, 1, 0]
    assert found(None, LetterState.OPEN) == [3, 2, 0]
    assert found("worker") == [2, 1, 0]
    assert found("worker", LetterState.OPEN) == [2, 0]
    assert found("worker/2") == [1]
    assert found("worker/2", LetterState.OPEN) == []
    assert found("work") == []
    assert found("worker", LetterState.OPEN, 1) == [2]
    assert found("worker", LetterState.OPEN, 9, 1) == [0]
    assert found(None, None, 2, 1) == [2, 1]


def closed_letters_are_remembered_up_to_a_bound(store: DeadLetterStoreUnderTest) -> None:
    """The newest of an agent stay; open ones, and those of others, are not touched."""
    with store.transaction():
        store.put_letter(letter(50_000, "other"))
        store.close_letter(closed(letter(50_000, "other")))
        store.put_letter(letter(0))
        for number in range(1, MAX_CLOSED + 4):
            store.put_letter(letter(number))
            store.close_letter(replace(closed(letter(number)), closed_at=letter(number).at))
    kept = store.letters(Wanted(AgentId("worker"), LetterState.DROPPED, 10 * MAX_CLOSED))
    assert [one.run_id for one in kept] == [letter(number).run_id for number in range(MAX_CLOSED + 3, 3, -1)]
    assert store.get_letter(letter(0).run_id) == letter(0)
    assert store.get_letter(letter(50_000).run_id) is not None


DeadLetterCheck: TypeAlias = Callable[[DeadLetterStoreUnderTest], None]

DEAD_LETTER_CHECKS: Final[tuple[DeadLetterCheck, ...]] = (
    a_letter_comes_back_as_it_was_put,
    a_run_has_one_letter,
    a_letter_is_closed_once_and_loses_its_payload,
    letters_come_newest_first_by_agent_and_state,
    closed_letters_are_remembered_up_to_a_bound,
)
"""Every check."""
