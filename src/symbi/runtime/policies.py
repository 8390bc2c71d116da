"""The one owner of the policy set in force: what it is made of, and how it changes.

The set is made of the operator's policy files, policies that were registered, the rules of agent files and the tool
catalogue. A change is, in order:

1. checked whole: signatures where they are asked for, then every policy against the schema. What is wrong is put on the
   trail as `policy.refused`, with all of its places, and the old set stays;
2. put on the trail as `policy.changed`. From that event on no decision of the old set goes on record. If the event
   cannot be made durable, the old set stays;
3. put in force as a whole, which revokes every lease.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.crypto.signing import VerifyingKey
from symbi.dsl.spec import CompiledFile, CompiledPolicy
from symbi.errors import (
    InputError,
    PolicySyntaxError,
    SignatureInvalid,
    StoreUnavailable,
    SymbiError,
    VerificationError,
)
from symbi.policy.catalog import ToolType
from symbi.policy.compose import AgentRules, FileRules, compose
from symbi.policy.counters import FILE_NAME
from symbi.policy.decision import PolicyDecision, PolicyRequest
from symbi.policy.diff import compare_sets
from symbi.policy.engine import PolicyEngine
from symbi.policy.policies import PolicySet, PolicyWarning
from symbi.policy.source import PolicySource
from symbi.runtime.policy_signing import Seal, check_succession, remember, verify_bundle
from symbi.runtime.port import Bundle, PolicyMemory
from symbi.telemetry import log_fields
from symbi.types import SYSTEM_AGENT, JsonValue, KeyId, PolicyId

MAX_LISTED: Final = 200  # ids that one event lists of what was added, removed or changed; the counts are always whole
MAX_ERRORS: Final = 50  # errors that one refusal lists

DECLARING: Final[frozenset[str]] = frozenset({FILE_NAME})
"""Names of TOML files that declare something for the set, and so are loaded with it."""

_log = logging.getLogger("symbi.policy")


class Cause(StrEnum):
    """Why the set changed, or was refused."""

    START = "start"
    FILES = "files"
    OPERATOR = "operator"
    REGISTERED = "registered"
    ADMISSION = "admission"
    """What an agent file has against the creation of its agent, while that is decided."""
    AGENT_FILE = "agent_file"
    TOOLS = "tools"
    SHADOW = "shadow"
    """A candidate; the set in force is not touched."""


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """What is asked of policies.

    Attributes:
        rules: What the permits of agent files are worth.
        require_signed: The operator's files must be signed.
        trusted: By whom.
        base: Folder from which policies of agent files are named, so that a set has one version wherever it is loaded
            from; empty leaves names as they are.
    """

    rules: AgentRules = AgentRules.FULL
    require_signed: bool = False
    trusted: Mapping[KeyId, VerifyingKey] = field(default_factory=dict)
    base: str = ""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the set is made of; `pending` are files that wait for the decision on some agents, with the number of these."""

    operator: tuple[PolicySource, ...] = ()
    registered: tuple[PolicySource, ...] = ()
    files: tuple[tuple[str, FileRules], ...] = ()
    pending: tuple[tuple[FileRules, int], ...] = ()

    def all_files(self) -> list[FileRules]:
        """Admitted ones first; one that waits and is admitted already, just as it stands, has nothing to add."""
        admitted = [rules for _, rules in self.files]
        return [*admitted, *(rules for rules, _ in self.pending if replace(rules, admitted=True) not in admitted)]

    def loaded(self) -> tuple[object, ...]:
        """What the set is loaded from: the same for parts that make the same set."""
        return self.operator, self.registered, self.all_files()

    def without(self, rules: FileRules) -> "_Parts":
        """A file waits for one decision less."""
        counts = dict(self.pending)
        counts[rules] -= 1
        return replace(self, pending=tuple((one, count) for one, count in counts.items() if count))

    def admitting(self, waiting: FileRules, file: str, rules: FileRules) -> "_Parts":
        """A file is admitted, in place of an earlier version of it."""
        files = dict(self.files)
        files[file] = rules
        return replace(self.without(waiting), files=tuple(files.items()))

    def staging(self, rules: FileRules) -> "_Parts":
        """A file waits for one decision more."""
        counts = dict(self.pending)
        counts[rules] = counts.get(rules, 0) + 1
        return replace(self, pending=tuple(counts.items()))


