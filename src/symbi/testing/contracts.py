"""One suite of checks per port, to be run on every adapter.

A check takes what it needs, makes its own permits and raises `AssertionError` where the adapter breaks the port's
contract. Tests parametrise over the tuples here, so that each check has a name of its own in a report.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import anyio

from symbi.errors import (
    CodeFailed,
    InputError,
    MemoryLimit,
    OutputLimit,
    PermitRefused,
    StepLimit,
    SymbiError,
    TimeLimit,
)
from symbi.guard.action import ExecuteCode, ReadClock
from symbi.guard.permit import Authority, Permit
from symbi.sandbox.port import SandboxDriver, SandboxResult
from symbi.testing.clock import ManualClock
from symbi.types import AgentId, EffectId, JsonValue, Principal, SecurityTier

_PRINCIPAL: Final = Principal(AgentId("contract"))
_SHORT_S: Final = 0.3  # a time limit for code that never ends by itself
_LONG_S: Final = 20.0  # a time limit that code of these checks does not reach


@dataclass(frozen=True, slots=True)
class SandboxUnderTest:
    """A running driver and the authority that it was made with."""

    driver: SandboxDriver
    authority: Authority

    def action(
        self,
        code: str,
        inputs: Mapping[str, JsonValue] | None = None,
        *,
        timeout_s: float = _LONG_S,
        memory_mib: int = 64,
        cpu_milli: int = 1_000,
    ) -> ExecuteCode:
        """Code for the driver's own tier, with its true digest."""
        return ExecuteCode(
            principal=_PRINCIPAL,
            code=code,
            code_digest=hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest(),
            tier=self.driver.tier,
            inputs=inputs or {},
            memory_mib=memory_mib,
            cpu_milli=cpu_milli,
            timeout_s=timeout_s,
        )

    async def run(
        self,
        code: str,
        inputs: Mapping[str, JsonValue] | None = None,
        *,
        timeout_s: float = _LONG_S,
        memory_mib: int = 64,
        cpu_milli: int = 1_000,
    ) -> SandboxResult:
        """Run code under a fresh permit."""
        action = self.action(code, inputs, timeout_s=timeout_s, memory_mib=memory_mib, cpu_milli=cpu_milli)
        return await self.driver.run(self.authority.mint(EffectId("contract-effect"), action))

    async def fails(self, error: type[SymbiError], code: str, *, timeout_s: float = _LONG_S) -> SymbiError:
        """Run code that must end in exactly this class of error, and see that the driver still works after it."""
        caught = await _raised(error, self.run(code, timeout_s=timeout_s))
        assert (await self.run("20 + 22")).value == 42, f"the driver does not work after {error.__name__}"  # noqa: PLR2004 - the sum
        return caught


SandboxCheck: TypeAlias = Callable[[SandboxUnderTest], Awaitable[None]]


async def value_is_that_of_the_last_expression(sandbox: SandboxUnderTest) -> None:
    """Loops, dicts, text methods and sorting do; a last statement that is no expression gives null."""
    code = (
        "counts = {}\n"
        "for word in text.lower().split():\n"
        "    counts[word] = counts.get(word, 0) + 1\n"
        "sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:2]"
    )
    result = await sandbox.run(code, {"text": "to be or not To be"})
    assert result.value == [["be", 2], ["to", 2]]
    assert result.stdout == ""
    assert result.duration_s >= 0
    assert (await sandbox.run("x = 1")).value is None


async def inputs_arrive_as_json(sandbox: SandboxUnderTest) -> None:
    """Every kind of JSON value, nested, goes in and comes out unchanged; tuples come out as lists."""
    given: dict[str, JsonValue] = {"a": [1, -2.5, True, None, "é\n\U0001f600"], "b": {"c": {}, "d": []}, "n": 2**53 - 1}
    result = await sandbox.run("[x, y, type(x).__name__]", {"x": given, "y": (1, (2,))})
    assert result.value == [given, [1, [2]], "dict"]


async def names_of_inputs_must_be_names(sandbox: SandboxUnderTest) -> None:
    """An input that code could not name is refused, not dropped."""
    for name in ("", "1x", "a b", "class", "a.b"):
        await _raised(InputError, sandbox.run("1", {name: 1}))


