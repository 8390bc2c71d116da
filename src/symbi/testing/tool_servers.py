"""A tool server without a process, and the checks that every adapter of `symbi.tools.port.ToolServer` must pass."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, cast

import anyio
import anyio.lowlevel

from symbi.errors import OutputLimit, PermitRefused, SymbiError, TimeLimit, ToolFailed, ToolServerUnavailable
from symbi.guard.action import ConnectServer, InvokeTool, ReadClock, ToolRef
from symbi.guard.permit import Authority, Permit
from symbi.tools.asking import NO_CALLER, CallHooks
from symbi.tools.mask import SecretMask, put_in
from symbi.tools.port import MAX_TOOL_OUTPUT_BYTES, RawToolResult, ToolDefinition, ToolServer
from symbi.types import AgentId, EffectId, JsonValue, Principal, ToolName

PRINCIPAL: Final = Principal(AgentId("contract"))
SERVER: Final = "suite"
SECRET: Final = "correct-horse-battery-staple"  # noqa: S105 - what the checks look for in every answer

Answer: TypeAlias = Callable[[Mapping[str, JsonValue], EffectId], Awaitable[RawToolResult]]


class ToolServerSimulator:
    """A `ToolServer` whose tools are functions; it redeems permits, keeps deadlines and masks as a real one does.

    Args:
        name: The server's name.
        authority: Redeems permits.
        tools: What it offers, and how each tool answers. What a function may not do is no concern of the simulator:
            it may hang, raise, or answer what its schema forbids.
        command: What a permit to connect must name.
    """

    def __init__(
        self,
        name: str,
        authority: Authority,
        tools: Sequence[tuple[ToolDefinition, Answer]],
        *,
        command: str = "simulated",
    ) -> None:
        self.name = name
        self.command_line = command
        self.tools = list(tools)
        self.calls: list[tuple[str, Mapping[str, JsonValue], EffectId]] = []
        self.hooks: CallHooks = NO_CALLER  # of the last call; what a tool tells and asks goes there
        self._authority = authority
        self._mask = SecretMask()
        self._connected = False

    async def __aenter__(self) -> Self:
        """Prepare."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the session."""
        self._connected = False

    @property
    def connected(self) -> bool:
        """Whether the session is up."""
        return self._connected

    def die(self) -> None:
        """End the session as a crash does."""
        self._connected = False

    async def connect(self, permit: Permit[ConnectServer]) -> Sequence[ToolDefinition]:
        """Start the session and list the tools."""
        action = self._authority.check(permit, ConnectServer)
        if action.server != self.name or action.command != self.command_line:
            msg = f"permit is for another server or command than those of `{self.name}`"
            raise PermitRefused(msg, code="permit.foreign")
        self._authority.redeem(permit, ConnectServer)
        await anyio.lowlevel.checkpoint()
        self._connected = True
        return [definition for definition, _ in self.tools]

    async def relist(self, permit: Permit[ConnectServer]) -> Sequence[ToolDefinition]:
        """List the tools on the session that is up."""
        action = self._authority.check(permit, ConnectServer)
        if action.server != self.name or action.command != self.command_line:
            msg = f"permit is for another server or command than those of `{self.name}`"
            raise PermitRefused(msg, code="permit.foreign")
        await self.ping(0.0)
        self._authority.redeem(permit, ConnectServer)
        return [definition for definition, _ in self.tools]

    async def ping(self, within_s: float) -> None:
        """Whether the session is up."""
        del within_s
        await anyio.lowlevel.checkpoint()
        if not self._connected:
            msg = f"tool server `{self.name}` is not connected"
            raise ToolServerUnavailable(msg)

    async def call(
        self, permit: Permit[InvokeTool], secrets: Mapping[str, str], hooks: CallHooks = NO_CALLER
    ) -> RawToolResult:
        """Have the tool's function answer, within the deadline."""
        try:
            return await self._call(permit, secrets, hooks)
        except SymbiError as error:
            failure = self._mask.error(error)
        raise failure

    async def _call(self, permit: Permit[InvokeTool], secrets: Mapping[str, str], hooks: CallHooks) -> RawToolResult:
        action = self._authority.check(permit, InvokeTool)
        if action.tool.server != self.name:
            msg = f"permit is for a tool of `{action.tool.server}`, not of `{self.name}`"
            raise PermitRefused(msg, code="permit.foreign")
        self._mask.add(secrets)
        if not self._connected:
            msg = f"tool server `{self.name}` is not connected"
            raise ToolServerUnavailable(msg)
        self._authority.redeem(permit, InvokeTool)
        name = action.tool.name.removeprefix(f"{self.name}.")
        answers = {definition.name: answer for definition, answer in self.tools}
        if name not in answers:
            msg = f"server `{self.name}` has no tool `{name}`"
            raise ToolFailed(msg)
        arguments = cast("Mapping[str, JsonValue]", put_in(action.values, secrets))
        self.calls.append((name, action.values, permit.effect_id))
        self.hooks = hooks
        try:
            with anyio.fail_after(action.timeout_s):
                raw = await answers[name](arguments, permit.effect_id)
        except TimeoutError:
            msg = f"tool `{action.tool.name}` did not answer within {action.timeout_s:g} s"
            raise TimeLimit(msg) from None
        if len(raw.content.encode()) > MAX_TOOL_OUTPUT_BYTES:
            msg = f"tool `{action.tool.name}` answered more than {MAX_TOOL_OUTPUT_BYTES} bytes"
            raise OutputLimit(msg)
        blocks = raw.blocks or ({"type": "text", "text": raw.content},)
        masked = cast("Sequence[Mapping[str, JsonValue]]", self._mask.value(list(blocks)))
        return RawToolResult(self._mask.text(raw.content), self._mask.value(raw.structured), raw.is_error, masked)


