"""Pure computation in the Monty interpreter: a Python of its own, in worker processes, with no way out.

The code gets its inputs and nothing else: no file, no mount, no network, no host function, an empty environment.
What it sees of the world is fixed, so that a run can be replayed and gives the same: the clock stands at the Unix
epoch, processor time is zero, sleeping returns at once, `random` starts from one seed. Each run has a session of
its own. Time and memory limits hold inside the worker, where code cannot catch them; behind them stands a deadline in
this process that kills the worker.

The last expression is the value, as JSON (`symbi.sandbox.values`). A cyclic list or dict reaches us cut by the
interpreter, with the text `[...]` or `{...}` in it; a function or another object without a JSON form in a text form
of its own. Code that raises `MemoryError`, `TimeoutError` or `RecursionError` itself is taken at its word.
"""

import asyncio
import os
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Self

import anyio
import anyio.from_thread
import anyio.lowlevel
import pydantic_monty as monty

from symbi.clock import Clock, SystemClock
from symbi.errors import (
    CodeFailed,
    MemoryLimit,
    OutputLimit,
    Overloaded,
    Place,
    SandboxUnavailable,
    StepLimit,
    SymbiError,
    TimeLimit,
)
from symbi.guard.action import ExecuteCode
from symbi.guard.permit import Authority, Permit
from symbi.sandbox.confinement import AVAILABLE, confined_program, confinement_of
from symbi.sandbox.pool import WHAT_TO_INSTALL
from symbi.sandbox.port import SandboxResult, WorkerWatch
from symbi.sandbox.request import CODE_FILE, MAX_STDOUT_BYTES, MAX_TIMEOUT_S, VALUE_BOUNDS, check_request, plain_inputs
from symbi.sandbox.values import copy_json
from symbi.types import JsonValue, RunId, SecurityTier

MAX_RECURSION_DEPTH: Final = 256  # calls inside calls; as deep as an agent's body may nest
MAX_HOST_CALLS: Final = 1_000  # refused file calls and unknown names in one run; each is a round trip to us

DEFAULT_WORKERS: Final = 2  # processes at once; an idle one takes about 10 MB
RUNS_PER_WORKER: Final = 500  # then it is replaced, so that nothing builds up in it
CHECKOUT_TIMEOUT_S: Final = 30.0  # waiting for a free worker
RETRY_AFTER_S: Final = 1.0  # what a caller that found none is told
GRACE_S: Final = 1.0  # what a worker gets to stop by itself before it is killed
BACKSTOP_S: Final = 3.0  # after its limit a run that has not ended is given up, whatever its worker and the pool do
STOP_TIMEOUT_S: Final = 10.0  # ending all workers
SETTLE_S: Final = 0.005  # see `__aexit__`
MAX_MESSAGE_CHARS: Final = 300  # of an exception's own text

_WORLD: Final = monty.OSPolicy(
    datetime=datetime(1970, 1, 1, tzinfo=UTC),
    timezone="utc",
    sleep="zero",
    process_time="zero",
    random_start={"seed": 0},
)
_SUBSET_HINT: Final = "the interpreter knows a part of Python and its library only"