async def what_is_printed_is_kept_apart_from_the_value(sandbox: SandboxUnderTest) -> None:
    """Printed text comes back in its order."""
    result = await sandbox.run("print('one', 2)\nprint('three', end='')\n'value'")
    assert (result.value, result.stdout) == ("value", "one 2\nthree")


async def runs_share_nothing(sandbox: SandboxUnderTest) -> None:
    """Neither names, nor changed modules, nor changed inputs reach a later run, also after a failure."""
    kept: dict[str, JsonValue] = {"list": [1]}
    await sandbox.run("secret = 'left behind'\nx['list'].append(2)\nx['new'] = 1", {"x": kept})
    assert kept == {"list": [1]}
    await sandbox.fails(CodeFailed, "secret = 'left behind'\n1 / 0")
    for _ in range(4):
        error = await sandbox.fails(CodeFailed, "secret")
        assert error.fields["exception"] == "NameError"


async def code_that_raises_has_a_place(sandbox: SandboxUnderTest) -> None:
    """The error names the exception, and the line where it was raised."""
    error = await sandbox.fails(CodeFailed, "def f(x):\n    return 1 / x\nf(1)\nf(0)\n")
    assert error.place is not None
    assert error.place.line == 2  # noqa: PLR2004 - the line of the division
    assert "ZeroDivisionError" in error.message


async def code_that_does_not_parse_has_a_place(sandbox: SandboxUnderTest) -> None:
    """A syntax error is the code's failure too."""
    error = await sandbox.fails(CodeFailed, "x = 1\ny = = 2\n")
    assert error.place is not None
    assert error.place.line == 2  # noqa: PLR2004 - the line of the mistake


async def values_that_are_not_json_fail(sandbox: SandboxUnderTest) -> None:
    """Nothing is rounded, renamed or guessed on the way out."""
    for code in (
        "{1, 2}",
        "b'bytes'",
        "1j",
        "float('nan')",
        "[float('inf')]",
        "2 ** 53",
        "-(2 ** 53)",
        "{1: 'int key'}",
        "{'a': [{'b': {(1, 2): 3}}]}",
        "...",
        "x = []\nfor _ in range(5000):\n    x = [x]\nx",
    ):
        await sandbox.fails(CodeFailed, code)


async def time_is_limited(sandbox: SandboxUnderTest) -> None:
    """Code that never ends is ended, and cannot catch its end."""
    await sandbox.fails(TimeLimit, "while True:\n    pass", timeout_s=_SHORT_S)
    stubborn = "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"
    await sandbox.fails(TimeLimit, stubborn, timeout_s=_SHORT_S)


async def memory_is_limited(sandbox: SandboxUnderTest) -> None:
    """One large allocation and many small ones stop at the limit."""
    await sandbox.fails(MemoryLimit, "len('x' * (10 * 1024 ** 3))")
    await sandbox.fails(MemoryLimit, "kept = []\nwhile True:\n    kept.append('x' * 10000)")


async def recursion_is_limited(sandbox: SandboxUnderTest) -> None:
    """Endless recursion is an error of its own."""
    await sandbox.fails(StepLimit, "def f(n):\n    return f(n + 1)\nf(0)")


async def output_is_limited(sandbox: SandboxUnderTest) -> None:
    """Endless printing and a huge value are stopped, the first long before the time is up."""
    with anyio.fail_after(_LONG_S):
        await sandbox.fails(OutputLimit, "while True:\n    print('x' * 1000)", timeout_s=10 * _LONG_S)
    await sandbox.fails(OutputLimit, "'x' * (8 * 1024 ** 2)")
    await sandbox.fails(OutputLimit, "[['x' * 1000] * 1000] * 1000")


