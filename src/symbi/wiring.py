"""The one place that picks implementations: settings in, a running runtime out. It knows both sides and has no logic."""

import json
import os
import pwd
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio.to_thread

from symbi import __version__
from symbi.adapters.keys import EnvironmentKeyStore, FileKeyStore, KeyringKeyStore
from symbi.adapters.machine import Finding, machine_capacity, probe_machine
from symbi.adapters.monty import MontySandbox
from symbi.adapters.notices import CommandNotice
from symbi.adapters.secrets import EnvironmentSecrets, FileSecrets, KeyringSecrets, SecretChain
from symbi.adapters.sqlite import DATABASE_NAME, SqliteReader, SqliteStore
from symbi.agent.effects import World, no_word
from symbi.agent.interpreter import BodyLimits
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, IdSource, SystemClock
from symbi.config import Settings, describe_settings, refuse_unsafe
from symbi.config.sections import ServerSettings
from symbi.config.settings import OriginKind
from symbi.crypto.keys import KeyRing, KeyStore
from symbi.crypto.provider import CryptoProvider, open_provider
from symbi.crypto.signing import VerifyingKey
from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.dsl.spec import CompiledFile
from symbi.errors import ApprovalPending, ConfigError, InputError, Place, StoreUnavailable, SymbiError, Unavailable
from symbi.guard.desk import ApprovalDesk, DeskRules, Notice
from symbi.guard.gate import Guard, no_probe
from symbi.guard.people import People, Person
from symbi.policy.catalog import ToolType
from symbi.policy.engine import PolicyEngine, PolicySource
from symbi.policy.policies import PolicySet
from symbi.runtime.agent_scheduler import AgentScheduler
from symbi.runtime.resources import Amount, Node, NodeId, ResourcePool
from symbi.runtime.runtime import Rooms, Runtime, RuntimeConfig, all_policies
from symbi.sandbox.pool import Sandboxes
from symbi.telemetry import setup_logging
from symbi.tools.catalog import Catalog, Pin, SecretSource, ServerLink, ToolVerifier, VerificationMode
from symbi.tools.invoke import Invoker
from symbi.tools.manifest import Manifest, parse_manifest
from symbi.tools.schemapin import PublicKey, load_public_key
from symbi.types import SYSTEM_AGENT, AgentId, JsonValue, KeyId, SecurityTier, ToolName

MAX_SOURCE_BYTES: Final = 4_194_304  # one agent file or policy file
UNMEASURED_BANDWIDTH: Final = 1_000_000  # MiB/s and Mibit/s of the pool: bandwidth is claimed, not measured, here
KEYS_FOLDER: Final = "keys"


def start_logging(settings: Settings) -> None:
    """Log to standard error as configured."""
    setup_logging(settings.runtime.log_level.value, json=settings.runtime.log_format.value == "json")


