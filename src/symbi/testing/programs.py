"""The contract of `symbi.sandbox.port.CommandSandbox`: what every driver that runs programs has to keep.

The image needs a `python3`; programs are texts for it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import anyio

from symbi.errors import CodeFailed, InputError, OutputLimit, PermitRefused, SandboxUnavailable, SymbiError, TimeLimit
from symbi.guard.action import ReadClock, RunContainer
from symbi.guard.permit import Authority, Permit
from symbi.sandbox.port import CommandResult, CommandSandbox
from symbi.testing.clock import ManualClock
from symbi.types import AgentId, EffectId, JsonValue, Principal, SecurityTier

_PRINCIPAL: Final = Principal(AgentId("contract"))
_SHORT_S: Final = 0.5  # a time limit for a program that never ends by itself
_LONG_S: Final = 20.0  # one that programs of these checks do not reach


@dataclass(frozen=True, slots=True)
class ProgramsUnderTest:
    """A running driver, the authority that it was made with, its tier, and an image that it may run."""

    driver: CommandSandbox
    authority: Authority
    tier: SecurityTier
    image: str

    def action(
        self,
        code: str,
        inputs: Mapping[str, JsonValue] | None = None,
        outputs: tuple[str, ...] = (),
        *,
        timeout_s: float = _LONG_S,
        image: str | None = None,
    ) -> RunContainer:
        """A text for Python, as a program."""
        return RunContainer(
            principal=_PRINCIPAL,
            image=image or self.image,
            command=("python3", "-c", code),
            tier=self.tier,
            inputs=inputs or {},
            outputs=outputs,
            timeout_s=timeout_s,
        )

    async def run(self, action: RunContainer) -> CommandResult:
        """Run a program under a fresh permit."""
        return await self.driver.run_command(self.authority.mint(EffectId("contract-effect"), action))

    async def fails(self, error: type[SymbiError], action: RunContainer) -> SymbiError:
        """Run a program that must end in exactly this class of error, and see that the driver still works after it."""
        caught = await _raised(error, self.run(action))
        assert (await self.run(self.action("print(42)"))).stdout == "42\n", "the driver does not work any more"
        return caught


ProgramCheck: TypeAlias = Callable[[ProgramsUnderTest], Awaitable[None]]


async def files_go_in_and_come_out(programs: ProgramsUnderTest) -> None:
    """Texts as they are, other values as canonical JSON; JSON by its name, text otherwise, and nothing undeclared."""
    code = (
        "import json\n"
        "told = [open('/tmp/in/t.txt').read(), open('/tmp/in/v').read()]\n"
        "json.dump(told, open('/tmp/out/told.json', 'w'))\n"
        "open('/tmp/out/told', 'w').write('[1]')\n"
        "open('/tmp/out/more', 'w').write('more')"
    )
    action = programs.action(code, {"t.txt": "é\n", "v": {"b": [1.0, None], "a": 2}}, ("told.json", "told"))
    result = await programs.run(action)
    assert result.outputs == {"told.json": ["é\n", '{"a":2,"b":[1,null]}'], "told": "[1]"}
    assert result.code == 0
    assert result.duration_s >= 0


async def a_program_that_fails_is_a_result(programs: ProgramsUnderTest) -> None:
    """Its exit code, what it said on both streams, what it wrote, and null for what it did not."""
    code = "import sys\nprint('a')\nprint('b', file=sys.stderr)\nopen('/tmp/out/x', 'w').write('x')\nsys.exit(5)"
    result = await programs.run(programs.action(code, outputs=("x", "y")))
    assert (result.code, result.stdout, result.stderr) == (5, "a\n", "b\n")
    assert result.outputs == {"x": "x", "y": None}


async def outputs_are_what_was_declared(programs: ProgramsUnderTest) -> None:
    """Not there, a link, or no file: the program's failure."""
    for code in ("1", "import os\nos.symlink('/etc/passwd', '/tmp/out/o')", "import os\nos.mkdir('/tmp/out/o')"):
        await programs.fails(CodeFailed, programs.action(code, outputs=("o",)))


async def limits_hold(programs: ProgramsUnderTest) -> None:
    """Time, and what is printed and written."""
    await programs.fails(TimeLimit, programs.action("while True:\n    pass", timeout_s=_SHORT_S))
    await programs.fails(OutputLimit, programs.action("while True:\n    print('x' * 1000)"))
    await programs.fails(OutputLimit, programs.action("open('/tmp/out/o', 'w').write('x' * (4 << 20))", outputs=("o",)))


async def what_cannot_be_asked_for_is_refused(programs: ProgramsUnderTest) -> None:
    """Names that are paths, limits that do not limit, images that nobody named."""
    for name in ("", "..", "a/b", "/a", "-a"):
        await _raised(InputError, programs.run(programs.action("1", outputs=(name,))))
        await _raised(InputError, programs.run(programs.action("1", {name: "x"})))
    for timeout_s in (0.0, -1.0, float("inf"), float("nan")):
        await _raised(InputError, programs.run(programs.action("1", timeout_s=timeout_s)))
    unnamed = await _raised(SandboxUnavailable, programs.run(programs.action("1", image=f"sha256:{64 * 'f'}")))
    assert unnamed.code == "unavailable.image"


async def refused_permits_run_no_program(programs: ProgramsUnderTest) -> None:
    """One that the gate did not mint, of another gate, spent, closed, for another kind of action, or for another tier."""
    action = programs.action("print(1)")
    run, mint = programs.driver.run_command, programs.authority.mint
    await _raised(PermitRefused, run(Permit(EffectId("forged"), action)))
    await _raised(PermitRefused, run(Authority(ManualClock()).mint(EffectId("foreign"), action)))
    spent = mint(EffectId("spent"), action)
    assert (await run(spent)).stdout == "1\n"
    await _raised(PermitRefused, run(spent))
    closed = mint(EffectId("closed"), action)
    programs.authority.close(closed)
    await _raised(PermitRefused, run(closed))
    other = mint(EffectId("other"), ReadClock(principal=_PRINCIPAL))
    await _raised(PermitRefused, run(other))  # type: ignore[arg-type]  # the type is what is attacked
    for tier in SecurityTier:
        if tier is not programs.tier:
            elsewhere = RunContainer(principal=_PRINCIPAL, image=programs.image, command=("python3",), tier=tier)
            await _raised(PermitRefused, run(mint(EffectId("tier"), elsewhere)))


async def a_cancelled_program_ends_and_the_driver_works_on(programs: ProgramsUnderTest) -> None:
    """Cancelling ends it at once, not at its time limit."""
    with anyio.fail_after(3 * _LONG_S):
        with anyio.move_on_after(_SHORT_S) as scope:
            await programs.run(programs.action("while True:\n    pass", timeout_s=10 * _LONG_S))
        assert scope.cancelled_caught
        assert (await programs.run(programs.action("print(42)"))).stdout == "42\n"


PROGRAM_CHECKS: Final[tuple[ProgramCheck, ...]] = (
    files_go_in_and_come_out,
    a_program_that_fails_is_a_result,
    outputs_are_what_was_declared,
    limits_hold,
    what_cannot_be_asked_for_is_refused,
    refused_permits_run_no_program,
    a_cancelled_program_ends_and_the_driver_works_on,
)


async def _raised(error: type[SymbiError], work: Awaitable[object]) -> SymbiError:
    """The error that work ends in, which must be of exactly this class."""
    try:
        answer: object = await work
    except SymbiError as caught:
        answer = caught
    assert type(answer) is error, f"{error.__name__} was expected, and this came: {answer!r}"
    return answer