class PolicyBook:
    """Composes the set, changes it and records each change.

    Args:
        engine: Holds the set in force; nobody else replaces it.
        log: Makes changes durable.
        memory: Remembers signed sets, in the log's store.
        terms: What is asked of policies.
        tools: The tools that are catalogued now.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        log: AuditLog,
        memory: PolicyMemory,
        terms: PolicyTerms,
        tools: Callable[[], Iterable[ToolType]] = tuple,
    ) -> None:
        self._engine = engine
        self._log = log
        self._memory = memory
        self._terms = terms
        self._parts = _Parts()
        self._lock = anyio.Lock()
        self._last_ticket = 0
        self._tickets: dict[int, FileRules] = {}  # what waits for a decision
        self.tools = tools
        self.warnings: tuple[PolicyWarning, ...] = ()

    @property
    def current(self) -> PolicySet:
        """The set in force."""
        return self._engine.current

    async def evaluate_policy(self, request: PolicyRequest) -> PolicyDecision:
        """Decide with the set in force; nothing is recorded, and nothing may be done on the strength of it."""
        return self._engine.decide(request)

    async def take_up(self, bundles: Sequence[Bundle], cause: Cause = Cause.FILES) -> PolicySet:
        """Put policy files in force in place of all that the operator gave before, registered policies aside.

        Raises:
            PolicySyntaxError: A policy is wrong; the old set stays.
            InputError: A file is not text; likewise.
            SignatureInvalid: Signatures are asked for and one is missing, does not hold or is out of date; likewise.
            StoreUnavailable: The change cannot be recorded; likewise.
        """

        def update(parts: _Parts) -> _Parts:
            return replace(parts, operator=sources_of(bundles))

        return await self._change(cause, update, bundles)

    async def register_policy(self, source: PolicySource) -> PolicyId:
        """Put one more policy in force, for everybody at once; returns its id. It lasts as long as the runtime.

        Raises:
            PolicySyntaxError: It cannot be used beside the others; the old set stays.
            InputError: The source holds more or less than one policy; likewise.
            SignatureInvalid: Policies must be signed; likewise.
            StoreUnavailable: The change cannot be recorded; likewise.
        """
        added: list[PolicyId] = []

        def update(parts: _Parts) -> _Parts:
            if self._terms.require_signed:
                msg = f"the policy in `{source.file}` is refused: it is not signed"
                raise SignatureInvalid(msg, hint="put it into a signed folder of `policy.paths`")
            return replace(parts, registered=(*parts.registered, source))

        def check(old: PolicySet, new: PolicySet) -> None:
            added[:] = [policy.id for policy in new.policies if policy.id not in old.by_id]
            if len(added) != 1:
                msg = f"`{source.file}` holds {len(added)} policies, not one"
                raise InputError(msg, code="policy.invalid")

        await self._change(Cause.REGISTERED, update, check=check)
        return added[0]

    async def stage(self, compiled: CompiledFile) -> int:
        """Let an agent file speak against the creation of its agent, while that is decided; returns a ticket.

        Raises:
            PolicySyntaxError: Its rules do not fit the schema; the old set stays.
            StoreUnavailable: The change cannot be recorded; likewise.
        """
        self._last_ticket += 1
        ticket = self._last_ticket
        waiting = replace(rules_of(compiled, self._terms.base), admitted=False)
        await self._change(Cause.ADMISSION, lambda parts: parts.staging(waiting))
        self._tickets[ticket] = waiting
        return ticket

    async def admit(self, ticket: int, compiled: CompiledFile) -> None:
        """Put the rules of an agent file in force: its agent may be created. An earlier version of it gives way.

        Raises:
            PolicySyntaxError, StoreUnavailable: As `stage`.
        """
        rules, waiting = rules_of(compiled, self._terms.base), self._tickets[ticket]
        await self._change(Cause.AGENT_FILE, lambda parts: parts.admitting(waiting, compiled.file, rules))
        del self._tickets[ticket]

    async def withdraw(self, ticket: int) -> None:
        """Forget an agent file that was staged: its agent was not created.

        Raises:
            StoreUnavailable: The change cannot be recorded; what it had against its creation stays.
        """
        waiting = self._tickets.get(ticket)
        if waiting is not None:
            await self._change(Cause.ADMISSION, lambda parts: parts.without(waiting))
            del self._tickets[ticket]

    async def refresh(self) -> None:
        """Validate the set against the tools that are catalogued now.

        Raises:
            PolicySyntaxError: A policy does not fit a tool; the old set stays, and no new tool can be called.
            StoreUnavailable: The change cannot be recorded; likewise.
        """
        await self._change(Cause.TOOLS, lambda parts: parts)

    async def refuse(self, cause: Cause, refusal: SymbiError) -> None:
        """Record that policies were refused: nothing changes, and the trail says why.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        place = str(refusal.place) if refusal.place else ""
        fields = log_fields(cause=cause.value, code=refusal.code, place=place)
        _log.warning(
            "policies are refused, the old set stays; the event policy.refused of the trail says why", extra=fields
        )
        found = refusal.fields.get("errors")
        errors = list(found) if isinstance(found, Sequence) and not isinstance(found, str) else [str(refusal)]
        details: dict[str, JsonValue] = {
            "cause": cause.value,
            "code": refusal.code,
            "reason": str(refusal),
            "errors": errors[:MAX_ERRORS],
            "error_count": len(errors),
            "version": self._engine.current.version,
        }
        draft = Draft(AuditEventType.POLICY_REFUSED, SYSTEM_AGENT, details)
        await self._log.transact(lambda: (None, (draft,)), wait=True)

    # --- a change ---------------------------------------------------------------------------------

    async def _change(
        self,
        cause: Cause,
        update: Callable[[_Parts], _Parts],
        bundles: Sequence[Bundle] = (),
        check: Callable[[PolicySet, PolicySet], None] | None = None,
    ) -> PolicySet:
        async with self._lock:
            old = self._engine.current
            try:
                seals = self._verify(bundles)
                if seals:
                    await self._log.read(partial(check_succession, seals, self._memory))
                parts = update(self._parts)
                if parts.loaded() == self._parts.loaded() and not bundles and tuple(self.tools()) == old.tools:
                    self._parts = parts
                    return old
                new, warnings = await anyio.to_thread.run_sync(self._load, parts)
                if check is not None:
                    check(old, new)
            except (InputError, VerificationError) as refusal:
                await self.refuse(cause, refusal)
                raise
            if new.version == old.version and cause is not Cause.START:
                new = old
                if seals:
                    await self._log.transact(partial(_remember, seals, self._memory), wait=True)
            with anyio.CancelScope(shield=True):
                if new is not old:
                    await self._record(changed(old, new, cause, seals), seals)
                self._parts, self.warnings = parts, warnings
                if new is not old:
                    self._engine.replace(new)
            return new

    def _verify(self, bundles: Sequence[Bundle]) -> tuple[Seal, ...]:
        if not self._terms.require_signed:
            return ()
        return tuple(verify_bundle(bundle, self._terms.trusted) for bundle in bundles)

    def _load(self, parts: _Parts) -> tuple[PolicySet, tuple[PolicyWarning, ...]]:
        with refusing():
            rules, warnings = compose(parts.all_files(), self._terms.rules)
            loaded = PolicySet.load((*parts.operator, *parts.registered), rules, tuple(self.tools()))
        return loaded, (*loaded.warnings, *warnings)

    async def _record(self, event: Draft, seals: Sequence[Seal]) -> None:
        """Put a change on the trail, and let no decision of the old set come after it; the caller swaps at once."""
        given_up = False

        def work() -> tuple[None, tuple[Draft]]:
            if given_up:
                msg = "the change of policies was given up before it could be recorded"
                raise StoreUnavailable(msg)
            self._engine.close()
            remember(seals, self._memory)
            return None, (event,)

        try:
            await self._log.transact(work, wait=True)
        except BaseException:
            given_up = True
            self._engine.reopen()
            raise


