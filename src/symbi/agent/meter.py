"""What a run uses of the process that it works in: measured where its body takes its steps."""

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, Final, Protocol, TypeVar

from symbi.clock import thread_cpu_ns

T = TypeVar("T")


class Meter(Protocol):
    """Takes what a run uses; nothing in it waits."""

    def worked(self, cpu_ns: int) -> None:
        """Its body has used so many nanoseconds of a processor."""

    def acted(self) -> None:
        """It has had an effect; what is on record from before a restart is none."""

    def moved(self, out_bytes: int, in_bytes: int) -> None:
        """A tool was given, and has answered, so many bytes of JSON."""

    def check(self) -> None:
        """Asked between steps of the body.

        Raises:
            BudgetExceeded: The run has used up its time; its body cannot catch that.
        """


class Unmetered:
    """Of a run that nobody measures."""

    def worked(self, cpu_ns: int) -> None:
        """Nothing is kept."""

    def acted(self) -> None:
        """Nothing is kept."""

    def moved(self, out_bytes: int, in_bytes: int) -> None:
        """Nothing is kept."""

    def check(self) -> None:
        """It may always go on."""


UNMETERED: Final = Unmetered()


@coroutine
def metered(
    body: Coroutine[Any, Any, T], meter: Meter, cpu_ns: Callable[[], int] = thread_cpu_ns
) -> Generator[Any, Any, T]:
    """Drive a coroutine, and tell a meter what each of its steps took of the processor; while it waits, others work.

    Args:
        body: What is awaited in its place.
        meter: Is told.
        cpu_ns: Processor time of the thread, in nanoseconds.
    """
    step: Callable[[Any], Any] = body.send
    value: Any = None
    while True:
        began = cpu_ns()
        try:
            waits_for = step(value)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what a coroutine of T ends with
        finally:
            meter.worked(cpu_ns() - began)
        try:
            value = yield waits_for
            step = body.send
        except GeneratorExit:
            body.close()
            raise
        except BaseException as error:  # noqa: BLE001 - whatever is thrown in here is meant for the body
            step, value = body.throw, error