class MontySandbox:
    """A `symbi.sandbox.port.SandboxDriver` of the interpreter tier.

    Args:
        authority: Where permits are redeemed.
        workers: Runs at once; more wait.
        clock: Measures how long runs take.
        watch: Is told which worker runs the code of which run.
        binary: The worker's program; the one that is installed with `pydantic-monty` if not given. The
            environment (`MONTY_BIN`, `PATH`) is not asked: who sets it would choose what hostile code runs in.
    """

    def __init__(
        self,
        authority: Authority,
        *,
        workers: int = DEFAULT_WORKERS,
        clock: Clock | None = None,
        binary: Path | None = None,
        watch: WorkerWatch | None = None,
    ) -> None:
        self._authority = authority
        self._workers = workers
        self._clock = clock or SystemClock()
        self._binary = binary
        self._watch = watch
        self._pool: monty.AsyncMonty | None = None
        self._started: ExitStack = ExitStack()

    @property
    def tier(self) -> SecurityTier:
        """The interpreter."""
        return SecurityTier.INTERPRETER

    async def __aenter__(self) -> Self:
        """Start a worker and see that it computes.

        Raises:
            SandboxUnavailable: It is not installed, or does not answer.
        """
        pool = monty.AsyncMonty(
            binary_path=self._started.enter_context(confined_program(self._binary or _installed_binary())),
            min_processes=1,
            max_processes=self._workers,
            checkout_timeout=CHECKOUT_TIMEOUT_S,
            request_timeout=MAX_TIMEOUT_S + GRACE_S,
            max_checkouts_per_worker=RUNS_PER_WORKER,
            feed_duration_limit_grace=GRACE_S,
            turn_duration_limit_grace=GRACE_S,
        )
        try:
            await pool.__aenter__()
        except (RuntimeError, OSError) as error:
            self._started.close()
            raise _no_worker(error) from error
        except BaseException:
            self._started.close()
            raise
        self._pool = pool
        try:
            await self._answers(pool)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End every worker, also after a cancellation."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        self._started.close()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(STOP_TIMEOUT_S):
                await pool.__aexit__(None, None, None)
            # A thread of the library that has just handed us its last result still wants the interpreter lock, and
            # before Python 3.14 a process that exits first is aborted by it. Blocking once lets the thread end.
            await anyio.sleep(SETTLE_S)

    async def run(self, permit: Permit[ExecuteCode]) -> SandboxResult:
        """Run the permit's code; see the port."""
        action = self._authority.redeem(permit, ExecuteCode)
        check_request(action, SecurityTier.INTERPRETER)
        pool = self._pool
        if pool is None:
            msg = "the interpreter is not running"
            raise SandboxUnavailable(msg)
        inputs = plain_inputs(action.inputs)
        started_s = self._clock.monotonic_s()
        value, stdout = await _feed(pool, action, inputs, self._watch)
        return SandboxResult(value, stdout, self._clock.monotonic_s() - started_s)

    async def _answers(self, pool: monty.AsyncMonty) -> None:
        """Compute something, so that a program that is no interpreter is found at once."""
        try:
            async with pool.checkout(limits={"max_feed_duration_secs": GRACE_S}, os_policy=_WORLD) as session:
                with anyio.fail_after(STOP_TIMEOUT_S):
                    answer = await session.feed_run("6 * 7")
                _is_confined(session.worker_pid)
        except (monty.MontyError, RuntimeError, OSError) as error:
            raise _no_worker(error) from error
        if answer != 6 * 7:
            msg = "the interpreter computes wrongly"
            raise SandboxUnavailable(msg, hint=WHAT_TO_INSTALL[SecurityTier.INTERPRETER])