# --- the contract ------------------------------------------------------------------------------------------------

SUITE_SCHEMA: Final[Mapping[str, JsonValue]] = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "extra": {}},
    "required": ["text"],
    "additionalProperties": False,
}
SUITE_TOOLS: Final = ("echo", "effect_id", "fail", "large", "slow", "structured")
"""What the server under test offers, all with `SUITE_SCHEMA`: `echo` gives the text back; `effect_id` the idempotency
key that it got; `fail` answers with an error that quotes the text; `large` answers 2 MiB; `slow` answers after an
hour; `structured` answers `{"text": TEXT, "list": [TEXT, null, 1]}` as structured content."""


@dataclass(slots=True)
class ToolServerUnderTest:
    """An entered server named `SERVER` that offers `SUITE_TOOLS`, with what is needed to talk to it.

    Attributes:
        server: Entered, not connected.
        authority: What it was made with.
        command: What a permit to connect must name.
        number: Counts effects.
    """

    server: ToolServer
    authority: Authority
    command: str
    number: int = field(default=0)

    def effect(self) -> EffectId:
        """A new effect id."""
        self.number += 1
        return EffectId(f"effect-{self.number}")

    async def connect(self) -> Sequence[ToolDefinition]:
        """Connect under a fresh permit."""
        action = ConnectServer(principal=PRINCIPAL, server=SERVER, command=self.command)
        return await self.server.connect(self.authority.mint(self.effect(), action))

    def invoke(self, tool: str, *, server: str = SERVER, timeout_s: float = 10.0, **values: JsonValue) -> InvokeTool:
        """The action of a call."""
        ref = ToolRef(ToolName(f"{server}.{tool}"), server, "", SUITE_SCHEMA)
        return InvokeTool(
            principal=PRINCIPAL, tool=ref, values=values, secrets=("a/b",) if "vault" in str(values) else (),
            timeout_s=timeout_s,
        )  # fmt: skip

    async def call(self, tool: str, text: str = "hello", *, timeout_s: float = 10.0) -> RawToolResult:
        """Call a tool under a fresh permit; `vault://a/b` as the text stands for `SECRET`."""
        action = self.invoke(tool, timeout_s=timeout_s, text=text)
        secrets = {"a/b": SECRET} if action.secrets else {}
        return await self.server.call(self.authority.mint(self.effect(), action), secrets)


ToolServerCheck: TypeAlias = Callable[[ToolServerUnderTest], Awaitable[None]]