@contextmanager
def refusing() -> Iterator[None]:
    """Policies are read here: whatever a text does to the library that reads them is a refusal of the text.

    Raises:
        InputError: They are wrong, or cannot be read.
    """
    try:
        yield
    except BaseException as error:
        # A panic of Cedar's library is no Exception. What a text can do to it must not end a runtime.
        known = isinstance(error, InputError)
        if known or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
            raise
        msg = f"the policies cannot be read: {type(error).__name__}"
        raise PolicySyntaxError(msg) from error


def _remember(seals: Sequence[Seal], memory: PolicyMemory) -> tuple[None, tuple[()]]:
    remember(seals, memory)
    return None, ()


def changed(old: PolicySet, new: PolicySet, cause: Cause, seals: Sequence[Seal]) -> Draft:
    """The event of a change: both versions, what is another now, and who signed."""
    change = compare_sets(old, new)
    details: dict[str, JsonValue] = {
        "cause": cause.value,
        "version": new.version,
        "previous": old.version,
        "policies": len(new.policies),
        "tools": len(new.tools),
        "signatures": [
            {"path": seal.path, "set": seal.name, "serial": seal.serial, "key_id": seal.key_id} for seal in seals
        ],
    }
    for name, ids in (("added", change.added), ("removed", change.removed), ("changed", change.changed)):
        details |= {name: list(ids[:MAX_LISTED]), f"{name}_count": len(ids)}
    return Draft(AuditEventType.POLICY_CHANGED, SYSTEM_AGENT, details)


