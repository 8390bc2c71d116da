"""What a runtime stands on, what it is told, and what it keeps of each agent at work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio

from symbi.agent.effects import World
from symbi.agent.interpreter import BodyLimits
from symbi.agent.journal import RunRecord, RunStore
from symbi.audit.heads import Heads
from symbi.audit.log import Enlisted
from symbi.audit.stream import AuditStream
from symbi.bus.bus import Bus
from symbi.clock import IdSource
from symbi.compliance.privacy import Privacy
from symbi.context.context import Context
from symbi.guard.action import TopicRef
from symbi.guard.budget import Account, BudgetStore
from symbi.guard.ledger import EffectStore
from symbi.knowledge.door import KnowledgeDoor
from symbi.runtime.agent_scheduler import AgentScheduler
from symbi.runtime.compaction import Compactor
from symbi.runtime.dead_letters import DeadLetters
from symbi.runtime.key_change import NextKey
from symbi.runtime.life import Life
from symbi.runtime.lineage import LineageStore
from symbi.runtime.living import Living
from symbi.runtime.mailbox import MailboxStore
from symbi.runtime.occurrences import OccurrenceStore
from symbi.runtime.policies import PolicyBook
from symbi.runtime.policy_watch import PolicyWatch
from symbi.runtime.pulse import Pulse
from symbi.runtime.roster import AgentStore
from symbi.runtime.sealed_mail import SealedMail
from symbi.runtime.status import WaitingStore
from symbi.runtime.terms import Terms, no_terms
from symbi.runtime.workers import Workers
from symbi.tools.catalog import Catalog
from symbi.types import AgentId, Principal, SecurityTier


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """What the runtime itself is told.

    Attributes:
        mode: `development` or `production`, for the start-up line.
        data_folder: Where the store is, for the start-up line.
        verification: Mode of tool verification, for the start-up line.
        least_tier: The least tier for anything but pure computation.
        body: Bounds of a run's body.
        code_memory_mib, code_cpu_milli, code_timeout_s: Bounds of one piece of code.
        run_timeout_s: The longest that any run may take, whatever its file says, and the longest it waits to start.
        output_bytes: The largest value of a run.
        max_living: How many agents that wait for messages are kept in memory.
        max_at_work: How many agents may be at work.
    """

    mode: str
    data_folder: str
    verification: str
    least_tier: SecurityTier
    body: BodyLimits
    code_memory_mib: int
    code_cpu_milli: int
    code_timeout_s: float
    run_timeout_s: float
    output_bytes: int
    max_living: int
    max_at_work: int


@dataclass(frozen=True, slots=True)
class Rooms:
    """The rooms that a runtime stands on.

    Attributes:
        world: Gate, trail, clock, tools, sandboxes.
        policies: The set in force.
        policy_files: Where the operator's part of it comes from.
        catalog: Tools.
        runs: The journal.
        effects: The ledger.
        budgets: Accounts of runs.
        occurrences: What became of the times at which schedules were due.
        agents: Agents that were made to stay.
        mailbox: Messages that wait for them.
        scheduler: Says when an agent may start, and holds the pool.
        ids: Makes run ids.
        principal: An agent as policies see it.
        privacy: Exports and erasures of what is kept of people.
        heads: What others say of the heads of the trail.
        next_key: The key that is to sign the trail after another.
        stream: The trail as it grows.
        workers: Processes that work for runs.
        waiting: Counts what waits in the store.
        letters: What was given up.
        lineage: Which run asked for which.
        mails: Seals and opens what waits in mailboxes and lies with the dead letters.
        bus: Messages between agents, for Python.
        context: What agents remember.
        pulse: How the event loop is.
        terms: How it stands among others.
        topic: A topic as policies see it.
        compactor: Lets go of what ended long ago.
        knowledge: Opens what agents look up.
    """

    world: World
    policies: PolicyBook
    policy_files: PolicyWatch
    catalog: Catalog
    runs: RunStore
    effects: EffectStore
    budgets: BudgetStore
    occurrences: OccurrenceStore
    agents: AgentStore
    mailbox: MailboxStore
    scheduler: AgentScheduler
    ids: IdSource
    principal: Callable[[AgentId], Principal]
    privacy: Privacy
    heads: Heads
    next_key: NextKey
    stream: AuditStream
    workers: Workers
    waiting: WaitingStore
    letters: DeadLetters
    lineage: LineageStore
    mails: SealedMail
    bus: Bus
    context: Context
    pulse: Pulse
    terms: Callable[[AgentId], Terms] = no_terms
    topic: Callable[[str], TopicRef] = TopicRef
    compactor: Compactor | None = None
    knowledge: KnowledgeDoor | None = None


@dataclass(slots=True, eq=False)
class AtWork:
    """An agent at work.

    Attributes:
        life: Where it stands.
        record: Its run.
        scope: What is cancelled to stop it.
        over: Set once its run is over.
        later: What was put in line for the trail and has to be durable before it goes on.
        stopped_by: The operator who has stopped it.
        suspended_by: The operator who has suspended it, wherever it has got to.
        line: The account of its run, and those above it, as they stood last; none where nothing bounds it.
        living: The agent, where it is one that stays.
        waits: It has not begun, and only waits for its turn.
        stays: It was stopped together with all others, and stays where it is one that does.
    """

    life: Life
    record: RunRecord
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    over: anyio.Event = field(default_factory=anyio.Event)
    stopped_by: str = ""
    suspended_by: str = ""
    line: Sequence[Account] = ()
    living: Living | None = None
    waits: bool = False
    stays: bool = False
    later: list[Enlisted[None]] = field(default_factory=list)

    async def recorded(self) -> None:
        """Return once all that was put in line is durable; raises what kept it from that."""
        while self.later:
            await self.later[0].durable()
            del self.later[0]
