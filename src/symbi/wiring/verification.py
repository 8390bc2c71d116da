"""Verification on all cores: pieces of a trail are checked by processes of their own."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import Final

from symbi.audit.piece import Checked, Piece
from symbi.audit.verify import Run, in_process
from symbi.errors import Unavailable

SPREAD_FROM_EVENTS: Final = 20_000  # below that, starting processes takes longer than the work
AHEAD: Final = 3  # pieces that wait for each process; bounds memory


@contextmanager
def on_all_cores(events: int, *, cores: int | None = None) -> Iterator[Run]:
    """Where pieces of a trail are checked: in processes, one for each core, if there are enough events for that.

    Enter it before anything is opened, for processes may begin as copies of this one.

    Args:
        events: How many there are, roughly.
        cores: How many to use; all that this process may use if None.
    """
    count = cores or usable_cores()
    if count < 2 or events < SPREAD_FROM_EVENTS:  # noqa: PLR2004 - one core has nobody to share with
        yield in_process
        return
    # A copy starts at once; with threads about, which a copy may catch in the middle of something, a fresh start is safe.
    alone = sys.platform == "linux" and threading.active_count() == 1
    context = multiprocessing.get_context("fork" if alone else "spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_leave_interrupts_to_the_parent)
    try:
        for started in [pool.submit(os.getpid) for _ in range(count)]:
            started.result()
        yield partial(_spread, pool, count * AHEAD)
    except BrokenProcessPool as error:
        msg = "a process that verified a part of the trail was ended from outside"
        raise Unavailable(msg, code="unavailable.verification", hint="memory may be short; try again") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _spread(
    pool: ProcessPoolExecutor, ahead: int, check: Callable[[Piece], Checked | None], pieces: Iterator[Piece]
) -> Iterator[tuple[Piece, Checked | None]]:
    waiting: deque[tuple[Piece, Future[Checked | None]]] = deque()
    for piece in pieces:
        waiting.append((piece, pool.submit(check, piece)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