class _Output:
    """Takes what is printed, on a thread of the library, and stops the run once it is too much."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self._pieces: list[str] = []
        self._left = MAX_STDOUT_BYTES
        self.full = False

    def __call__(self, _stream: Literal["stdout", "stderr"], text: str) -> None:
        if self.full:
            return
        self._left -= len(text.encode("utf-8", "replace"))
        if self._left >= 0:
            self._pieces.append(text)
            return
        self.full = True
        self._pieces.clear()
        with suppress(RuntimeError):  # the loop has ended, and the run with it
            self._loop.call_soon_threadsafe(self._scope.cancel)

    @property
    def text(self) -> str:
        return "".join(self._pieces)


async def _feed(
    pool: monty.AsyncMonty, action: ExecuteCode, inputs: Mapping[str, JsonValue], watch: WorkerWatch | None
) -> tuple[JsonValue, str]:
    """Run code in a session of its own, and map everything that can go wrong."""
    raw: object = None
    began = False
    with anyio.CancelScope() as scope:
        output = _Output(scope)
        try:
            checkout = pool.checkout(
                script_name=CODE_FILE,
                limits={
                    "max_feed_duration_secs": action.timeout_s,
                    "max_turn_duration_secs": action.timeout_s,
                    "max_memory": action.memory_mib << 20,
                    "max_recursion_depth": MAX_RECURSION_DEPTH,
                    "max_suspensions": MAX_HOST_CALLS,
                    "max_total_sleep_secs": 0.0,
                },
                assert_message_annotations=False,
                os_policy=_WORLD,
            )
            async with _given_back(checkout) as session:
                scope.deadline = anyio.current_time() + action.timeout_s + BACKSTOP_S
                began = True
                with _watched(watch, action.run_id, session.worker_pid):
                    raw = await session.feed_run(action.code, inputs=dict(inputs), print_callback=output)
                scope.deadline = float("inf")
        except monty.MontyError as error:
            if not output.full:
                raise _translated(error, action, began=began) from None
        except TimeoutError:
            msg = f"no interpreter became free within {CHECKOUT_TIMEOUT_S:g} s"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S) from None
        except (RuntimeError, OSError) as error:
            raise _no_worker(error) from error
    if output.full:
        msg = f"the code printed more than {MAX_STDOUT_BYTES} bytes"
        raise OutputLimit(msg, max_bytes=MAX_STDOUT_BYTES)
    if scope.cancelled_caught:
        raise _time_limit(action)
    return copy_json(raw, VALUE_BOUNDS, wrong=CodeFailed, large=OutputLimit), output.text


@asynccontextmanager
async def _given_back(checkout: monty.AsyncMontySession) -> AsyncIterator[monty.AsyncMontySession]:
    """A session whose worker goes back to the pool also where its run was cancelled, or the pool would be without it for ever."""
    session = await checkout.__aenter__()
    try:
        yield session
    finally:
        with anyio.move_on_after(STOP_TIMEOUT_S, shield=True):
            await checkout.__aexit__(*sys.exc_info())


@contextmanager
def _watched(watch: WorkerWatch | None, run_id: RunId, pid: int | None) -> Iterator[None]:
    """While a worker runs code."""
    if watch is None or pid is None:
        yield
        return
    watch.begins(run_id, pid)
    try:
        yield
    finally:
        watch.ends(run_id, pid)


def _translated(error: monty.MontyError, action: ExecuteCode, *, began: bool) -> SymbiError:
    """The one place where errors of the interpreter become ours. A worker that dies with code in it was brought down by it."""
    if isinstance(error, monty.MontyCrashedError):
        if error.timed_out:
            return _time_limit(action)
        if began:
            msg = f"the interpreter's worker died while it ran the code: {error}"
            return CodeFailed(msg, exception="SystemExit")
        msg = f"the interpreter's worker died: {error}"
        return SandboxUnavailable(msg, code="unavailable.sandbox_died")
    if not isinstance(error, monty.MontySyntaxError | monty.MontyRuntimeError):
        msg = f"the interpreter refused the run: {error}"
        return SandboxUnavailable(msg)
    cause = error.exception()
    place = _place(error.traceback())
    if isinstance(error, monty.MontySyntaxError):
        return CodeFailed(f"the code does not parse: {_short(cause)}", place=place, exception="SyntaxError")
    if isinstance(cause, TimeoutError):
        return _time_limit(action, place)
    if isinstance(cause, MemoryError):
        msg = f"the code needed more than {action.memory_mib} MiB"
        return MemoryLimit(msg, place=place, memory_mib=action.memory_mib)
    if isinstance(cause, RecursionError):
        msg = f"the code called itself deeper than {MAX_RECURSION_DEPTH} times"
        return StepLimit(msg, place=place, max_depth=MAX_RECURSION_DEPTH)
    name = type(cause).__name__
    hint = _SUBSET_HINT if isinstance(cause, NotImplementedError | ImportError) else None
    return CodeFailed(f"the code raised `{name}: {_short(cause)}`", place=place, hint=hint, exception=name)


def _time_limit(action: ExecuteCode, place: Place | None = None) -> TimeLimit:
    msg = f"the code ran longer than {action.timeout_s:g} s"
    return TimeLimit(msg, place=place, timeout_s=action.timeout_s)


def _place(frames: list[monty.Frame]) -> Place | None:
    """The innermost position that is in the code itself and not in a string that it evaluates."""
    for frame in reversed(frames):
        if frame.filename != "<string>":
            return Place(CODE_FILE, frame.line, frame.column)
    return None


def _short(cause: BaseException) -> str:
    text = " ".join(str(cause).split()).replace("`", "'")
    return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[:MAX_MESSAGE_CHARS]}…"


def _is_confined(pid: int | None) -> None:
    """Ask the kernel what the worker is held to.

    Raises:
        SandboxUnavailable: It could do more than compute.
    """
    if not AVAILABLE:
        return
    try:
        found = None if pid is None else confinement_of(pid)
    except (OSError, ValueError) as error:
        raise _no_worker(error) from error
    if found is None or not found.holds:
        msg = f"the interpreter's worker is not confined: {found}"
        raise SandboxUnavailable(msg, code="unavailable.isolation")


def _no_worker(error: Exception) -> SandboxUnavailable:
    msg = f"the interpreter cannot be started: {error}"
    return SandboxUnavailable(msg, hint=WHAT_TO_INSTALL[SecurityTier.INTERPRETER])


def _installed_binary() -> Path:
    """The worker's program in this environment.

    Raises:
        SandboxUnavailable: It is not there.
    """
    name = "monty.exe" if os.name == "nt" else "monty"
    for scheme in (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")):
        candidate = Path(sysconfig.get_path("scripts", scheme)) / name
        if candidate.is_file():
            return candidate
    msg = "the interpreter's program is not in this environment"
    raise SandboxUnavailable(msg, hint=WHAT_TO_INSTALL[SecurityTier.INTERPRETER])
