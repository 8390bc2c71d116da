"""The port to a place where code runs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from anyio.abc import ByteStream

from symbi.guard.action import ExecuteCode, RunContainer
from symbi.guard.permit import Permit
from symbi.sandbox.use import SandboxUse
from symbi.types import JsonValue, RunId, SecurityTier


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """What came out.

    Attributes:
        value: Value of the last expression, as JSON.
        stdout: What was printed, bounded.
        duration_s: Wall time in the sandbox.
    """

    value: JsonValue
    stdout: str
    duration_s: float


Ask: TypeAlias = Callable[[], Awaitable[SandboxUse | None]]
"""What a sandbox uses now, within a bound; None where it is gone or nobody can tell."""


class SandboxWatch(Protocol):
    """Is told when the code of a run is in a sandbox that is no process of ours."""

    def opens(self, run_id: RunId, ask: Ask, cpu_ns: int) -> None:
        """It begins; so much processor time has the sandbox used before."""

    def closes(self, run_id: RunId, last: SandboxUse | None) -> None:
        """It has ended, however; the sandbox may be gone."""

    def is_held(self, run_id: RunId) -> bool:
        """Whether something is done where the run uses more than was claimed: then measuring may cost something."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What came of a program.

    Attributes:
        code: Its exit code; of one that a signal ended, 128 and the signal's number.
        stdout, stderr: What it printed, bounded together; what is no UTF-8 in it is replaced.
        outputs: What it wrote, by name: JSON or text; null where it wrote none and failed besides.
        duration_s: Wall time in the sandbox.
    """

    code: int
    stdout: str
    stderr: str
    outputs: Mapping[str, JsonValue]
    duration_s: float


class WorkerWatch(Protocol):
    """Is told when a worker process runs the code of a run."""

    def begins(self, run_id: RunId, pid: int) -> None:
        """It begins."""

    def ends(self, run_id: RunId, pid: int) -> None:
        """It has ended, however; the worker may be gone."""


class SandboxDriver(Protocol):
    """Runs code of one tier; an async context manager that owns its processes."""

    @property
    def tier(self) -> SecurityTier:
        """The tier that this driver provides."""

    async def __aenter__(self) -> Self:
        """Start what is needed.

        Raises:
            SandboxUnavailable: This machine cannot provide the tier; the message says what to install.
        """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process, also after a cancellation."""

    async def run(self, permit: Permit[ExecuteCode]) -> SandboxResult:
        """Redeem the permit and run its code on its inputs within its limits.

        Code that raises is `CodeFailed`; a sandbox that fails is `SandboxUnavailable`.

        Raises:
            PermitRefused: The permit cannot be redeemed, or is for another tier or other code than its digest names.
            InputError: Code, inputs or limits are out of bounds.
            CodeFailed: The code raised, or its value is not JSON; `place` is in the code.
            TimeLimit: It ran out of time.
            MemoryLimit: It ran out of memory.
            OutputLimit: It printed or returned too much.
            StepLimit: It recursed too deeply.
            SandboxUnavailable: The sandbox died.
            Overloaded: None became free in time.
        """


class EgressSession(Protocol):
    """The network of one sandbox."""

    async def serve(self, stream: ByteStream) -> None:
        """Serve one connection of the sandbox until it ends; nothing that it says or does raises."""

    def totals(self) -> Mapping[str, JsonValue]:
        """What was used so far, for the closing record of the effect."""


class Egress(Protocol):
    """Grants networks."""

    async def open(self, permit: Permit[RunContainer]) -> EgressSession:
        """What serves a program that was granted a network: names are pinned to their addresses, secrets are there.

        Args:
            permit: Live; it is not spent.

        Raises:
            PermitRefused: It is not live.
            InputError: What is asked for is no grant, or a secret cannot stand in a header.
            Denied: A name has an address that is not public (`egress.address`).
            Unavailable: A name has no address, or there is no such secret.
        """


class CommandSandbox(Protocol):
    """Runs programs of images in one tier; whoever made it starts and ends it."""

    async def run_command(self, permit: Permit[RunContainer]) -> CommandResult:
        """Run the permit's program on its files within its limits; the permit is redeemed as the program begins.

        So it is known of one that did not come to begin, and may be asked for again. A program that fails is a result; a sandbox that fails is `SandboxUnavailable`.

        Raises:
            PermitRefused: The permit cannot be redeemed, or is for another tier.
            InputError: Command, names, inputs or limits are out of bounds.
            ScriptFailed: The configuration does not let a call set a variable.
            CodeFailed: There is no such program, it ended its own sandbox, or an output is not there, no file, no text
                or no JSON.
            TimeLimit: It ran out of time.
            MemoryLimit: It ran out of memory, or its inputs do not fit in.
            OutputLimit: It printed or wrote too much.
            SandboxUnavailable: The image is not named or not there, or has no Python, or the sandbox died, or there is
                no network.
            Overloaded: None became free in time.
        """