def sources_of(bundles: Iterable[Bundle]) -> tuple[PolicySource, ...]:
    """The policies of bundles, and what is declared for them, as texts; other TOML beside them, such as cases, is neither.

    Raises:
        InputError: A file is not UTF-8.
    """
    return tuple(
        PolicySource(file.shown, _text(file.shown, file.data))
        for bundle in bundles
        for file in bundle.files
        if not file.name.endswith(".toml") or file.name.rpartition("/")[2] in DECLARING
    )


def content_of(bundles: Iterable[Bundle]) -> str:
    """SHA-256 (hex) of all files of bundles, with their names."""
    digest = hashlib.sha256()
    for bundle in bundles:
        for file in bundle.files:
            for part in (file.shown.encode("utf-8", "surrogateescape"), file.data):
                digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()


def rules_of(compiled: CompiledFile, base: str = "") -> FileRules:
    """The rules of an admitted agent file, as the set is composed of them; named as seen from a folder, if one is given."""
    return FileRules(tuple(named_from(policy, base) for policy in all_policies(compiled)), admitted=True)


def all_policies(compiled: CompiledFile) -> list[CompiledPolicy]:
    """The policies of a file: those of its agents, and those that stand free."""
    return [*compiled.policies, *(policy for spec in compiled.agents for policy in spec.policies)]


def named_from(policy: CompiledPolicy, base: str) -> CompiledPolicy:
    """A policy of an agent file with the file's name as seen from a folder, whatever the file was called by."""
    if not base:
        return policy
    file = policy.place.file
    named = os.path.relpath(file, base)
    return replace(policy, id=named + policy.id.removeprefix(file), place=replace(policy.place, file=named))


def _text(name: str, data: bytes) -> str:
    try:
        name.encode()
        return data.decode()
    except UnicodeDecodeError as error:
        msg = f"`{name}` is not UTF-8: {error.reason} at byte {error.start}"
        raise InputError(msg, code="input.encoding") from error
    except UnicodeEncodeError as error:
        msg = f"the name of a policy file is not UTF-8: {name!a}"
        raise InputError(msg, code="input.encoding") from error
