"""Which tools may be called: `judge` decides from values alone, `ToolVerifier` reads and writes pins and the trail.

| mode | signature | first sight | later |
|---|---|---|---|
| strict | must hold under the server's configured key, before anything is pinned | key and definition are pinned | both must be as pinned |
| tofu | may be missing; one that is there must hold | likewise | likewise: also an unsigned tool must not change |
| disabled | not looked at | nothing is pinned | not looked at; every use warns |

A changed tool is quarantined until a person has reviewed it and pins it anew (`ToolVerifier.pin_tool`), or until its
server offers again what was pinned.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import anyio.to_thread

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, rfc3339
from symbi.errors import InputError, InternalError, PinMismatch, SignatureInvalid, SymbiError, VerificationError
from symbi.guard.action import InvokeTool, ToolRef
from symbi.policy.decision import PolicyDecision
from symbi.policy.engine import PolicyEngine
from symbi.policy.history import offline
from symbi.tools.manifest import Manifest, ToolEntry
from symbi.tools.port import SERVER_NAME, TOOL_NAME, Pin, PinStore, ToolDefinition
from symbi.tools.schemapin import PublicKey, canonical_definition, digest_of, fingerprint, signature_of, verify
from symbi.tools.schemas import Schema
from symbi.tools.text import shown_name
from symbi.types import SYSTEM_AGENT, JsonValue, Principal, ToolName

_log = logging.getLogger("symbi.tools")

PINNED: Final = "pinned"
QUARANTINED: Final = "quarantined:"
"""State of a pin whose tool has changed; the digest that was seen follows."""


class VerificationMode(StrEnum):
    """Which tools may be called."""

    STRICT = "strict"
    TOFU = "tofu"
    DISABLED = "disabled"


_PROOF: Final = object()


@dataclass(frozen=True, slots=True)
class VerifiedTool:
    """A tool that passed the configured verification. `ToolVerifier` alone makes one, so having one is the proof.

    Attributes:
        definition: As the server gave it.
        ref: What the gate sees of it; `ref.verified` says that a signature holds.
        arguments: Validates its arguments.
        output: Validates its structured output, if it declares any.
        entry: What the operator's manifest says of it.
        key: The key that signed it, or None.
        mode: The mode that it passed.
    """

    definition: ToolDefinition
    ref: ToolRef
    arguments: Schema = field(repr=False, compare=False)
    output: Schema | None = field(repr=False, compare=False)
    entry: ToolEntry
    key: PublicKey | None = field(repr=False, compare=False)
    mode: VerificationMode
    proof: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.proof is not _PROOF:
            msg = "a verified tool is made by the verifier alone"
            raise InternalError(msg, code="internal.unverified")

    def confirm(self) -> None:
        """Return if the definition is still what was verified.

        Raises:
            PinMismatch: Its digest is another.
            SignatureInvalid: Its signature does not hold.
        """
        if self.mode is VerificationMode.DISABLED:
            return
        if digest_of(canonical_definition(self.definition)) != self.ref.schema_digest:
            msg = f"tool `{self.ref.name}` is not what was verified"
            raise PinMismatch(msg, tool=self.ref.name)
        if self.key is not None:
            verify(self.definition, signature_of(self.definition) or "", self.key)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A tool that may not be called, and why."""

    definition: ToolDefinition
    error: SymbiError


@dataclass(frozen=True, slots=True)
class Judgement:
    """What `judge` found.

    Attributes:
        error: Why the tool may not be called, or None.
        pin: What the pin becomes, or None where it stays.
        digest: SHA-256 (hex) of the canonical definition; empty where it has no canonical form.
        key: The key under which a signature holds, or None.
    """

    error: SymbiError | None
    pin: Pin | None = None
    digest: str = ""
    key: PublicKey | None = None


