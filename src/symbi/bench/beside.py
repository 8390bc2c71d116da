"""What stands beside the figures of the bus: an event loop's own queue, and actors of pykka, with plain messages."""

import asyncio
import threading
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter_ns, process_time_ns
from typing import Any, Final

import anyio

from symbi.bench.measure import Measurement, Scale, latency, missing, rate, single
from symbi.errors import InternalError

BODY: Final = b"x" * 256
ASKED: Final = 2_000
PATIENCE_S: Final = 300.0
ACTORS: Final = "pykka"

_TOLD: Final = "plain messages told by one actor to one of pykka, beside it"
_ANSWERED: Final = "request and answer of an actor of pykka, beside it"
_ALONE: Final = "no crypto, no policy, no limits, nothing on record"
_MISSING: Final = f"{ACTORS} is not installed; `make bench` installs it"


async def beside_rate(count: int) -> list[Measurement]:
    """BUS-4: so many messages without anything around them."""
    return [await _queue(count), *await anyio.to_thread.run_sync(_told, count)]


async def beside_time(scale: Scale) -> list[Measurement]:
    """BUS-5: how long an answer takes without anything around it."""
    return [await anyio.to_thread.run_sync(_answered, scale.of(ASKED, least=50))]


async def _queue(count: int) -> Measurement:
    queue: asyncio.Queue[bytes] = asyncio.Queue(1024)

    async def put() -> None:
        for _ in range(count):
            await queue.put(BODY)

    began = perf_counter_ns()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put)
        for _ in range(count):
            await queue.get()
    return rate(
        "BUS-4", "plain bytes through an asyncio.Queue, beside it", count, perf_counter_ns() - began, unit="messages/s",
        target=None, method=f"{_ALONE}: what the event loop alone costs",
    )  # fmt: skip


def _told(count: int) -> list[Measurement]:
    """As many messages as are told to one actor, by the thread of another."""
    metric = f"processor time of {_TOLD}"
    if find_spec(ACTORS) is None:
        return [
            missing("BUS-4", _TOLD, unit="messages/s", why=_MISSING),
            missing("BUS-4", metric, unit="us", why=_MISSING),
        ]
    actors: Any = import_module(ACTORS)
    all_came = threading.Event()

    class Taking(actors.ThreadingActor):  # type: ignore[misc] # its types are not here where it is not installed
        left = count

        def on_receive(self, _message: bytes) -> None:
            self.left -= 1
            if not self.left:
                all_came.set()

    class Telling(actors.ThreadingActor):  # type: ignore[misc] # likewise
        def on_receive(self, to: Any) -> None:
            for _ in range(count):
                to.tell(BODY)

    taking, telling = Taking.start(), Telling.start()
    try:
        began, cpu = perf_counter_ns(), process_time_ns()
        telling.tell(taking)
        if not all_came.wait(PATIENCE_S):
            msg = "messages of a measurement did not come"
            raise InternalError(msg)
        took, cpu = perf_counter_ns() - began, process_time_ns() - cpu
    finally:
        telling.stop()
        taking.stop()
    method = f"{len(BODY)} bytes, two actors of which each has a thread; {_ALONE}"
    return [
        rate("BUS-4", _TOLD, count, took, unit="messages/s", target=None, method=method),
        single("BUS-4", metric, cpu / count / 1000, unit="us", n=count, target=None, method=method),
    ]


def _answered(count: int) -> Measurement:
    if find_spec(ACTORS) is None:
        return missing("BUS-5", _ANSWERED, unit="ms", why=_MISSING)
    actors: Any = import_module(ACTORS)

    class Answering(actors.ThreadingActor):  # type: ignore[misc] # its types are not here where it is not installed
        def on_receive(self, message: bytes) -> bytes:
            return message

    answering = Answering.start()
    took: list[int] = []
    try:
        for _ in range(count + 1):
            began = perf_counter_ns()
            answering.ask(BODY, timeout=PATIENCE_S)
            took.append(perf_counter_ns() - began)
    finally:
        answering.stop()
    return latency(
        "BUS-5", _ANSWERED, took[1:], unit="ms", target=None,
        method=f"{len(BODY)} bytes, one after the other, asked by another thread; {_ALONE}",
    )  # fmt: skip