async def refused_permits_run_nothing(sandbox: SandboxUnderTest) -> None:
    """A permit that is forged, foreign, spent, closed, or for something else is refused."""
    action = sandbox.action("1")
    await _raised(PermitRefused, sandbox.driver.run(Permit(EffectId("forged"), action)))
    await _raised(PermitRefused, sandbox.driver.run(Authority(ManualClock()).mint(EffectId("foreign"), action)))
    spent = sandbox.authority.mint(EffectId("spent"), action)
    assert (await sandbox.driver.run(spent)).value == 1
    await _raised(PermitRefused, sandbox.driver.run(spent))
    closed = sandbox.authority.mint(EffectId("closed"), action)
    sandbox.authority.close(closed)
    await _raised(PermitRefused, sandbox.driver.run(closed))
    other = sandbox.authority.mint(EffectId("other"), ReadClock(principal=_PRINCIPAL))
    await _raised(PermitRefused, sandbox.driver.run(other))  # type: ignore[arg-type]  # the type is what is attacked


async def permits_for_another_tier_or_other_code_run_nothing(sandbox: SandboxUnderTest) -> None:
    """A driver runs what was decided on, where it was decided to run."""
    for tier in SecurityTier:
        if tier is not sandbox.driver.tier:
            action = ExecuteCode(
                principal=_PRINCIPAL, code="1", code_digest=hashlib.sha256(b"1").hexdigest(), tier=tier
            )
            await _raised(PermitRefused, sandbox.driver.run(sandbox.authority.mint(EffectId("tier"), action)))
    swapped = ExecuteCode(
        principal=_PRINCIPAL, code="2", code_digest=hashlib.sha256(b"1").hexdigest(), tier=sandbox.driver.tier
    )
    await _raised(PermitRefused, sandbox.driver.run(sandbox.authority.mint(EffectId("code"), swapped)))


async def limits_out_of_bounds_are_refused(sandbox: SandboxUnderTest) -> None:
    """A limit that does not limit is no limit."""
    for timeout_s in (0.0, -1.0, float("inf"), float("nan")):
        await _raised(InputError, sandbox.run("1", timeout_s=timeout_s))
    for memory_mib in (0, -1, 2**40):
        await _raised(InputError, sandbox.run("1", memory_mib=memory_mib))
    for cpu_milli in (0, -1):
        await _raised(InputError, sandbox.run("1", cpu_milli=cpu_milli))


async def a_cancelled_run_ends_and_the_driver_works_on(sandbox: SandboxUnderTest) -> None:
    """Cancelling ends the code at once, not at its time limit."""
    with anyio.fail_after(_LONG_S):
        with anyio.move_on_after(_SHORT_S) as scope:
            await sandbox.run("while True:\n    pass", timeout_s=10 * _LONG_S)
        assert scope.cancelled_caught
        assert (await sandbox.run("20 + 22")).value == 42  # noqa: PLR2004 - the sum


async def runs_go_on_side_by_side(sandbox: SandboxUnderTest) -> None:
    """More runs than the driver has room for all end, each with its own value."""
    values: dict[int, JsonValue] = {}

    async def one(number: int) -> None:
        values[number] = (await sandbox.run("sum(range(n))", {"n": number})).value

    async with anyio.create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(one, number)
    assert values == {number: sum(range(number)) for number in range(12)}


SANDBOX_CHECKS: Final[tuple[SandboxCheck, ...]] = (
    value_is_that_of_the_last_expression,
    inputs_arrive_as_json,
    names_of_inputs_must_be_names,
    what_is_printed_is_kept_apart_from_the_value,
    runs_share_nothing,
    code_that_raises_has_a_place,
    code_that_does_not_parse_has_a_place,
    values_that_are_not_json_fail,
    time_is_limited,
    memory_is_limited,
    recursion_is_limited,
    output_is_limited,
    refused_permits_run_nothing,
    permits_for_another_tier_or_other_code_run_nothing,
    limits_out_of_bounds_are_refused,
    a_cancelled_run_ends_and_the_driver_works_on,
    runs_go_on_side_by_side,
)


async def check_sandbox_driver(driver: SandboxDriver, authority: Authority) -> None:
    """Run every check of the sandbox port on a running driver."""
    for check in SANDBOX_CHECKS:
        await check(SandboxUnderTest(driver, authority))


async def _raised(error: type[SymbiError], work: Awaitable[object]) -> SymbiError:
    """The error that work ends in, which must be of exactly this class."""
    try:
        answer: object = await work
    except SymbiError as caught:
        answer = caught
    assert type(answer) is error, f"{error.__name__} was expected, and this came: {answer!r}"
    return answer