def judge(
    mode: VerificationMode,
    definition: ToolDefinition,
    key: PublicKey | None,
    pin: Pin | None,
    *,
    now: str,
    reviewed: bool = False,
) -> Judgement:
    """Judge one definition.

    Args:
        mode: Strict or tofu; disabled asks nothing.
        definition: As the server gave it.
        key: The server's configured public key, if any.
        pin: What is pinned for this tool, if anything.
        now: RFC 3339, for a new pin.
        reviewed: A person has looked at the definition: it replaces the pin. The signature is checked all the same.
    """
    name = f"{definition.server}.{definition.name}"
    # 1. the canonical form: what cannot be signed cannot be pinned
    try:
        canonical = canonical_definition(definition)
    except InputError as error:
        if mode is VerificationMode.DISABLED:
            return Judgement(None, digest=digest_of(repr(definition).encode("utf-8", "replace")))
        return Judgement(error)
    digest = digest_of(canonical)
    if mode is VerificationMode.DISABLED:
        return Judgement(None, digest=digest)
    # 2. the signature, before any pin is looked at
    try:
        form = _check_signature(mode, definition, key, name)
    except VerificationError as error:
        return Judgement(error, digest=digest)
    signed = fingerprint(key) if key is not None and form else ""
    fresh = Pin(name, signed, digest, form, canonical.decode(), now, PINNED)
    by = key if form else None
    # 3. the pin
    if pin is None or reviewed:
        return Judgement(None, fresh, digest, by)
    if pin.digest == digest and pin.key_fingerprint == signed:
        return Judgement(None, None if pin.state == PINNED else replace(pin, state=PINNED), digest, by)
    if pin.digest == digest and not pin.key_fingerprint:
        return Judgement(None, fresh, digest, by)  # it was unsigned and is signed now, with nothing else changed
    what = "definition" if pin.digest != digest else "key"
    mismatch = PinMismatch(
        f"the {what} of tool `{name}` has changed since it was pinned on {pin.pinned_at[:10]}",
        hint=f"review it, then `symbi tools pin {name}`",
        tool=name,
        pinned=pin.digest,
        seen=digest,
    )
    return Judgement(mismatch, replace(pin, state=QUARANTINED + digest), digest, by)


def _check_signature(mode: VerificationMode, definition: ToolDefinition, key: PublicKey | None, name: str) -> str:
    """The form of the signature that holds, or empty where tofu lets an unsigned tool pass."""
    signature = signature_of(definition)
    if signature is None and mode is VerificationMode.TOFU:
        return ""
    if signature is None:
        msg = f"tool `{name}` is not signed"
        hint = 'sign it with `symbi tools sign`, or set `mcp.tool_verification = "tofu"`'
        raise SignatureInvalid(msg, hint=hint, tool=name)
    if key is None:
        msg = f"tool `{name}` is signed, and no public key is configured for server `{definition.server}`"
        raise SignatureInvalid(msg, hint=f"set `mcp.servers.{definition.server}.public_key`", tool=name)
    return verify(definition, signature, key).value