async def lists_its_tools(one: ToolServerUnderTest) -> None:
    """All of them, each time anew, under the configured name and with nothing added."""
    for _ in range(2):
        definitions = await one.connect()
        assert sorted(definition.name for definition in definitions) == list(SUITE_TOOLS)
        assert all(definition.server == SERVER for definition in definitions)
        assert all(definition.input_schema == SUITE_SCHEMA for definition in definitions)


async def tells_whether_it_is_connected(one: ToolServerUnderTest) -> None:
    """Not before the first session, and from its start on."""
    assert not one.server.connected
    await one.connect()
    assert one.server.connected


async def lists_its_tools_anew_on_the_session_that_is_up(one: ToolServerUnderTest) -> None:
    """Under a permit of its own, which is refused before there is a session, and stays whole then."""
    action = ConnectServer(principal=PRINCIPAL, server=SERVER, command=one.command)
    permit = one.authority.mint(one.effect(), action)
    await _fails(ToolServerUnavailable, one.server.relist(permit))
    assert one.authority.uses_left(permit) == 1
    first = await one.connect()
    assert sorted(tool.name for tool in await one.server.relist(permit)) == sorted(tool.name for tool in first)
    await _fails(PermitRefused, one.server.relist(permit))
    assert (await one.call("echo", "still here")).content == "still here"


async def answers_calls(one: ToolServerUnderTest) -> None:
    """Text comes back as it is, structured content with its nulls, an error as a result."""
    await one.connect()
    assert await one.call("echo", "grüße \U0001f600\n") == RawToolResult("grüße \U0001f600\n", None, is_error=False)
    structured = (await one.call("structured", "x")).structured
    assert structured == {"text": "x", "list": ["x", None, 1]}
    failed = await one.call("fail", "why")
    assert failed.is_error
    assert "why" in failed.content


async def hands_over_the_effect_id(one: ToolServerUnderTest) -> None:
    """Each call carries the id of its own effect."""
    await one.connect()
    first, second = await one.call("effect_id"), await one.call("effect_id")
    assert (first.content, second.content) == (f"effect-{one.number - 1}", f"effect-{one.number}")


async def refuses_permits_that_are_not_its_own(one: ToolServerUnderTest) -> None:
    """Forged, copied, foreign, spent, closed, of another kind, or for another server or command."""
    await one.connect()
    action = one.invoke("echo", text="x")
    spent = one.authority.mint(one.effect(), action)
    await one.server.call(spent, {})
    closed = one.authority.mint(one.effect(), action)
    one.authority.close(closed)
    real = one.authority.mint(one.effect(), action)
    foreign: list[Permit[Any]] = [
        spent,
        closed,
        Permit(real.effect_id, action),
        one.authority.mint(one.effect(), ReadClock(principal=PRINCIPAL)),
        one.authority.mint(one.effect(), one.invoke("echo", server="other", text="x")),
    ]
    for permit in foreign:
        await _fails(PermitRefused, one.server.call(permit, {}))
    connect = ConnectServer(principal=PRINCIPAL, server=SERVER, command=one.command)
    others: list[Permit[Any]] = [
        Permit(EffectId("forged"), connect),
        real,
        one.authority.mint(one.effect(), ConnectServer(principal=PRINCIPAL, server="other", command=one.command)),
        one.authority.mint(one.effect(), ConnectServer(principal=PRINCIPAL, server=SERVER, command="rm -rf /")),
    ]
    for permit in others:
        await _fails(PermitRefused, one.server.connect(permit))
    assert (await one.server.call(real, {})).content == "x", "refused permits have harmed the session"


async def spends_no_permit_when_nothing_is_sent(one: ToolServerUnderTest) -> None:
    """Before it is connected nothing can happen, and the permit says so."""
    permit = one.authority.mint(one.effect(), one.invoke("echo", text="x"))
    await _fails(ToolServerUnavailable, one.server.call(permit, {}))
    assert one.authority.uses_left(permit) == 1


async def keeps_the_deadline(one: ToolServerUnderTest) -> None:
    """A call that takes too long is `TimeLimit`, and the next one works."""
    await one.connect()
    await _fails(TimeLimit, one.call("slow", timeout_s=0.2))
    assert (await one.call("echo", "still here")).content == "still here"


async def bounds_what_comes_back(one: ToolServerUnderTest) -> None:
    """More than `MAX_TOOL_OUTPUT_BYTES` is `OutputLimit`, and the next call works."""
    await one.connect()
    await _fails(OutputLimit, one.call("large"))
    assert (await one.call("echo", "still here")).content == "still here"


