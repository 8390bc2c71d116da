"""A running runtime, from settings."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from symbi import __version__
from symbi.adapters.keys import EnvironmentKeyStore, FileKeyStore, KeyringKeyStore
from symbi.adapters.machine import Finding, Wanted, machine_capacity, probe_machine
from symbi.adapters.policy_files import PolicyFolders
from symbi.adapters.processes import measure_family, measure_process
from symbi.adapters.secrets import EnvironmentSecrets, FileSecrets, KeyringSecrets, SecretChain
from symbi.adapters.sqlite import SqliteReader, SqliteStore, check_store
from symbi.agent.again import PATIENT, Patience
from symbi.agent.effects import World, no_word
from symbi.agent.interpreter import BodyLimits
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog, Cadence, Signing
from symbi.bus.keybook import KeyBook
from symbi.bus.topics import known_as
from symbi.clock import Clock, IdSource, SystemClock
from symbi.config import AgentMode, Settings, describe_settings, refuse_unsafe
from symbi.crypto.keys import KeyRing, KeyStore
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ApprovalPending, InputError, StoreUnavailable, SymbiError, Unavailable
from symbi.guard.desk import ApprovalDesk
from symbi.guard.gate import Guard, no_probe
from symbi.guard.sealed_approvals import SealedApprovals
from symbi.guard.spending import UNBOUNDED
from symbi.guard.vault import SubjectKeyStore, Vault
from symbi.policy.catalog import ToolType
from symbi.policy.engine import PolicyEngine
from symbi.policy.policies import PolicySet
from symbi.runtime.agent_scheduler import AgentScheduler
from symbi.runtime.collector import Collector
from symbi.runtime.compaction import Compactor
from symbi.runtime.dead_letters import DeadLetters
from symbi.runtime.policies import Cause, PolicyBook
from symbi.runtime.policy_shadow import PolicyShadow
from symbi.runtime.policy_watch import PolicyWatch, Runs, watching
from symbi.runtime.pulse import Pulse
from symbi.runtime.resources import Amount, Node, NodeId, ResourcePool
from symbi.runtime.rooms import Rooms, RuntimeConfig
from symbi.runtime.runtime import Runtime
from symbi.runtime.sealed_mail import SealedMail
from symbi.runtime.terms import Terms
from symbi.runtime.unsealed import seal_unsealed
from symbi.runtime.workers import Workers
from symbi.telemetry import Metrics, setup_logging
from symbi.tools.catalog import Catalog, SecretSource, ServerLink, ToolVerifier, VerificationMode
from symbi.tools.invoke import Invoker
from symbi.tools.reconcile import Reconciler
from symbi.tools.upkeep import Upkeep
from symbi.types import SYSTEM_AGENT, AgentId, JsonValue, KeyId, SecurityTier
from symbi.wiring.bus import opened_bus, topics_of
from symbi.wiring.documents import opened_door, retention
from symbi.wiring.keeping import keeping, probe_storage, refuse_half
from symbi.wiring.memory import opened_memory
from symbi.wiring.people import desk_rules
from symbi.wiring.policies import policy_paths, policy_terms, shadow_paths
from symbi.wiring.privacy import open_privacy
from symbi.wiring.sandboxes import open_sandboxes
from symbi.wiring.servers import manifests, server_links
from symbi.wiring.stream import audit_stream
from symbi.wiring.trust import server_keys

UNMEASURED_BANDWIDTH: Final = 1_000_000  # MiB/s and Mibit/s of the pool: bandwidth is claimed, not measured, here
KEYS_FOLDER: Final = "keys"


def start_logging(settings: Settings) -> None:
    """Log to standard error as configured."""
    setup_logging(settings.runtime.log_level.value, json=settings.runtime.log_format.value == "json")


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
    keys = KeyRing(key_store(settings), provider, create=False).signing_keys()
    return {key.key_id: key.verifying_key() for key in keys}


def open_log(settings: Settings, store: SqliteStore, ring: KeyRing, clock: Clock, ids: IdSource) -> AuditLog:
    """The trail as configured, to be entered.

    Raises:
        ConfigError: There is no key, or it is not kept safely.
    """
    *others, key = ring.signing_keys()
    audit = settings.audit
    return AuditLog(
        store, key, clock, ids,
        others=others,
        signing=Signing(audit.signing.value),
        cadence=Cadence(audit.checkpoint_events, audit.checkpoint_interval_s),
    )  # fmt: skip


def sealing_ring(settings: Settings, store: SqliteStore) -> KeyRing:
    """The ring that has the master key; a lost one is not replaced while there are keys that it wrapped."""
    provider = open_provider(settings.security.crypto_provider.value)
    wrapped = store.any_subject_key() is not None or bool(store.last_epoch())
    return KeyRing(key_store(settings), provider, create=not wrapped)


def open_sealing(settings: Settings, store: SqliteStore, clock: Clock, log: AuditLog) -> tuple[Vault, SealedMail]:
    """What seals in a store: values about people, and messages that wait."""
    provider, ring = open_provider(settings.security.crypto_provider.value), sealing_ring(settings, store)
    vault = Vault(store, ring, provider, clock, log, all_agents=settings.audit.confidential.value == "all")
    book = KeyBook(store, ring, provider, clock, owner=store.epoch)
    book.wrapping.beside, vault.beside = vault.opens_a_key, book.wrapping.opens_a_key
    return vault, SealedMail(book, provider, clock, vault)


def reading_vault(settings: Settings, store: SubjectKeyStore) -> Vault:
    """Opens what is sealed in a store that is read, and makes and destroys nothing."""
    provider = open_provider(settings.security.crypto_provider.value)
    return Vault(store, KeyRing(key_store(settings), provider, create=False), provider, SystemClock())


def reading_mails(settings: Settings, store: SqliteReader) -> SealedMail:
    """Opens what lies with the dead letters of a store that is read, and seals nothing."""
    provider = open_provider(settings.security.crypto_provider.value)
    ring, clock = KeyRing(key_store(settings), provider, create=False), SystemClock()
    return SealedMail(KeyBook(store, ring, provider, clock), provider, clock, reading_vault(settings, store))


def probe(settings: Settings) -> list[Finding]:
    """What this machine can do, and how the store is."""
    health = check_store(settings.runtime.data_dir, SystemClock())
    store = Finding("audit store", health.ok, health.detail, health.hint, required=True)
    sandbox = settings.sandbox
    wanted = Wanted(
        sandbox.docker_host,
        sandbox.image,
        (sandbox.runtime_tier1, sandbox.runtime_tier2),
        sandbox.docker_tls_verify,
        sandbox.docker_cert_path,
        sandbox.docker_plain_tcp,
        sandbox.images,
    )
    return [*probe_machine(settings.runtime.data_dir, wanted=wanted), store, *probe_storage(settings)]


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
    patience: Patience = PATIENT,
) -> AsyncIterator[Runtime]:
    """A running runtime, from settings.

    Args:
        settings: As `symbi.config.load_settings` read them.
        clock: The machine's if None.
        emit: Takes what runs log and print; nobody if not given.
        probe: Called at named points around each effect; for tests.
        hold_s: How long a run waits for people before it ends as held; None: until they answer or their time is up.
        held: Told of each action that waits for people.
        patience: How it waits before something is tried again.

    Raises:
        ConfigError: A setting is unsafe in production mode, or names something that is not there.
        PolicySyntaxError: A policy is wrong.
        ChainBroken: The trail was altered.
        StoreUnavailable: The data folder is owned by another process, or cannot be used.
        InternalError: The gate does not close.
    """
    warnings = refuse_unsafe(settings)
    refuse_half(settings)
    anyio.to_thread.current_default_thread_limiter().total_tokens = settings.runtime.scheduler_threads
    clock = clock or SystemClock()
    ids = IdSource(clock)
    folder = settings.runtime.data_dir if settings.security.audit_enabled else None
    async with AsyncExitStack() as stack:
        store = stack.enter_context(SqliteStore(folder))
        store.probe = probe
        provider = open_provider(settings.security.crypto_provider.value)
        # A trail that was begun is continued by the key that it names, so a lost one is not replaced.
        ring = KeyRing(key_store(settings), provider, create=store.head() is None)
        log = await stack.enter_async_context(open_log(settings, store, ring, clock, ids))
        up = anyio.Event()
        await stack.enter_async_context(noting_end(log, store.epoch, up))
        engine = PolicyEngine(PolicySet.load(()))  # which permits nothing
        book = PolicyBook(engine, log, store, policy_terms(settings))
        watch = PolicyWatch(
            book, PolicyFolders(settings.folder), policy_paths(settings), clock,
            interval_s=settings.policy.watch_interval_s,
        )  # fmt: skip
        await watch.use(await watch.read(), Cause.START)
        vault, mails = open_sealing(settings, store, clock, log)
        await seal_unsealed(log, mails, store, store, partial(verifying_keys, settings))
        guard = Guard(
            engine, log, store, clock, ids,
            epoch=store.epoch, enforcing=settings.security.enforce_policies, probe=probe, vault=vault,
            approvals=ApprovalDesk(log, SealedApprovals(store, vault), clock, desk_rules(settings, provider)),
        )  # fmt: skip
        report = await guard.open()
        await log.append(started(settings))
        heads, keeper = await stack.enter_async_context(
            keeping(settings, log, store, clock, partial(verifying_keys, settings))
        )
        if keeper is not None:
            guard.barrier = keeper.barrier
        secrets = secret_source(settings, guard)
        links, containers = await server_links(stack, settings, guard, secrets, log)
        catalog = tool_catalog(settings, (store, log, clock), guard, links, book)
        workers = Workers(measure_process, measure_family, {link.name: link.pid for link in links})
        sandboxes = await stack.enter_async_context(
            open_sandboxes(settings, guard, log, clock, workers, secrets, containers)
        )
        invoker = Invoker(catalog, guard, secrets)
        door = await stack.enter_async_context(opened_door(settings, store, log, guard, (vault, clock)))
        context = await stack.enter_async_context(opened_memory(settings, store, log, guard, (clock, ids), door))
        world = World(
            guard, log, clock, invoker, sandboxes, emit,
            hold_s, held, reconciler=Reconciler(invoker, catalog, guard, clock), patience=patience,
            memory=context.memory, library=context.library,
        )  # fmt: skip
        privacy = open_privacy(
            settings, store, log, (vault, mails, context.keeping, door), lambda: log.key, clock, probe
        )
        bus = await stack.enter_async_context(opened_bus(settings, store, log, guard, mails, (clock, ids)))
        rooms = Rooms(
            world, book, watch, catalog, store, store, store, store, store, store, scheduler(settings, clock), ids, settings.principal, privacy, heads,
            ring.next_signing_key, await stack.enter_async_context(audit_stream(log, store, folder)), workers, store, DeadLetters(store, store, store, log, mails, vault, clock), store, mails, bus, context,
            pulse_of(settings, guard.metrics), partial(terms_of, settings), partial(known_as, known=topics_of(settings)),
            Compactor(log, store, clock, settings.runtime.journal_retention_days), door,
        )  # fmt: skip
        watches = [watch]
        if settings.policy.shadow:
            shadow = PolicyShadow(engine, book, log)
            guard.tell = shadow.tell
            watches.append(await stack.enter_async_context(shadowing(settings, shadow, clock)))
        runtime = Runtime(rooms, runtime_config(settings), report, warnings)
        await runtime.roster.open()
        looking: list[Runs] = [
            runtime.measuring,
            tool_upkeep(settings, catalog, clock),
            context.keeping,
            retention(settings, store, log, door, clock),
            *(watches if settings.policy.watch else ()),
        ]
        await stack.enter_async_context(beating(rooms.pulse, log, looking))
        up.set()
        yield runtime


def tool_catalog(
    settings: Settings,
    books: tuple[SqliteStore, AuditLog, Clock],
    guard: Guard,
    links: Sequence[ServerLink],
    book: PolicyBook,
) -> Catalog:
    """The catalogue of tools; policies are validated against those that it has."""
    store, log, clock = books
    verifier = ToolVerifier(
        VerificationMode(settings.mcp.tool_verification.value), store, log, guard.engine, clock,
        keys=server_keys(settings, guard.authority, clock), manifests=manifests(settings),
    )  # fmt: skip
    verifier.shared = {server.name: server.same_names for server in settings.mcp.servers}
    catalog = Catalog(guard, verifier, links)
    catalog.changed = book.refresh
    book.tools = lambda: (ToolType(ref.name, ref.input_schema) for ref in catalog.refs)
    return catalog


def tool_upkeep(settings: Settings, catalog: Catalog, clock: Clock) -> Upkeep:
    """Health checks of tool servers, as configured."""
    mcp = settings.mcp
    return Upkeep(catalog, clock, interval_s=mcp.health_interval_s, within_s=mcp.health_timeout_s)


@asynccontextmanager
async def beating(pulse: Pulse, log: AuditLog, watches: Sequence[Runs]) -> AsyncIterator[None]:
    """What goes on by itself while a runtime is up: its pulse, and watches. From here on its collector is in charge."""
    async with watching([pulse, *watches]):
        end = log.on_commit(pulse.stir)
        try:
            with pulse.collector.in_charge():
                yield
        finally:
            end()


@asynccontextmanager
async def shadowing(settings: Settings, shadow: PolicyShadow, clock: Clock) -> AsyncIterator[PolicyWatch]:
    """A candidate set that decides beside the one in force, and what watches its files."""
    files = PolicyFolders(settings.folder)
    watch = PolicyWatch(
        shadow, files, shadow_paths(settings), clock, interval_s=settings.policy.watch_interval_s, cause=Cause.SHADOW
    )
    with suppress(InputError):  # which is recorded: a candidate stops nothing
        await watch.use(await watch.read())
    async with shadow.asking():
        yield watch


@asynccontextmanager
async def noting_end(log: AuditLog, epoch: int, up: anyio.Event) -> AsyncIterator[None]:
    """Put the end of a runtime on the trail, and the error that ended it, also one that did not let it begin.

    Args:
        log: The trail.
        epoch: Number of the owner.
        up: Set once the runtime is up. What ends it from then on stands where it happened, and may quote what is about
            somebody: its text is not repeated.
    """
    details: dict[str, JsonValue] = {"epoch": epoch}
    try:
        yield
    except StoreUnavailable:
        raise  # and nothing can be recorded
    except BaseException as error:
        if isinstance(error, SymbiError):
            details |= {"error": error.code} if up.is_set() else {"error": error.code, "reason": str(error)}
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
        code_cpu_milli=round(settings.sandbox.cpu_cores * 1000),
        code_timeout_s=limits.code_timeout_s,
        run_timeout_s=limits.run_timeout_s,
        output_bytes=limits.output_bytes,
        max_living=settings.runtime.max_living_agents,
        max_at_work=settings.runtime.max_concurrent_agents,
    )


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


def pulse_of(settings: Settings, metrics: Metrics) -> Pulse:
    """What measures this process, by the machine's own clock, and lets its collector look."""
    clock = SystemClock()
    return Pulse(Collector(settings.runtime.gc_interval_ms / 1000, clock, metrics), clock, metrics)


def terms_of(settings: Settings, agent: AgentId) -> Terms:
    """How an agent stands among others, as configured."""
    known = settings.of_agent(agent)
    persistent = known.mode is AgentMode.PERSISTENT
    return Terms(
        known.priority, known.batch, persistent, known.idle_s, known.max_messages, known.topics,
        known.budget or UNBOUNDED, known.on_breach,
    )  # fmt: skip


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