class ToolVerifier:
    """Verifies tools against signatures and pins, and records each verdict in the trail.

    Args:
        mode: Strict, tofu or disabled.
        pins: Durable pins, in the log's store.
        log: The trail.
        engine: For `enforce_policies`.
        clock: Dates pins.
        keys: Public key by server.
        manifests: Operator manifest by server.
    """

    def __init__(
        self,
        mode: VerificationMode,
        pins: PinStore,
        log: AuditLog,
        engine: PolicyEngine,
        clock: Clock,
        *,
        keys: Mapping[str, PublicKey] | None = None,
        manifests: Mapping[str, Manifest] | None = None,
    ) -> None:
        self.mode = mode
        self._pins = pins
        self.log = log
        self._engine = engine
        self.clock = clock
        self._keys = keys or {}
        self._manifests = manifests or {}
        if mode is VerificationMode.DISABLED:
            _log.warning("tool verification is disabled: any tool can be called, whatever it has become")

    def declared(self, server: str, tool: str) -> ToolEntry | None:
        """What the operator's manifest says of a tool by its name on its server; None without a manifest."""
        manifest = self._manifests.get(server)
        return None if manifest is None else manifest.entry(tool)

    async def verify_tool(self, definition: ToolDefinition) -> VerifiedTool:
        """Verify one tool; at first sight it is pinned.

        Raises:
            SignatureInvalid: It is not signed, or its signature does not hold.
            PinMismatch: Key or definition has changed since it was pinned.
            InputError: Its name or schemas cannot be used, or its content cannot be signed.
            StoreUnavailable: Pins or trail cannot be read or written.
        """
        return _or_raise((await self.verify_all([definition]))[0])

    async def pin_tool(self, definition: ToolDefinition) -> VerifiedTool:
        """Pin what a person has reviewed, in place of what was pinned; in strict mode it must be signed all the same.

        Raises:
            As `verify_tool`, but for `PinMismatch`.
        """
        return _or_raise((await self.verify_all([definition], reviewed=True))[0])

    async def verify_all(
        self, definitions: Iterable[ToolDefinition], *, reviewed: bool = False
    ) -> Sequence[VerifiedTool | Refusal]:
        """Verify what a server offers, in one transaction with the record of it.

        Raises:
            StoreUnavailable: Pins or trail cannot be read or written.
        """
        prepared = [await anyio.to_thread.run_sync(_prepare, definition) for definition in definitions]

        def work() -> tuple[list[VerifiedTool | Refusal], list[Draft]]:
            results: list[VerifiedTool | Refusal] = []
            drafts: list[Draft] = []
            for one in prepared:
                result, draft = self._judge(one, reviewed=reviewed)
                results.append(result)
                drafts.append(draft)
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

    def _judge(self, one: "_Prepared | Refusal", *, reviewed: bool) -> tuple[VerifiedTool | Refusal, Draft]:
        """On the store's thread, in its transaction: a pin and its event are durable together or not at all."""
        definition = one.definition
        name = f"{definition.server}.{definition.name}"
        if isinstance(one, Refusal):
            return one, _draft(AuditEventType.TOOL_REFUSED, name, {"code": one.error.code, "reason": one.error.message})
        key = self._keys.get(definition.server)
        pinning = self.mode is not VerificationMode.DISABLED
        pin = self._pins.get_pin(name) if pinning else None
        now = rfc3339(self.clock.now_ns())
        found = judge(self.mode, definition, key, pin, now=now, reviewed=reviewed)
        if found.pin is not None:
            self._pins.put_pin(found.pin)
        facts: dict[str, JsonValue] = {"mode": self.mode.value, "digest": found.digest}
        if found.error is not None:
            facts |= {"code": found.error.code, "reason": found.error.message}
            return Refusal(definition, found.error), _draft(AuditEventType.TOOL_REFUSED, name, facts)
        entry = one.entry(self._manifests.get(definition.server))
        ref = ToolRef(
            name=ToolName(name),
            server=definition.server,
            schema_digest=found.digest,
            input_schema=definition.input_schema,
            verified=found.key is not None,
            recovery=entry.recovery,
            flow=entry.flow,
        )
        tool = VerifiedTool(definition, ref, one.arguments, one.output, entry, found.key, self.mode, _PROOF)
        kind = AuditEventType.TOOL_PINNED if found.pin is not None else AuditEventType.TOOL_VERIFIED
        facts |= {"signed": ref.verified, "recovery": entry.recovery.value, "reviewed": reviewed}
        if found.key is not None:
            facts["key"] = fingerprint(found.key)
        return tool, _draft(kind, name, facts)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A definition whose name and schemas can be used."""

    definition: ToolDefinition
    arguments: Schema
    output: Schema | None

    def entry(self, manifest: Manifest | None) -> ToolEntry:
        return manifest.entry(self.definition.name) if manifest is not None else ToolEntry()


def _prepare(definition: ToolDefinition) -> _Prepared | Refusal:
    """Check the names and compile the schemas; on a thread, for a hostile schema takes a while to refuse."""
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
    return _Prepared(definition, arguments, output)


def _or_raise(result: VerifiedTool | Refusal) -> VerifiedTool:
    if isinstance(result, Refusal):
        raise result.error
    return result


def _draft(kind: AuditEventType, name: str, facts: Mapping[str, JsonValue]) -> Draft:
    return Draft(kind, SYSTEM_AGENT, {"tool": shown_name(name), **facts})
