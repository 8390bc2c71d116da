"""The catalogue: which tools there are, which of them may be called, and why the others may not."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import anyio

from symbi.errors import (
    ConfigError,
    InputError,
    PinMismatch,
    StoreUnavailable,
    SymbiError,
    ToolServerUnavailable,
    did_you_mean,
)
from symbi.guard.action import ConnectServer, ToolRef
from symbi.guard.gate import Guard
from symbi.policy.fields import ToolFlow
from symbi.tools.breaker import BUSY_S, BreakerState, Pace
from symbi.tools.dependency import Dependency, DependencyStatus, speaks_against
from symbi.tools.judge import VerificationMode, refuse_ended
from symbi.tools.link import ServerLink
from symbi.tools.manifest import ToolEntry
from symbi.tools.port import SERVER_NAME, TOOLS, Pin, RawToolResult, Review, SecretSource, ToolDefinition
from symbi.tools.schemapin.resolve import ServerTrust
from symbi.tools.screen import Finding
from symbi.tools.text import shown_name
from symbi.tools.verified import Refusal, VerifiedTool, anew, why_withdrawn
from symbi.tools.verifier import DUPLICATE, ToolVerifier, refuse_duplicates
from symbi.types import SYSTEM_AGENT, Principal

SYSTEM: Final = Principal(SYSTEM_AGENT)


class Catalog:
    """Verified tools by name, and the quarantined ones with the reason.

    A server's tools are taken out before it is connected again and come back once they are verified, so that a tool
    in the catalogue always belongs to the process that was verified.

    Args:
        guard: The gate; connecting is an effect.
        verifier: Judges definitions.
        links: The configured servers.

    Raises:
        ConfigError: A server's name cannot be used, or is there twice.
    """

    def __init__(self, guard: Guard, verifier: ToolVerifier, links: Iterable[ServerLink]) -> None:
        self._guard = guard
        self.verifier = verifier
        self._links: dict[str, ServerLink] = {}
        for link in links:
            if not SERVER_NAME.fullmatch(link.name) or link.name in self._links:
                msg = f"`{shown_name(link.name)}` cannot name a server, or names two"
                raise ConfigError(msg, hint="letters, digits, `_` and `-` can")
            self._links[link.name] = link
            if link.session is not None:
                link.session.watch(self.noticed)
        self._locks = {name: anyio.Lock() for name in self._links}
        self._tools: dict[str, VerifiedTool] = {}
        self._quarantined: dict[str, Refusal] = {}
        self._down: dict[str, SymbiError] = {}
        self._flows: dict[str, ToolFlow] = {}  # of each verified tool, also while its server is gone
        self.changed: Callable[[], Awaitable[None]] = _nobody  # told when a server that was connected again has others
        self.others: Callable[[str, str], None] = lambda _server, _what: None  # told of its resources or prompts
        self.changes = 0  # how often tools were taken up
        self._withdrawn: dict[str, SymbiError] = {}  # keys, and tools since they were verified last
        self._stale: dict[str, int] = {}  # servers that offer something else by now, and how often they said so
        self._listings = {name: Pace() for name in self._links}
        self._principals: dict[str, Principal] = {}  # for whom each was connected last
        self._met: set[str] = set()  # servers that somebody has connected, or tried to
        self._paces = {name: Pace() for name in self._links}
        self._dependencies = {
            name: Dependency(
                f"mcp.servers.{name}", f"tool server `{name}`", link.terms, verifier.clock, verifier.log, guard.metrics
            )
            for name, link in self._links.items()
        }

    @property
    def dependencies(self) -> tuple[DependencyStatus, ...]:
        """How each server stands, by name."""
        return tuple(self._dependencies[name].status for name in self.servers)

    @property
    def servers(self) -> tuple[str, ...]:
        """Names of the configured servers, sorted."""
        return tuple(sorted(self._links))

    @property
    def tools(self) -> tuple[VerifiedTool, ...]:
        """The tools that may be called, by name."""
        return tuple(self._tools[name] for name in sorted(self._tools))

    @property
    def refs(self) -> tuple[ToolRef, ...]:
        """What the gate and the policy engine need of them, by name."""
        return tuple(tool.ref for tool in self.tools)

    @property
    def quarantined(self) -> Mapping[str, SymbiError]:
        """Why each of the others may not be called, by name."""
        return {name: refusal.error for name, refusal in sorted(self._quarantined.items())}

    def offered(self, server: str) -> tuple[ToolDefinition, ...]:
        """Everything that a connected server offers, callable or not, by name."""
        tools = [tool.definition for tool in self._tools.values() if tool.ref.server == server]
        refused = [one.definition for one in self._quarantined.values() if one.definition.server == server]
        return tuple(sorted([*tools, *refused], key=lambda definition: definition.name))

    @property
    def findings(self) -> Mapping[str, tuple[Finding, ...]]:
        """What the screen found in definitions, by tool, callable or not; those alone in which it found anything."""
        found = {name: tool.findings for name, tool in self._tools.items()}
        found |= {name: refusal.findings for name, refusal in self._quarantined.items()}
        return {name: some for name, some in sorted(found.items()) if some}

    @property
    def down(self) -> Mapping[str, SymbiError]:
        """Why a server could not be connected, by its name."""
        return dict(sorted(self._down.items()))

    async def refresh(self, server: str, principal: Principal = SYSTEM) -> None:
        """Connect a server anew, through the gate, and verify all that it offers.

        Raises:
            InputError: There is no such server.
            Denied: Policy does not let it be connected.
            ToolServerUnavailable: It cannot be started, or does not speak the protocol.
            StoreUnavailable: Decision, pins or trail cannot be written.
        """
        link = self.link(server)
        async with self._locks[server]:
            await self._refresh(link, principal)

    async def ready(self, server: str, principal: Principal = SYSTEM) -> None:
        """Let somebody use a server, through the gate: as it is where it is connected, or else connected anew.

        Raises:
            Unavailable: It has failed too often, and is left alone for a while.
            SymbiError: As `refresh`.
        """
        link = self.link(server)
        while True:
            if self._is_up(link):
                async with self._guard.enforce(self._connecting(link, principal)) as permit:
                    self._guard.authority.redeem(permit, ConnectServer)
                    if key_is_another := await self.verifier.find_key(permit):  # at once: who asked may go away
                        self._stale[server] = self._stale.get(server, 0) + 1
                    permit.observe({"tools": len(self.offered(server)), "connected": True})
                if key_is_another:
                    await self.relist(server)
                if self._is_up(link):
                    return
            async with self._locks[server]:
                if not self._is_up(link):
                    await self._restart(link, principal)
                    return

    async def noticed(self, server: str, what: str) -> None:
        """A server says that it offers something else: of tools, none is called until they are verified anew."""
        if what == TOOLS and server in self._links:
            self._stale[server] = self._stale.get(server, 0) + 1
            await self.relist(server)
        elif server in self._links:
            self.others(server, what)

    async def relist(self, server: str, principal: Principal | None = None) -> None:
        """List and verify the tools of a connected server anew, through the gate, where it said that they have changed.

        Calls at work go on. What differs from what was pinned is quarantined; where the tools cannot be listed, none is left.

        Args:
            server: Its name.
            principal: For whom; for whom it was connected if None.

        Raises:
            ToolServerUnavailable: It says so too often; `retry_after_s` says when they are listed again.
            SymbiError: As `refresh`.
        """
        link = self.link(server)
        async with self._locks[server]:
            said = self._stale.get(server, 0)
            if not said or not self._is_up(link):
                return
            pace, now_s = self._listings[server], self.verifier.clock.monotonic_s()
            if pace.wait_s(now_s) > 0:
                raise self._is_stale(server)
            pace.started(now_s)
            before = self._digests(server)
            try:
                asks = principal or self.principal_of(server)
                async with self._guard.enforce(self._connecting(link, asks)) as permit:
                    await self.verifier.find_key(permit)
                    definitions = await link.server.relist(permit)
                    permit.observe({"tools": len(definitions), "connected": True})
                results = await self._verify(server, definitions)
            except SymbiError as error:
                self._forget(server)
                self._down[server] = error
                raise
            self._forget(server)
            self._take(server, results)
            if self._stale.get(server) == said:  # else it has said so again meanwhile
                del self._stale[server]
        if self._digests(server) != before:
            await self.changed()

    def _is_stale(self, server: str) -> ToolServerUnavailable:
        wait_s = self._listings[server].wait_s(self.verifier.clock.monotonic_s())
        msg = f"tool server `{server}` has changed its tools, which are verified before any is called"
        return ToolServerUnavailable(msg, server=server, retry_after_s=max(wait_s, BUSY_S))

    async def check(self, server: str, within_s: float) -> None:
        """Ask a connected server that has nothing to do whether it is there; one that does not say so is connected no more.

        Raises:
            StoreUnavailable: That it is left alone cannot be recorded.
        """
        link, dependency = self.link(server), self._dependencies[server]
        if not self._is_up(link) or dependency.status.calls or dependency.status.state is not BreakerState.CLOSED:
            return
        async with self._locks[server]:
            if not self._is_up(link):
                return
            try:
                async with dependency.attempt():
                    await link.server.ping(within_s)
            except StoreUnavailable:
                raise
            except SymbiError as error:
                if speaks_against(error):
                    self._forget(server)
                    self._down[server] = error

    async def revive(self, server: str, principal: Principal) -> None:
        """Start a server again that has died, or could not be connected, through the gate; not too often.

        One that was never connected stays so. One that is connected stays as it is, but where its breaker is open: who tries
        it then begins with a fresh process, if no other call is at work there.

        Raises:
            ToolServerUnavailable: It was started a while ago; `retry_after_s` says when it may be again.
            SymbiError: As `ready`.
        """
        link = self._links.get(server)
        if server in self._stale:
            await self.relist(server, principal)
        if link is None or server not in self._met or self._is_well(link):
            return
        async with self._locks[server]:
            if not self._is_well(link):
                await self._restart(link, principal)

    async def _restart(self, link: ServerLink, principal: Principal) -> None:
        """Connect a server that is not up; one that was before, no sooner than it may be started again."""
        self._dependencies[link.name].check()
        pace, now_s = self._paces[link.name], self.verifier.clock.monotonic_s()
        wait_s = pace.wait_s(now_s)
        if wait_s > 0:
            msg = f"tool server `{link.name}` was started again {pace.starts} times; next in {wait_s:.3g} s at best"
            raise ToolServerUnavailable(msg, server=link.name, retry_after_s=wait_s)
        again, before = link.name in self._met, self._digests(link.name)
        if again:
            pace.started(now_s)
        await self._refresh(link, principal)
        if again and self._digests(link.name) != before:
            await self.changed()

    def _digests(self, server: str) -> dict[str, str]:
        return {name: tool.ref.schema_digest for name, tool in self._tools.items() if tool.ref.server == server}

    def is_connected(self, server: str) -> bool:
        """Whether a server is connected and its tools are in the catalogue.

        Raises:
            InputError: There is no such server.
        """
        return self._is_up(self.link(server))

    def principal_of(self, server: str) -> Principal:
        """For whom a server was connected last."""
        return self._principals.get(server, SYSTEM)

    def _is_up(self, link: ServerLink) -> bool:
        return link.server.connected and link.name not in self._down

    def _is_well(self, link: ServerLink) -> bool:
        status = self._dependencies[link.name].status
        return self._is_up(link) and (status.state is not BreakerState.OPEN or status.calls > 0)

    async def _refresh(self, link: ServerLink, principal: Principal) -> None:
        """See `refresh`; with the lock."""
        server, dependency = link.name, self._dependencies[link.name]
        dependency.check()
        self._met.add(server)
        self._principals[server] = principal
        async with dependency.attempt(proves=False):
            self._forget(server)
            self._down[server] = ToolServerUnavailable(f"tool server `{server}` is being connected", server=server)
            try:
                definitions = await self._connect(link, principal)
                said = self._stale.get(server)
                results = await self._verify(server, definitions)
            except SymbiError as error:
                self._down[server] = error
                raise
            self._take(server, results)
            if self._stale.get(server) == said:  # else it said so after it had listed them, and is asked again
                self._stale.pop(server, None)
            del self._down[server]

    def _take(self, server: str, results: Iterable[VerifiedTool | Refusal]) -> None:
        """Take up what was verified of a server."""
        for result in results:
            name = f"{server}.{result.definition.name}"
            if isinstance(result, Refusal):
                self._quarantined[shown_name(name)] = result
            elif (error := why_withdrawn(result, self._withdrawn)) is not None:
                self._quarantined[name] = Refusal(result.definition, error, result.findings)
            else:
                self._tools[name] = result
        self._flows = {name: flow for name, flow in self._flows.items() if not name.startswith(f"{server}.")}
        self._flows |= {tool.ref.name: tool.ref.flow for tool in self._tools.values() if tool.ref.server == server}
        self.changes += 1

    def withdraw(self, name: str, error: SymbiError) -> None:
        """Let a tool, or by its fingerprint whatever a key signs, be called no more from here on; calls at work go on.

        It holds for what is being verified just now, too; of a tool until it is verified the next time.
        """
        self._withdrawn[name] = error
        tool = self._tools.pop(name, None)
        known = self._quarantined.get(name)
        if tool is not None:
            self._quarantined[name] = Refusal(tool.definition, error, tool.findings)
            self.changes += 1
        elif known is not None:
            self._quarantined[name] = replace(known, error=error)

    async def take_out(self, server: str, error: SymbiError) -> None:
        """Let no tool of a server be called from here on, for this reason; calls at work go on."""
        async with self._locks[server]:
            self._forget(server)
            self._down[server] = error

    async def pin(self, name: str, *, older: bool = False, digest: str | None = None, by: str = "") -> VerifiedTool:
        """Pin what a server offers now under a name, after a person has reviewed it.

        Args:
            name: `server.tool`.
            older: Also where it says that it is an older version than the pinned one.
            digest: Of what the person was shown; None where it is what the server offers now.
            by: Who, for the trail.

        Raises:
            PinMismatch: It says that it is, and that is not meant; or it is not what was shown any more.
            InputError: There is no such tool, or it cannot be used or signed.
            SignatureInvalid: In strict mode, it is not signed, or its signature does not hold.
            Unavailable: Pins or trail cannot be written; or its server is not connected, or has changed its tools.
        """
        server = name.partition(".")[0]
        async with self._locks.get(server) or anyio.Lock():  # what is offered is looked up when nobody lists it anew
            if server in self._stale:
                raise self._is_stale(server)
            if (refusal := self._quarantined.get(name)) is not None and refusal.error.code == DUPLICATE:
                raise anew(refusal.error)
            definition = refusal.definition if refusal is not None else self.find(name).definition
            self._withdrawn.pop(name, None)
            tool = await self.verifier.pin_tool(definition, older=older, digest=digest, by=by)
            self._quarantined.pop(name, None)
            self._take(server, [tool])
            if name not in self._tools:
                raise anew(self._quarantined[name].error)
        return tool

    def find(self, name: str) -> VerifiedTool:
        """A tool that may be called.

        Raises:
            InputError: There is no such tool.
            VerificationError: There is, and it is quarantined, or its signature has ended since.
            ToolServerUnavailable: Its server is not connected, or has changed its tools.
        """
        tool = self._tools.get(name)
        if tool is not None and tool.ref.server in self._stale:
            raise self._is_stale(tool.ref.server)
        if tool is not None:
            refuse_ended(tool.mode, tool.definition, self.verifier.clock.now_ns())
            return tool
        refusal = self._quarantined.get(name)
        if refusal is not None:
            raise anew(refusal.error)
        if (server := name.partition(".")[0]) in self._down:
            raise anew(self._down[server])
        hint = did_you_mean(name, [*self._tools, *self._quarantined]) or "`symbi tools list` shows the tools there are"
        msg = f"unknown tool `{shown_name(name)}`"
        raise InputError(msg, code="tool.unknown", hint=hint)

    def confirm(self, ref: ToolRef) -> VerifiedTool:
        """The tool behind a reference, if it is still the one that was referred to (step 2 of a call).

        Raises:
            PinMismatch: The tool is another by now.
            InputError, VerificationError, ToolServerUnavailable: As `find`; also where its signature does not hold.
        """
        tool = self.find(ref.name)
        if tool.ref.schema_digest != ref.schema_digest:
            msg = f"tool `{ref.name}` has changed since the call was prepared"
            raise PinMismatch(msg, tool=ref.name)
        tool.confirm()
        return tool

    def declared(self, name: str) -> ToolEntry | None:
        """What the operator's manifest says of a tool, whether or not its server is connected; None without a manifest."""
        server, _, tool = name.partition(".")
        return self.verifier.declared(server, tool)

    def link_of(self, tool: VerifiedTool) -> ServerLink:
        """The server that the tool is on."""
        return self._links[tool.ref.server]

    def dependency_of(self, server: str) -> Dependency:
        """What stands before a server."""
        return self._dependencies[server]

    def trust_of(self, server: str) -> ServerTrust:
        """Under which key a server's tools are to be signed, as far as it is known.

        Raises:
            InputError: There is no such server.
        """
        return self.verifier.trust_of(self.link(server).name)

    def flow_of(self, name: str) -> ToolFlow | None:
        """What is declared of a tool, also while its server is gone; None of one that was never verified."""
        return self._flows.get(name)

    @property
    def unverified(self) -> bool:
        """Whether verification is disabled."""
        return self.verifier.mode is VerificationMode.DISABLED

    async def _connect(self, link: ServerLink, principal: Principal) -> Sequence[ToolDefinition]:
        await self.verifier.admit(link)
        async with self._guard.enforce(self._connecting(link, principal)) as permit:
            await self.verifier.find_key(permit)  # before its process starts: what it offers is judged by it
            definitions = await link.server.connect(permit)
            permit.observe({"tools": len(definitions)})
        return definitions

    async def _verify(self, server: str, definitions: Sequence[ToolDefinition]) -> Sequence[VerifiedTool | Refusal]:
        foreign = [definition for definition in definitions if definition.server != server]
        if foreign:
            msg = f"tool server `{server}` offers tools of `{shown_name(foreign[0].server)}`"
            raise ToolServerUnavailable(msg, server=server)
        self._withdrawn = {name: why for name, why in self._withdrawn.items() if not name.startswith(f"{server}.")}
        return await self.verifier.verify_all(refuse_duplicates(definitions))

    def _connecting(self, link: ServerLink, principal: Principal) -> ConnectServer:
        return ConnectServer(
            principal=principal,
            server=link.name,
            command=link.command,
            secrets=link.secrets,
            discovery=self.verifier.domain_of(link.name),
            source=link.source,
        )

    def _forget(self, server: str) -> None:
        for name in [name for name, tool in self._tools.items() if tool.ref.server == server]:
            del self._tools[name]
        for name in [name for name, one in self._quarantined.items() if one.definition.server == server]:
            del self._quarantined[name]

    def link(self, server: str) -> ServerLink:
        """A configured server.

        Raises:
            InputError: There is no such server.
        """
        if server not in self._links:
            hint = did_you_mean(server, self._links) or "`mcp.servers` names them"
            raise InputError(f"unknown tool server `{shown_name(server)}`", code="tool.unknown_server", hint=hint)
        return self._links[server]


async def _nobody() -> None:
    """The default of `changed`: nobody."""


__all__ = [
    "SYSTEM", "Catalog", "Pin", "RawToolResult", "Refusal", "Review", "SecretSource", "ServerLink", "ToolVerifier",
    "VerificationMode", "VerifiedTool",
]  # fmt: skip