def read_text(path: Path) -> str:
    """A source file as text.

    Raises:
        InputError: It cannot be read, is not UTF-8, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
        text = data.decode()
    except OSError as error:
        msg = f"cannot read `{path}`: {error.strerror or error}"
        raise InputError(msg, code="input.unreadable") from error
    except UnicodeDecodeError as error:
        msg = f"`{path}` is not UTF-8: {error.reason} at byte {error.start}"
        raise InputError(msg, code="input.encoding") from error
    if len(data) > MAX_SOURCE_BYTES:
        msg = f"`{path}` is larger than {MAX_SOURCE_BYTES} bytes"
        raise InputError(msg, code="input.size")
    return text


def compile_agents(path: Path) -> CompiledFile:
    """Read and compile an agent file.

    Raises:
        DslError: It is wrong.
        InputError: It cannot be read.
    """
    text = read_text(path)
    return compile_file(parse(text, str(path)), text)


def read_policies(settings: Settings) -> list[PolicySource]:
    """The policy files that the settings name, in order; names as seen from the configuration's folder.

    Raises:
        ConfigError: A path that was set is not there.
        InputError: A file cannot be read.
    """
    sources: list[PolicySource] = []
    for path in settings.policy.paths:
        found = settings.folder / path
        if found.is_dir():
            files = sorted(found.glob("**/*.cedar"))
        elif found.exists():
            files = [found]
        elif settings.origin("policy.paths").kind is OriginKind.DEFAULT:
            continue
        else:
            msg = f"`policy.paths` names `{path}`, which is not there"
            raise ConfigError(msg, place=settings.origin("policy.paths").place)
        sources += [PolicySource(os.path.relpath(file, settings.folder), read_text(file)) for file in files]
    return sources


def load_policies(settings: Settings, agent_files: Iterable[Path] = (), tools: Sequence[ToolType] = ()) -> PolicySet:
    """The whole policy set, with the policies of some agent files.

    Raises:
        PolicySyntaxError: A policy does not parse or does not fit the schema.
        DslError: An agent file is wrong.
        ConfigError, InputError: Something cannot be read.
    """
    compiled = [policy for path in agent_files for policy in all_policies(compile_agents(path))]
    return PolicySet.load(read_policies(settings), compiled, tools)


def known_tools(settings: Settings) -> tuple[ToolType, ...]:
    """Tools whose definitions are pinned; none where there is no store yet.

    Raises:
        StoreUnavailable: The store is there and cannot be read.
    """
    definitions = [(pin.tool, json.loads(pin.definition)) for pin in known_pins(settings)]
    return tuple(ToolType(ToolName(name), definition["inputSchema"]) for name, definition in definitions)


def known_pins(settings: Settings) -> tuple[Pin, ...]:
    """The pins; none where there is no store yet.

    Raises:
        StoreUnavailable: The store is there and cannot be read.
    """
    if not (settings.runtime.data_dir / DATABASE_NAME).is_file():
        return ()
    with open_reader(settings) as reader:
        return tuple(reader.pins())


def key_store(settings: Settings) -> KeyStore:
    """Where the runtime's keys are."""
    match settings.keys.store.value:
        case "file":
            return FileKeyStore(settings.runtime.data_dir / KEYS_FOLDER)
        case "env":
            return EnvironmentKeyStore(os.environ)
        case _:
            return KeyringKeyStore()


def verifying_keys(settings: Settings) -> dict[KeyId, VerifyingKey]:
    """The public keys that the trail may be signed with.

    Raises:
        ConfigError: There is no key yet, or it is not kept safely.
    """
    provider = open_provider(settings.security.crypto_provider.value)
    key = KeyRing(key_store(settings), provider, create=False).signing_key()
    return {key.key_id: key.verifying_key()}


def open_reader(settings: Settings) -> SqliteReader:
    """The store, read-only, beside its owner; to be entered."""
    return SqliteReader(settings.runtime.data_dir)


def probe(settings: Settings) -> list[Finding]:
    """What this machine can do."""
    return list(probe_machine(settings.runtime.data_dir))


def no_emit(_agent: AgentId, _text: str) -> None:
    """The default of `emit`: nothing."""


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    *,
    clock: Clock | None = None,
    emit: Callable[[AgentId, str], None] = no_emit,
    probe: Callable[[str], None] = no_probe,
    hold_s: float | None = 0.0,
    held: Callable[[ApprovalPending], None] = no_word,
) -> AsyncIterator[Runtime]:
    """A running runtime, from settings.

    Args:
        settings: As `symbi.config.load_settings` read them.
        clock: The machine's if None.
        emit: Takes what runs log and print; nobody if not given.
        probe: Called at named points around each effect; for tests.
        hold_s: How long a run waits for people before it ends as held; None: until they answer or their time is up.
        held: Told of each action that waits for people.

    Raises:
        ConfigError: A setting is unsafe in production mode, or names something that is not there.
        PolicySyntaxError: A policy is wrong.
        ChainBroken: The trail was altered.
        StoreUnavailable: The data folder is owned by another process, or cannot be used.
        InternalError: The gate does not close.
    """
    warnings = refuse_unsafe(settings)
    anyio.to_thread.current_default_thread_limiter().total_tokens = settings.runtime.scheduler_threads
    clock = clock or SystemClock()
    ids = IdSource(clock)
    folder = settings.runtime.data_dir if settings.security.audit_enabled else None
    async with AsyncExitStack() as stack:
        store = stack.enter_context(SqliteStore(folder))
        provider = open_provider(settings.security.crypto_provider.value)
        # A trail that was begun is never continued under another key, so a lost one is not replaced.
        key = KeyRing(key_store(settings), provider, create=store.head() is None).signing_key()
        log = await stack.enter_async_context(AuditLog(store, key, clock, ids))
        await stack.enter_async_context(noting_end(log, store.epoch))
        sources = read_policies(settings)
        engine = PolicyEngine(PolicySet.load(sources))
        guard = Guard(
            engine, log, store, clock, ids,
            epoch=store.epoch, enforcing=settings.security.enforce_policies, probe=probe,
            approvals=ApprovalDesk(log, store, clock, desk_rules(settings, provider)),
        )  # fmt: skip
        report = await guard.open()
        await log.append(started(settings))
        secrets = secret_source(settings, guard)
        links = [await _link(stack, server, settings, guard, secrets) for server in settings.mcp.servers]
        verifier = ToolVerifier(
            VerificationMode(settings.mcp.tool_verification.value), store, log, engine, clock,
            keys=public_keys(settings), manifests=manifests(settings),
        )  # fmt: skip
        catalog = Catalog(guard, verifier, links)
        interpreter = await stack.enter_async_context(MontySandbox(guard.authority))
        world = World(
            guard, log, clock, Invoker(catalog, guard, secrets), Sandboxes({interpreter.tier: interpreter}), emit,
            hold_s, held,
        )  # fmt: skip
        agents = scheduler(settings, clock)
        rooms = Rooms(world, engine, sources, catalog, store, store, agents, ids, settings.principal)
        yield Runtime(rooms, runtime_config(settings), report, warnings)


