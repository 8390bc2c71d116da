"""Which tools may be called: `symbi.tools.judge` decides from values alone, `ToolVerifier` reads and writes pins and the trail.

| mode | signature | first sight | later |
|---|---|---|---|
| strict | must hold under the server's key, before anything is pinned | key and definition are pinned; a key that was discovered over the network only once a person accepts it | both must be as pinned |
| tofu | may be missing; one that is there must hold | likewise, and nobody is asked about a key | likewise: also an unsigned tool must not change |
| disabled | not looked at | nothing is pinned | not looked at; every use warns |

A key is accepted for a server with the first of its tools that a person pins; further tools under it are pinned at first
sight, as under a key that the operator configured. A changed tool is quarantined until a person has reviewed it and pins it anew (`ToolVerifier.pin_tool`), or until its
server offers again what was pinned.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import anyio.to_thread

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, rfc3339
from symbi.errors import InputError, InternalError, PinMismatch, Unavailable, VerificationError
from symbi.guard.action import ConnectServer, InvokeTool, ToolRef
from symbi.guard.permit import Permit
from symbi.policy.decision import PolicyDecision
from symbi.policy.engine import PolicyEngine
from symbi.policy.history import offline
from symbi.tools.judge import Examined, Judgement, VerificationMode, examine, judge
from symbi.tools.link import ServerLink
from symbi.tools.lookalike import ANY_NAME, LookAlike, deceives, judge_names, keys_of, shown
from symbi.tools.manifest import Manifest, ToolEntry
from symbi.tools.port import SERVER_NAME, TOOL_NAME, PinHead, ReviewKind, ReviewState, ToolDefinition, ToolStore
from symbi.tools.review import Seen, admitted, covered_definition, signed_digest, stand
from symbi.tools.schemapin import PublicKey, digest_of, fingerprint
from symbi.tools.schemapin.resolve import ServerKeys, ServerTrust
from symbi.tools.schemas import Schema
from symbi.tools.screen import Finding, screen, worst
from symbi.tools.text import shown_name
from symbi.tools.verified import Proof, Refusal, VerifiedTool, print_of
from symbi.types import SYSTEM_AGENT, JsonValue, Principal, ToolName

_log = logging.getLogger("symbi.tools")

DUPLICATE: Final = "tool.duplicate"
"""Code of a tool whose server offers several of its name."""
MAX_NEW: Final = 2_048  # tools of one server that are kept at first sight: who renames them without end fills no disk
MAX_RECORDED: Final = 4  # findings of a tool that its event tells of


class ToolVerifier:
    """Verifies tools against signatures and pins, and records each verdict in the trail.

    Args:
        mode: Strict, tofu or disabled.
        pins: Durable pins and reviews, in the log's store.
        log: The trail.
        engine: For `enforce_policies`.
        clock: Dates pins.
        keys: Public key by server, as the operator configured it; or that and the domains that are asked.
        manifests: Operator manifest by server.

    Attributes:
        known: Keys, and who is asked for them.
        shared: By server, names of its tools that may be those of other servers' tools; None: nobody has said so of any.
    """

    def __init__(
        self,
        mode: VerificationMode,
        pins: ToolStore,
        log: AuditLog,
        engine: PolicyEngine,
        clock: Clock,
        *,
        keys: Mapping[str, PublicKey] | ServerKeys | None = None,
        manifests: Mapping[str, Manifest] | None = None,
    ) -> None:
        self.mode = mode
        self.store = pins
        self.log = log
        self._engine = engine
        self.clock = clock
        self.known = known = keys if isinstance(keys, ServerKeys) else ServerKeys(keys or {})
        self._keys, self._chain = known.configured, known.chain
        self._manifests = manifests or {}
        self._domains = {} if self._chain is None or mode is VerificationMode.DISABLED else known.domains
        self._trust: dict[str, ServerTrust] = {}
        self._new: dict[str, set[str]] = {}  # by server, the tools that were seen for the first time
        self.shared: Mapping[str, Collection[str]] | None = None
        if mode is VerificationMode.DISABLED:
            _log.warning("tool verification is disabled: any tool can be called, whatever it has become")

    def declared(self, server: str, tool: str) -> ToolEntry | None:
        """What the operator's manifest says of a tool by its name on its server; None without a manifest."""
        manifest = self._manifests.get(server)
        return None if manifest is None else manifest.entry(tool)

    def domain_of(self, server: str) -> str:
        """The domain that is asked for the key of a server while that is being connected; empty where none is."""
        return self._domains.get(server, "")

    def is_old(self, server: str) -> bool:
        """Whether it has to be found out again under which key a server's tools are to be signed."""
        domain, known = self.domain_of(server), self._trust.get(server)
        if not domain or self._chain is None:
            return False
        return self._chain.is_old(domain, None if known is None else known.at_s)

    async def find_key(self, permit: Permit[ConnectServer]) -> bool:
        """Find out under which key a server's tools are to be signed. What is found holds until it is asked again.

        A key that cannot be had, or was revoked, is no error here: the server's signed tools are refused with it.

        Returns:
            Whether that is another than before, or can be had now and could not, or the other way round.

        Raises:
            PermitRefused: The permit is not live.
        """
        server = permit.action.server
        domain = self.domain_of(server)
        if not domain or self._chain is None:
            return False
        before = self._trust.get(server)
        trust = await self._chain.trust(permit, domain, self._keys.get(server))
        for warning in trust.warnings:
            _log.warning("tool server `%s`: %s", server, warning)
        self._trust[server] = trust
        return before is None or before.verdict != trust.verdict

    async def admit(self, link: ServerLink) -> None:
        """Return if a server may be connected as far as it matters who named it: one of the configuration may.

        One that was found in a file may if it is what somebody has accepted; where the mode is not strict, also at first
        sight, and it is accepted so.

        Raises:
            PinMismatch: Somebody has to look at it first.
            StoreUnavailable: That cannot be kept.
        """
        if not link.source or self.mode is VerificationMode.DISABLED:
            return

        def work() -> tuple[VerificationError | None, list[Draft]]:
            known = self.store.get_review(ReviewKind.SERVER, link.name)
            now = rfc3339(self.clock.now_ns())
            found = admitted(link, known, strict=self.mode is VerificationMode.STRICT, now=now)
            if found.put is None:
                return found.error, []
            self.store.put_review(found.put)
            facts: dict[str, JsonValue] = {
                "server": link.name, "state": found.put.state.value, "digest": link.digest, "source": shown_name(link.source),
            }  # fmt: skip
            return found.error, [Draft(AuditEventType.TOOL_REVIEWED, SYSTEM_AGENT, facts)]

        error, _ = await self.log.transact(work)
        if error is not None:
            raise error

    def trust_of(self, server: str) -> ServerTrust:
        """Under which key a server's tools are to be signed, as far as it is known."""
        if self.domain_of(server):
            msg = f"the key of tool server `{server}` was not asked for yet"
            unknown = ServerTrust(error=Unavailable(msg, code="unavailable.discovery", server=server))
            return self._trust.get(server, unknown)
        return ServerTrust(self._keys.get(server))

    async def verify_tool(self, definition: ToolDefinition) -> VerifiedTool:
        """Verify one tool; at first sight it is pinned.

        Raises:
            SignatureInvalid: It is not signed, or its signature does not hold.
            PinMismatch: Key or definition has changed since it was pinned.
            InputError: Its name or schemas cannot be used, or its content cannot be signed.
            StoreUnavailable: Pins or trail cannot be read or written.
        """
        return _or_raise((await self.verify_all([definition]))[0])

    async def pin_tool(
        self, definition: ToolDefinition, *, older: bool = False, digest: str | None = None, by: str = ""
    ) -> VerifiedTool:
        """Pin what a person has reviewed, in place of what was pinned; in strict mode it must be signed all the same.

        With it the key is accepted for the server, if it was discovered.

        Args:
            definition: As it was reviewed.
            older: Also where it says that it is an older version than the pinned one.
            digest: That of what the person was shown; None where it is the definition itself.
            by: Who, for the trail.

        Raises:
            As `verify_tool`; `PinMismatch` only for what is older, or is not what was shown.
        """
        covered = b"" if digest is None else await anyio.to_thread.run_sync(covered_definition, definition)
        if digest is not None and digest_of(covered) != digest:
            name = shown_name(f"{definition.server}.{definition.name}")
            msg = f"tool `{name}` is not what was shown any more"
            raise PinMismatch(msg, hint=f"`symbi tools review {name}` shows what it is now", tool=name)
        return _or_raise((await self.verify_all([definition], reviewed=True, older=older, by=by))[0])

    async def verify_all(
        self,
        definitions: Iterable[ToolDefinition | Refusal],
        *,
        reviewed: bool = False,
        older: bool = False,
        by: str = "",
    ) -> Sequence[VerifiedTool | Refusal]:
        """Verify what a server offers, in one transaction with the record of it.

        Args:
            definitions: All that one server offers, and what of it is refused already.
            reviewed: A person accepts it.
            older: And that it is an older version.
            by: Who, for the trail.

        Raises:
            StoreUnavailable: Pins or trail cannot be read or written.
        """
        offered = [one if isinstance(one, Refusal) else self.known.with_signature(one) for one in definitions]
        others = frozenset(one.name for one in offered if isinstance(one, ToolDefinition))
        now_ns = self.clock.now_ns()
        trusts = {one.server: self.trust_of(one.server) for one in offered if isinstance(one, ToolDefinition)}
        prepared = [
            one
            if isinstance(one, Refusal)
            else await anyio.to_thread.run_sync(_prepare, one, others, self.mode, trusts[one.server], now_ns)
            for one in offered
        ]
        prepared = await self._with_before(prepared)

        def work() -> tuple[list[VerifiedTool | Refusal], list[Draft]]:
            results: list[VerifiedTool | Refusal] = []
            drafts: list[Draft] = []
            heads = self.store.pin_heads() if self.mode is not VerificationMode.DISABLED else ()
            accepted = self._accepted(heads)
            alike = self._look_alikes(prepared, heads, reviewed=reviewed)
            for place, one in enumerate(prepared):
                refused = isinstance(one, _Prepared) and place in alike
                judged = _named(one, alike[place]) if refused else one
                result, draft = self._judge(judged, accepted, reviewed=reviewed, older=older)
                results.append(result)
                drafts.append(replace(draft, details={**draft.details, "by": by}) if by else draft)
            return results, drafts

        results, _ = await self.log.transact(work)
        return results

    async def enforce_policies(
        self,
        principal: Principal,
        tool: VerifiedTool,
        arguments: Mapping[str, JsonValue] | None = None,
    ) -> PolicyDecision:
        """What the policies in force say to a call of the tool, without making it and without recording it.

        It is asked as if nothing had come before; the gate itself knows what has.

        Raises:
            InputError: The arguments do not fit the tool, so that there is no question to ask.
        """
        action = InvokeTool(principal=principal, tool=tool.ref, values=arguments or {})
        return await self._engine.evaluate_policy(offline(self._engine.current.counters, action.request()))

    async def _with_before(self, prepared: Sequence["_Prepared | Refusal"]) -> list["_Prepared | Refusal"]:
        """With what a changed definition may say that it succeeds, so that this is not to be found out on the store's thread."""
        found: list[_Prepared | Refusal] = []
        for one in prepared:
            if isinstance(one, _Prepared) and one.examined.entry is not None:
                pin = await self.log.read(partial(self.store.get_pin, one.examined.name))
                if pin is not None and pin.digest != one.examined.digest:
                    before = {pin.digest: await anyio.to_thread.run_sync(signed_digest, pin.definition)}
                    found.append(replace(one, examined=replace(one.examined, before=before)))
                    continue
            found.append(one)
        return found

    def _accepted(self, heads: Sequence[PinHead]) -> frozenset[tuple[str, str]]:
        """Server and key of every pin: such a key is not news."""
        if self.mode is not VerificationMode.STRICT or not any(one.remote for one in self._trust.values()):
            return frozenset()
        return frozenset((pin.tool.partition(".")[0], pin.key_fingerprint) for pin in heads if pin.key_fingerprint)

    def _look_alikes(
        self, prepared: Sequence["_Prepared | Refusal"], heads: Sequence[PinHead], *, reviewed: bool
    ) -> Mapping[int, LookAlike]:
        """What is refused for its name, by its place; what is pinned counts before what is new."""
        if self.mode is VerificationMode.DISABLED:
            return {}
        servers = {one.definition.server for one in prepared}
        taken: dict[str, str] = {}
        known: set[str] = set()
        for pin in heads:
            server, _, name = pin.tool.partition(".")
            if server in servers:
                known.add(name)
            else:
                taken |= dict.fromkeys(keys_of(name), pin.tool)
        shared = [ANY_NAME]
        if self.shared is not None and not reviewed:
            shared = [name for server in servers for name in self.shared.get(server, ())]
        reasons = [one.deceives if isinstance(one, _Prepared) else "" for one in prepared]
        return judge_names([one.definition for one in prepared], taken, shared, known, reasons)

    def _stand(self, one: "_Prepared", found: Judgement, *, first: bool, reviewed: bool) -> Judgement:
        """A judgement after what people have said. On the store's thread; what waits for them is kept with it."""
        name, now = f"{one.definition.server}.{one.definition.name}", rfc3339(self.clock.now_ns())
        if not isinstance(found.error, VerificationError | None) or not found.digest:
            return found
        key = None if found.key is None else self.store.get_review(ReviewKind.KEY, fingerprint(found.key))
        revoked = key.since if key is not None and key.state is ReviewState.REVOKED else ""
        strict = self.mode is VerificationMode.STRICT
        seen = Seen(name, found.digest, one.examined.covered, one.findings, found.error, first, strict, reviewed)
        standing = stand(seen, self.store.get_review(ReviewKind.TOOL, name), key_revoked=revoked, now=now)
        keeps = self.mode is not VerificationMode.DISABLED  # in which nothing is looked at that could be kept
        if keeps and standing.put is not None:
            self.store.put_review(standing.put)
        elif keeps and standing.drop:
            self.store.drop_review(ReviewKind.TOOL, name)
        return replace(found, error=standing.error, pin=found.pin if standing.pins else None)

    def _has_too_many(self, definition: ToolDefinition) -> bool:
        """Whether so many tools of a server were seen for the first time that this one is not kept."""
        new = self._new.setdefault(definition.server, set())
        if definition.name not in new and len(new) >= MAX_NEW:
            return True
        new.add(definition.name)
        return False

    def _judge(
        self, one: "_Prepared | Refusal", accepted: frozenset[tuple[str, str]], *, reviewed: bool, older: bool
    ) -> tuple[VerifiedTool | Refusal, Draft]:
        """On the store's thread, in its transaction: a pin and its event are durable together or not at all."""
        if isinstance(one, Refusal):
            return _refused(one)
        definition = one.definition
        name = f"{definition.server}.{definition.name}"
        trust = one.trust
        if trust.key is not None and (definition.server, fingerprint(trust.key)) in accepted:
            trust = replace(trust, remote=False)
        pinning = self.mode is not VerificationMode.DISABLED
        pin = self.store.get_pin(name) if pinning else None
        if pinning and pin is None and not reviewed and self._has_too_many(definition):
            msg = f"tool `{shown_name(name)}` is refused: its server has offered {MAX_NEW} others that nobody had seen before"
            refused = replace(one.refusal, error=InputError(msg, code="tool.too_many", tool=shown_name(name)))
            return _refused(refused)
        now_ns = self.clock.now_ns()
        found = judge(self.mode, one.examined, trust, pin, now_ns=now_ns, reviewed=reviewed, older=older)
        found = self._stand(one, found, first=pinning and pin is None, reviewed=reviewed)
        if found.pin is not None:
            self.store.put_pin(found.pin)
        facts: dict[str, JsonValue] = {"mode": self.mode.value, "digest": found.digest}
        if found.key is not None:
            facts |= {"key": fingerprint(found.key), "form": found.form}
            facts |= {"domain": self.domain_of(definition.server), "source": trust.source or "public_key"}
            facts |= {"dns": trust.dns} if trust.dns else {}
        if found.error is not None:
            facts |= {"code": found.error.code, "reason": found.error.message} | _findings(one.findings)
            return replace(one.refusal, error=found.error), _draft(AuditEventType.TOOL_REFUSED, name, facts)
        entry = one.entry(self._manifests.get(definition.server))
        ref = ToolRef(
            name=ToolName(name),
            server=definition.server,
            schema_digest=found.digest,
            input_schema=definition.input_schema,
            verified=found.key is not None,
            recovery=entry.recovery,
            flow=entry.flow,
            findings=len(one.findings),
            severity=worst(one.findings),
        )
        proof = Proof(found.digest, found.key, one.print)
        tool = VerifiedTool(
            definition, ref, one.arguments, one.output, entry, found.key, self.mode, proof, one.findings
        )
        kind = AuditEventType.TOOL_PINNED if found.pin is not None else AuditEventType.TOOL_VERIFIED
        facts |= {"signed": ref.verified, "recovery": entry.recovery.value, "reviewed": reviewed}
        facts |= _findings(one.findings)
        return tool, _draft(kind, name, facts)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A definition whose name and schemas can be used, as it was examined under a key, and its print from then.

    `deceives` is what of it does.
    """

    definition: ToolDefinition
    trust: ServerTrust
    examined: Examined
    arguments: Schema
    output: Schema | None
    findings: tuple[Finding, ...]
    print: str
    deceives: str

    @property
    def refusal(self) -> Refusal:
        """It, once it is refused; the error is still to be said."""
        return Refusal(self.definition, InternalError("no reason"), self.findings)

    def entry(self, manifest: Manifest | None) -> ToolEntry:
        return manifest.entry(self.definition.name) if manifest is not None else ToolEntry()


def _prepare(
    definition: ToolDefinition, others: Collection[str], mode: VerificationMode, trust: ServerTrust, now_ns: int
) -> _Prepared | Refusal:
    """All that takes time, and most with hostile content: names, schemas, texts, canonical form, signature. On a thread of its own."""
    name = shown_name(f"{definition.server}.{definition.name}")
    try:
        if not SERVER_NAME.fullmatch(definition.server) or not TOOL_NAME.fullmatch(definition.name):
            msg = f"`{name}` cannot name a tool"
            raise InputError(msg, code="tool.name", hint="letters, digits, `_`, `-` and `.` can; 128 at most")  # noqa: TRY301 - one way out for all refusals
        arguments = Schema(definition.input_schema, f"the input schema of tool `{name}`")
        output = (
            None
            if definition.output_schema is None
            else Schema(definition.output_schema, f"the output schema of tool `{name}`")
        )
    except InputError as error:
        return Refusal(definition, error)
    taken = print_of(definition)
    examined = examine(mode, definition, trust, now_ns)
    wrong = "" if mode is VerificationMode.DISABLED else deceives(definition)
    return _Prepared(definition, trust, examined, arguments, output, screen(definition, others), taken, wrong)


def refuse_duplicates(definitions: Sequence[ToolDefinition]) -> Sequence[ToolDefinition | Refusal]:
    """What a server offers, with those refused of which there are several of one name."""
    count = Counter(definition.name for definition in definitions)
    return [
        definition
        if count[definition.name] == 1
        else Refusal(
            definition,
            InputError(
                f"tool `{shown_name(f'{definition.server}.{definition.name}')}` is offered {count[definition.name]} times",
                code=DUPLICATE,
            ),
        )
        for definition in definitions
    ]


def _named(one: "_Prepared | Refusal", found: LookAlike) -> Refusal:
    """Its refusal for its name."""
    definition = one.definition
    name = shown(f"{definition.server}.{definition.name}")
    hint = None
    if found.shadows:
        hint = f"`mcp.servers.{definition.server}.same_names` says which of its tools may be called as others are"
    error = InputError(f"tool `{name}` is refused: {found.reason}", code="tool.lookalike", hint=hint, tool=name)
    return Refusal(definition, error, one.findings)


def _refused(one: Refusal) -> tuple[Refusal, Draft]:
    name = f"{one.definition.server}.{one.definition.name}"
    facts: dict[str, JsonValue] = {"code": one.error.code, "reason": one.error.message}
    return one, _draft(AuditEventType.TOOL_REFUSED, name, facts | _findings(one.findings))


def _findings(findings: Sequence[Finding]) -> dict[str, JsonValue]:
    """What the trail says of findings: how many, and the worst of them."""
    if not findings:
        return {}
    return {"findings": len(findings), "worst": [one.as_json() for one in findings[:MAX_RECORDED]]}


def _or_raise(result: VerifiedTool | Refusal) -> VerifiedTool:
    if isinstance(result, Refusal):
        raise result.error
    return result


def _draft(kind: AuditEventType, name: str, facts: Mapping[str, JsonValue]) -> Draft:
    return Draft(kind, SYSTEM_AGENT, {"tool": shown_name(name), **facts})