async def lets_no_secret_out(one: ToolServerUnderTest) -> None:
    """The tool gets the value; what it answers holds the reference in its place, whatever way it comes."""
    await one.connect()
    for tool in ("echo", "structured", "fail"):
        answer = await one.call(tool, "vault://a/b")
        assert SECRET not in repr(answer)
        assert "vault://a/b" in repr(answer), "the tool was not given the secret"
    later = await one.call("echo", f"again: {SECRET}")
    assert SECRET not in repr(later), "a secret of an earlier call came through"


async def serves_callers_side_by_side(one: ToolServerUnderTest) -> None:
    """A slow call holds up nobody, and each gets its own answer."""
    await one.connect()
    answers: dict[str, str] = {}

    async def ask(text: str) -> None:
        answers[text] = (await one.call("echo", text)).content

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.call, "slow")
        async with anyio.create_task_group() as quick:
            for text in "abcdefgh":
                quick.start_soon(ask, text)
        tasks.cancel_scope.cancel()
    assert answers == {text: text for text in "abcdefgh"}


async def a_cancelled_caller_harms_nobody(one: ToolServerUnderTest) -> None:
    """A caller that goes away takes neither the session nor the call of another with it."""
    await one.connect()
    answers: list[str] = []

    async def ask() -> None:
        answers.append((await one.call("echo", "unharmed")).content)

    for _ in range(3):
        with anyio.move_on_after(0.05) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.call, "slow")
                tasks.start_soon(ask)
        assert scope.cancelled_caught
    await ask()
    assert answers[-1] == "unharmed"


async def _fails(error: type[SymbiError], attempt: Awaitable[object]) -> None:
    try:
        answer = await attempt
    except SymbiError as caught:
        assert type(caught) is error, f"{type(caught).__name__} instead of {error.__name__}: {caught}"  # noqa: PT017 - no test
        return
    msg = f"no {error.__name__}, but {answer!r}"
    raise AssertionError(msg)


TOOL_SERVER_CHECKS: Final[tuple[ToolServerCheck, ...]] = (
    tells_whether_it_is_connected,
    lists_its_tools,
    lists_its_tools_anew_on_the_session_that_is_up,
    answers_calls,
    hands_over_the_effect_id,
    refuses_permits_that_are_not_its_own,
    spends_no_permit_when_nothing_is_sent,
    keeps_the_deadline,
    bounds_what_comes_back,
    lets_no_secret_out,
    serves_callers_side_by_side,
    a_cancelled_caller_harms_nobody,
)


def suite_tools() -> Sequence[tuple[ToolDefinition, Answer]]:
    """`SUITE_TOOLS` for a `ToolServerSimulator` named `SERVER`."""

    async def echo(values: Mapping[str, JsonValue], _effect: EffectId) -> RawToolResult:
        return RawToolResult(str(values["text"]), None, is_error=False)

    async def effect_id(_values: Mapping[str, JsonValue], effect: EffectId) -> RawToolResult:
        return RawToolResult(effect, None, is_error=False)

    async def fail(values: Mapping[str, JsonValue], _effect: EffectId) -> RawToolResult:
        return RawToolResult(f"no: {values['text']}", None, is_error=True)

    async def large(_values: Mapping[str, JsonValue], _effect: EffectId) -> RawToolResult:
        return RawToolResult("x" * (2 * MAX_TOOL_OUTPUT_BYTES), None, is_error=False)

    async def slow(_values: Mapping[str, JsonValue], _effect: EffectId) -> RawToolResult:
        await anyio.sleep(3600)
        return RawToolResult("", None, is_error=False)

    async def structured(values: Mapping[str, JsonValue], _effect: EffectId) -> RawToolResult:
        text = values["text"]
        return RawToolResult("", {"text": text, "list": [text, None, 1]}, is_error=False)

    answers: Sequence[Answer] = (echo, effect_id, fail, large, slow, structured)
    return [
        (ToolDefinition(SERVER, name, "Part of the suite.", SUITE_SCHEMA), answer)
        for name, answer in zip(SUITE_TOOLS, answers, strict=True)
    ]