@asynccontextmanager
async def noting_end(log: AuditLog, epoch: int) -> AsyncIterator[None]:
    """Put the end of a runtime on the trail, and the error that ended it, also one that did not let it begin."""
    details: dict[str, JsonValue] = {"epoch": epoch}
    try:
        yield
    except StoreUnavailable:
        raise  # and nothing can be recorded
    except BaseException as error:
        if isinstance(error, SymbiError):
            details |= {"error": error.code, "reason": str(error)}
        else:
            details["error"] = type(error).__name__
        with suppress(Unavailable):  # the error itself is the one to report
            await log.append(Draft(AuditEventType.RUNTIME_STOPPED, SYSTEM_AGENT, details))
        raise
    await log.append(Draft(AuditEventType.RUNTIME_STOPPED, SYSTEM_AGENT, details))


def started(settings: Settings) -> Draft:
    """The configuration in force, for the trail; secrets show as `set`."""
    shown: dict[str, JsonValue] = {row.key: row.value for row in describe_settings(settings)}
    return Draft(AuditEventType.RUNTIME_STARTED, SYSTEM_AGENT, {"configuration": shown, "version": __version__})


def runtime_config(settings: Settings) -> RuntimeConfig:
    """What the runtime itself is told."""
    tier = settings.security.default_sandbox_tier
    limits = settings.limits
    return RuntimeConfig(
        mode=settings.runtime.mode.value,
        data_folder=str(settings.runtime.data_dir) if settings.security.audit_enabled else "memory",
        verification=settings.mcp.tool_verification.value,
        least_tier=SecurityTier.TIER1 if tier is SecurityTier.INTERPRETER else tier,
        body=BodyLimits(limits.steps, limits.nesting_depth),
        code_memory_mib=limits.code_memory_mb,
        code_timeout_s=limits.code_timeout_s,
        run_timeout_s=limits.run_timeout_s,
        output_bytes=limits.output_bytes,
        base=str(settings.folder),
    )


def folder_owner(settings: Settings) -> int:
    """Number of the operating-system user who owns the data folder; ours where there is none yet."""
    try:
        return settings.runtime.data_dir.stat().st_uid
    except OSError:
        return os.geteuid()


def registered_people(settings: Settings, provider: CryptoProvider) -> People:
    """Who may agree to held actions: those of the configuration, or else whoever owns the data folder.

    Raises:
        ConfigError: A person has neither key nor user, names a user who is not there, or is there twice.
    """
    persons = []
    for one in settings.approvals.people:
        place = settings.origin(f"approvals.people.{one.name}.user").place
        if one.public_key is None and one.user is None:
            msg = f"`approvals.people.{one.name}` has neither `public_key` nor `user`, and so can say nothing"
            raise ConfigError(msg, code="config.people", place=place)
        key = None if one.public_key is None else VerifyingKey.from_hex(one.public_key, provider)
        uid = None if one.user is None else _uid(one.user, place)
        user = "" if uid is None else _user_name(uid)
        persons.append(Person(one.name, uid, user, key, one.groups, one.accounts))
    if not persons:
        uid = folder_owner(settings)
        persons.append(Person(_user_name(uid), uid, _user_name(uid)))
    return People(persons)


