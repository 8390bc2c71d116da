"""The end of a trail, and what comes after it: `symbi audit show --last` and `--follow`.

Following waits without asking the store anything: SQLite tells by a counter in shared memory whether somebody committed.
Between two looks it sleeps on standard output itself, so that whoever closes the pipe ends it at once.
"""

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import typer

from symbi.audit.event import AuditEvent
from symbi.audit.query import Asked, EventFilter, EventSource, judged
from symbi.cli.output import EXIT_OK
from symbi.errors import InputError

LOOK_INTERVAL_MS: Final = 250  # between two looks at the store; how late an event may be shown


class GrowingSource(EventSource, Protocol):
    """A source that can be looked at again."""

    def refresh(self) -> bool:
        """Look again: whether anything was committed since the last look, which is then seen.

        Raises:
            StoreUnavailable: The store is gone, was replaced, or cannot be read while it changes.
        """


def newest(source: EventSource, wanted: EventFilter, count: int) -> Iterator[AuditEvent]:
    """The last events that fit, oldest first, without holding them.

    Raises:
        ChainBroken, StoreUnavailable: As `EventSource.select` and `judged`.
    """
    oldest: int | None = None
    for stored in source.select(wanted, limit=count, descending=True):
        oldest = stored.sequence
    if oldest is not None:
        yield from judged(wanted, source.select(wanted, oldest - 1))


def refuse_end(asked: Asked, wanted: EventFilter) -> None:
    """Return if a question has no end, so that it can be followed.

    Raises:
        InputError: It has one.
    """
    if wanted.until is not None or wanted.last is not None:
        named = "--until" if wanted.until is not None else str(asked.span)
        msg = f"`--follow` goes on without an end, and `{named}` sets one"
        raise InputError(msg, code="input.usage", hint="leave one of them out")


def later(source: GrowingSource, wanted: EventFilter, wait: Callable[[], bool]) -> Iterator[AuditEvent]:
    """What comes after the end that a source showed so far, each event once, until `wait` says that nobody listens.

    Args:
        source: Its snapshot ends where this begins.
        wanted: Which events.
        wait: Waits for a bounded time; False ends it.

    Raises:
        ChainBroken, StoreUnavailable: As `EventSource.select`, `judged` and `GrowingSource.refresh`.
    """
    after = source.event_count()
    while wait():
        if source.refresh():
            yield from judged(wanted, source.select(wanted, after))
            after = max(after, source.event_count())


def wait_for_more() -> bool:
    """Sleep for a bounded time, or until whoever reads standard output goes away; whether anybody is there."""
    sys.stdout.flush()
    reader = select.poll()
    try:
        reader.register(sys.stdout.fileno(), 0)  # hang-ups and errors are always told
    except (OSError, ValueError):
        return False
    return not reader.poll(LOOK_INTERVAL_MS)


@contextmanager
def quiet_end(*, ends: bool = False) -> Iterator[None]:
    """End in order where whoever reads standard output goes away, as `head` does; with `ends` also by Ctrl-C."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer has nowhere to go, and must not be tried again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
        raise typer.Exit(EXIT_OK) from None
    except KeyboardInterrupt:
        if not ends:
            raise
        raise typer.Exit(EXIT_OK) from None