def desk_rules(settings: Settings, provider: CryptoProvider) -> DeskRules:
    """What the configuration says of approvals.

    Raises:
        ConfigError: As `registered_people`.
    """
    approvals = settings.approvals
    notices: list[tuple[str, Notice]] = []
    if approvals.notify_command:
        command = CommandNotice(approvals.notify_command, settings.folder, timeout_s=approvals.notify_timeout_s)
        notices.append(("command", command))
    if approvals.notify_webhook is not None:
        from symbi.adapters.webhook import WebhookNotice  # noqa: PLC0415 - an HTTP client, for those who ask for it

        notices.append(("webhook", WebhookNotice(approvals.notify_webhook, timeout_s=approvals.notify_timeout_s)))
    return DeskRules(
        registered_people(settings, provider), approvals.expires_s, tuple(notices), approvals.notify_timeout_s
    )


def _uid(user: str, place: Place | None) -> int:
    try:
        return int(user) if user.isascii() and user.isdigit() else pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        msg = f"there is no operating-system user `{user}`"
        raise ConfigError(msg, code="config.people", place=place) from None


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def scheduler(settings: Settings, clock: Clock) -> AgentScheduler:
    """A scheduler over this machine, or over as much of it as is configured."""
    machine, limits = machine_capacity(), settings.limits
    capacity = Amount(
        memory_mib=machine.memory_mib if limits.memory_mb is None else limits.memory_mb,
        cpu_milli=machine.cpu_milli if limits.cpu_cores is None else round(limits.cpu_cores * 1000),
        disk_mibps=UNMEASURED_BANDWIDTH,
        network_mibitps=UNMEASURED_BANDWIDTH,
    )
    pool = ResourcePool((Node.empty(NodeId("local"), capacity),))
    return AgentScheduler(pool, clock, max_running=settings.runtime.max_concurrent_agents)


def secret_source(settings: Settings, guard: Guard) -> SecretSource:
    """Where `vault://` references resolve, in the configured order."""
    sources: list[SecretSource] = []
    for origin in settings.secrets.sources:
        match origin.value:
            case "env":
                sources.append(EnvironmentSecrets(guard.authority, os.environ))
            case "file":
                sources.append(FileSecrets(guard.authority, settings.secrets_file))
            case _:
                sources.append(KeyringSecrets(guard.authority))
    return SecretChain(sources)


def public_keys(settings: Settings) -> dict[str, PublicKey]:
    """The key that signs each server's tools.

    Raises:
        InputError: A key file cannot be read or is no P-256 key.
    """
    named = [server for server in settings.mcp.servers if server.public_key is not None]
    return {s.name: load_public_key(read_text(settings.folder / (s.public_key or Path()))) for s in named}


def manifests(settings: Settings) -> dict[str, Manifest]:
    """What the operator says of each server's tools.

    Raises:
        ConfigError: A manifest is wrong.
        InputError: It cannot be read.
    """
    named = [(server, server.manifest) for server in settings.mcp.servers if server.manifest is not None]
    return {server.name: parse_manifest(str(path), read_text(settings.folder / path)) for server, path in named}


async def _link(
    stack: AsyncExitStack, server: ServerSettings, settings: Settings, guard: Guard, secrets: SecretSource
) -> ServerLink:
    from symbi.adapters.mcp.server import StdioToolServer  # noqa: PLC0415 - half a second, for those who have tools

    process = await stack.enter_async_context(
        StdioToolServer(
            server.name,
            server.command,
            guard.authority,
            env=dict(server.env),
            cwd=settings.folder / server.cwd if server.cwd else settings.folder,
            secrets=secrets,
            start_timeout_s=settings.mcp.connection_timeout_s,
        )
    )
    timeout_s = server.timeout_s or settings.limits.tool_timeout_s
    return ServerLink(server.name, process.command_line, process, process.secret_paths, timeout_s)
