"""Living agents: those of the roster that are kept in memory while they wait, and the moves that all of them make.

A living agent that waits is one small object: no task, no queue, no timer. What governs it (its file, its limits, who
it is to policies) is shared by all that were made of one declaration. Who waits longest is passivated: it stays in the
store alone, and is read from there when there is something for it to do.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeAlias

import anyio

from symbi.agent.journal import absolute
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, rfc3339
from symbi.dsl.spec import AgentSpec, CompiledFile
from symbi.errors import InputError, SymbiError, did_you_mean
from symbi.runtime.life import told_reason, transition
from symbi.runtime.lifecycle import FIRST, AgentState, Event, advance
from symbi.runtime.roster import AgentRecord, AgentStore, declared_of
from symbi.runtime.terms import Terms
from symbi.types import AgentId, JsonValue, Principal

AT_ONCE: Final = 10_000  # agents that one commit makes; bounds how long others wait for it
MAX_SPAWNED: Final = 1_000_000  # agents that one order may make
MAX_NAMES: Final = 200  # of each declaration, that are looked at for one that somebody may have meant
INSTANCE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
GOES_ON: Final = frozenset({Event.PREEMPTED.value})
"""Reasons of a suspension that is over once the process is that suspended it."""

NOBODY: Final[Sequence[str]] = ("",)


class Kind:
    """A declaration, with what is shared by all agents that were made of it.

    Args:
        compiled: The file.
        spec: The agent as it is declared there.
        terms: How it stands among others.

    Attributes:
        file: The file as an absolute path.
        living: Those that are in memory, the one that has waited longest first.
        principal: Who they are to policies; None until this process has asked whether they may be created.
        lock: Of who asks that.
    """

    __slots__ = ("compiled", "file", "living", "lock", "principal", "spec", "terms")

    def __init__(self, compiled: CompiledFile, spec: AgentSpec, terms: Terms) -> None:
        self.compiled = compiled
        self.spec = spec
        self.terms = terms
        self.file = absolute(compiled.file)
        self.living: OrderedDict[AgentId, Living] = OrderedDict()
        self.principal: Principal | None = None
        self.lock = anyio.Lock()


class Living:
    """An agent in memory.

    Args:
        kind: What it was made of.
        record: As the store has it.
        now_s: A monotonic time.

    Attributes:
        busy: Somebody has it at work, so that it is not passivated.
        cleared: What suspended it may be over: it asks again.
    """

    __slots__ = ("busy", "cleared", "created_at", "kind", "name", "parent", "reason", "revision", "since_s", "state")

    def __init__(self, kind: Kind, record: AgentRecord, now_s: float) -> None:
        self.kind = kind
        self.name = record.agent_id
        self.state = record.state
        self.revision = record.revision
        self.reason = record.reason
        self.parent = record.parent
        self.created_at = record.created_at
        self.since_s = now_s
        self.busy = False
        self.cleared = False

    @property
    def ready(self) -> bool:
        """It may carry out messages: nobody and nothing has suspended it for longer than the process lives."""
        if self.state is AgentState.SUSPENDED:
            return self.cleared or self.reason in GOES_ON
        return self.state in {AgentState.READY, AgentState.RUNNING}


@dataclass(frozen=True, slots=True)
class Move:
    """A move, or several, of an agent: on its way into the store.

    Attributes:
        living: The agent.
        record: How it is to stand.
        was: Its number of moves before.
    """

    living: Living
    record: AgentRecord
    was: int


Create: TypeAlias = Callable[[Kind, int], Awaitable[Principal]]
"""Asks whether agents of a declaration may be created, and how many at once; answers who they are to policies."""


def _passing(kind: Kind) -> InputError:
    name = kind.spec.id
    hint = f'set `[agents.{name}] mode = "persistent"` in the configuration'
    return InputError(f"agent `{name}` does not stay", code="input.agent", hint=hint)


class Roster:
    """The agents that stay.

    Args:
        agents: Keeps them.
        log: Makes their moves durable.
        clock: For times, and for how long one has waited.
        terms: How a declaration stands among others.
        create: Asks whether agents may be created.
        most: How many of them are kept in memory.

    Attributes:
        kinds: The declarations that are known to this process, by name.
        counts: How many agents there are in each state.
        halted: Who has stopped everything; empty where nobody has.
    """

    def __init__(
        self,
        agents: AgentStore,
        log: AuditLog,
        clock: Clock,
        terms: Callable[[AgentId], Terms],
        create: Create,
        most: int,
    ) -> None:
        self._agents = agents
        self._log = log
        self._clock = clock
        self._terms = terms
        self._create = create
        self._most = most
        self.kinds: dict[AgentId, Kind] = {}
        self.counts: dict[AgentState, int] = {}
        self.halted = ""
        self._living = 0

    async def open(self) -> None:
        """Learn how many there are, and whether somebody has stopped everything.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        counts, self.halted = await self._log.read(lambda: (self._agents.count_agents(), self._agents.halted()))
        self.counts = dict(counts)

    @property
    def living(self) -> int:
        """How many are in memory."""
        return self._living

    # --- declarations ---------------------------------------------------------------------------

    def declare(self, compiled: CompiledFile) -> Sequence[Kind]:
        """Make the agents of a file known; returns those that stay. A later version of the file counts from here on.

        Raises:
            InputError: Another file declares one of that name, and it is to stay.
        """
        found: list[Kind] = []
        for spec in compiled.agents:
            kind, known = Kind(compiled, spec, self._terms(spec.id)), self.kinds.get(spec.id)
            if known is not None and known.file != kind.file and not kind.terms.persistent:
                continue
            if known is not None and known.file != kind.file:
                msg = f"agent `{spec.id}` is declared in `{known.compiled.file}` and in `{compiled.file}`"
                raise InputError(msg, code="input.agent", hint="names of agents are unique in a data folder")
            if known is None:
                self.kinds[spec.id] = known = kind
            elif known.spec.source_digest != spec.source_digest:
                known.compiled, known.spec, known.principal = compiled, spec, None
            if known.terms.persistent:
                found.append(known)
        return found

    def names(self) -> Sequence[AgentId]:
        """Some names of agents that are known here: declarations, and those in memory of each."""
        return [*self.kinds, *(name for kind in self.kinds.values() for name in islice(kind.living, MAX_NAMES))]

    def kind_of(self, agent: AgentId) -> Kind:
        """The declaration of an agent.

        Raises:
            InputError: No file that is known here declares it.
        """
        declared = declared_of(agent)
        kind = self.kinds.get(declared)
        if kind is None:
            msg = f"no agent `{declared}` is declared in the files of this runtime"
            raise InputError(msg, code="input.agent", hint=did_you_mean(declared, self.kinds) or None)
        return kind

    async def principal(self, kind: Kind) -> Principal:
        """Who the agents of a declaration are to policies; asks whether they may be there if nobody has yet.

        Raises:
            Denied: They may not.
            SymbiError: Whatever else keeps them from being created.
        """
        async with kind.lock:
            if kind.principal is None:
                kind.principal = await self._create(kind, 1)
            return kind.principal

    # --- agents ---------------------------------------------------------------------------------

    async def spawn(self, kind: Kind, instances: Sequence[str] = NOBODY, parent: str = "") -> Sequence[AgentId]:
        """Make agents of a declaration, by one decision; returns their names once all are durable.

        Args:
            kind: The declaration.
            instances: A name for each; the empty one is the declaration's own.
            parent: Who asked for them.

        Raises:
            InputError: One is there already and has not failed, a name is none, or they are not to stay.
            Denied: Policy does not let them be created.
            StoreUnavailable: The store cannot be written; of many, the first ones may be there.
        """
        self._check(kind, instances)
        names = [Principal(kind.spec.id, instance=one).name for one in instances]
        async with kind.lock:
            kind.principal = await self._create(kind, len(names))
        for at in range(0, len(names), AT_ONCE):
            await self._make(kind, names[at : at + AT_ONCE], parent)
        return names

    def _check(self, kind: Kind, instances: Sequence[str]) -> None:
        if not kind.terms.persistent:
            raise _passing(kind)
        if not 0 < len(instances) <= MAX_SPAWNED:
            msg = f"{len(instances)} agents cannot be made at once; 1 to {MAX_SPAWNED} can"
            raise InputError(msg, code="input.value")
        if len(set(instances)) != len(instances):
            raise InputError("an instance is named twice", code="input.value")
        for one in instances:
            if one and not INSTANCE.fullmatch(one):
                msg = f"`{one[:80]}` is no name of an instance"
                raise InputError(msg, code="input.value", hint="1 to 64 of A-Z, a-z, 0-9, `_`, `.` and `-`")

    async def numbered(self, kind: Kind, count: int) -> Sequence[str]:
        """Names for so many further instances: numbers behind the greatest there is.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        last = await self._log.read(lambda: self._agents.last_number(kind.spec.id))
        return [str(number) for number in range(last + 1, last + 1 + min(count, MAX_SPAWNED + 1))]

    async def _make(self, kind: Kind, names: Sequence[AgentId], parent: str) -> None:
        now, state = rfc3339(self._clock.now_ns()), advance(FIRST, Event.CONFIG_VALID)
        records = [
            AgentRecord(name, kind.file, kind.spec.source_digest, state, 1, "", parent, now, now) for name in names
        ]
        details = transition(FIRST, Event.CONFIG_VALID, state)
        if len(names) > 1:
            digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
            details |= {"count": len(names), "first": names[0], "last": names[-1], "digest": digest}
        draft = Draft(AuditEventType.AGENT_TRANSITION, names[0] if len(names) == 1 else kind.spec.id, details)

        def work() -> tuple[list[AgentState], tuple[Draft, ...]]:
            found = [one for name in names if (one := self._agents.get_agent(name)) is not None]
            failed = [one for one in found if one.state is AgentState.FAILED]
            for one in failed:  # which nobody has put away
                put_away = replace(one, state=AgentState.TERMINATED, revision=one.revision + 1, changed_at=now)
                self._agents.move_agent(put_away, one.revision)
            self._agents.put_agents(records)
            return [one.state for one in found], (*map(_discarded, failed), draft)

        gone, _ = await self._log.transact(work, wait=True)
        for was in gone:
            self._count(was, -1)
        self._count(state, len(names))
        for record in records:
            self._take(kind, record)

    async def find(self, agent: AgentId) -> Living:
        """An agent, in memory from here on.

        Raises:
            InputError: There is none of that name.
            StoreUnavailable: The store cannot be read.
        """
        kind = self.kind_of(agent)
        found = kind.living.get(agent)
        if found is None:
            record = await self._log.read(lambda: self._agents.get_agent(agent))
            found = kind.living.get(agent)  # somebody else may have found it meanwhile
            if found is None:
                if record is None:
                    raise await self._unknown(kind, agent)
                found = self._take(kind, record)
        self.touch(found)
        return found

    async def _unknown(self, kind: Kind, agent: AgentId) -> InputError:
        if not kind.terms.persistent:
            return _passing(kind)
        near = await self._log.read(lambda: self._agents.agents(None, kind.spec.id, 100))
        names = [one.agent_id for one in near if one.declared == kind.spec.id]
        msg = f"there is no agent `{agent}`"
        known = [kind.spec.id, *names]
        hint = did_you_mean(agent, [one for one in known if one != agent])
        return InputError(msg, code="input.agent", hint=hint or f"`symbi agents spawn {kind.spec.id}` makes one")

    def put_to_work(self, living: Living) -> None:
        """Somebody has it at work: it stays in memory."""
        living.busy = True
        self.touch(living)

    def let_rest(self, living: Living) -> None:
        """It is at work no more; whoever has waited longest is let go where there are too many."""
        living.busy = False
        self.touch(living)
        if self._living > self._most:
            self._passivate_one()

    def touch(self, living: Living) -> None:
        """It has something to do: it waits anew from here on."""
        living.since_s = self._clock.monotonic_s()
        if living.name in living.kind.living:
            living.kind.living.move_to_end(living.name)

    def _take(self, kind: Kind, record: AgentRecord) -> Living:
        """Keep an agent in memory, and let go of the one that has waited longest where that is one too many."""
        living = Living(kind, record, self._clock.monotonic_s())
        if kind.living.pop(living.name, None) is None:
            self._living += 1
        kind.living[living.name] = living
        if self._living > self._most:
            self._passivate_one(living)
        return living

    def _passivate_one(self, newest: Living | None = None) -> None:
        waiting = [
            one for kind in self.kinds.values() if (one := self._longest(kind)) is not None and one is not newest
        ]
        if waiting:
            self._passivate(min(waiting, key=lambda one: one.since_s))

    def _longest(self, kind: Kind) -> Living | None:
        """Who of a declaration has waited longest; those at work stand behind."""
        for _ in range(len(kind.living)):
            found = next(iter(kind.living.values()))
            if not found.busy:
                return found
            kind.living.move_to_end(found.name)
        return None

    def _passivate(self, living: Living) -> None:
        del living.kind.living[living.name]
        self._living -= 1

    def forget(self, living: Living) -> None:
        """Nobody can tell how an agent stands but the store, which is asked again."""
        if living.kind.living.get(living.name) is living:
            self._passivate(living)

    def passivate_idle(self) -> float | None:
        """Passivate all that have waited long enough; returns in how many seconds the next one will have, or None."""
        now_s, following = self._clock.monotonic_s(), None
        for kind in self.kinds.values():
            while (one := self._longest(kind)) is not None:
                left_s = one.since_s + kind.terms.idle_s - now_s
                if left_s > 0:
                    following = left_s if following is None else min(following, left_s)
                    break
                self._passivate(one)
        return following

    # --- moves ----------------------------------------------------------------------------------

    def moving(self, living: Living, state: AgentState, moves: int, reason: str = "") -> Move:
        """What writes that an agent stands somewhere else, so many moves later; `write` and `made` carry it out."""
        record = AgentRecord(
            living.name, living.kind.file, living.kind.spec.source_digest, state, living.revision + moves, reason,
            living.parent, living.created_at, rfc3339(self._clock.now_ns()),
        )  # fmt: skip
        return Move(living, record, living.revision)

    def write(self, move: Move) -> None:
        """Write a move; on the store's thread, in its transaction.

        Raises:
            InputError: The agent has moved meanwhile; nothing is changed.
        """
        self._agents.move_agent(move.record, move.was)

    def made(self, move: Move) -> None:
        """A move is durable: it counts in memory too."""
        living, record = move.living, move.record
        self._count(living.state, -1)
        self._count(record.state, 1)
        living.state, living.revision, living.reason = record.state, record.revision, record.reason
        living.cleared = False
        if living.state is AgentState.TERMINATED and living.kind.living.get(living.name) is living:
            self._passivate(living)

    async def move(self, living: Living, event: Event, by: str = "", *, seen: AgentState | None = None) -> None:
        """Move an agent on, as the table says; returns once that is durable.

        Args:
            living: The agent.
            event: What happens to it.
            by: Who says so.
            seen: Where the caller has seen it; wherever it is, if None.

        Raises:
            InputError: The table has no such move, or it has moved meanwhile.
            StoreUnavailable: It cannot be recorded.
        """
        was = seen or living.state
        state = advance(was, event)
        reason = "" if state is AgentState.READY else told_reason(event, by)
        move = self.moving(living, state, 1, reason)
        if was is not living.state:
            msg = f"agent `{living.name}` is `{living.state}` and no longer `{was}`"
            raise InputError(msg, code="lifecycle.stale", state=living.state.value, wanted=state.value)
        said: dict[str, JsonValue] = {"by": by} if by else {}
        draft = Draft(AuditEventType.AGENT_TRANSITION, living.name, {**transition(was, event, state), **said})

        def work() -> tuple[None, tuple[Draft]]:
            self.write(move)
            return None, (draft,)

        try:
            await self._log.transact(work, wait=True)
        except SymbiError:
            self.forget(living)
            raise
        self.made(move)

    async def halt(self, by: str) -> None:
        """Let nothing begin by itself any more, also after a restart; or, with an empty text, let things go on.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        kind = AuditEventType.RUNTIME_HALTED if by else AuditEventType.RUNTIME_RELEASED
        draft = Draft(kind, AgentId("symbi.system"), {"by": by or self.halted})

        def work() -> tuple[None, tuple[Draft]]:
            self._agents.set_halted(by)
            return None, (draft,)

        if by:
            self.halted = by  # before it is durable: what is to stop stops now
        await self._log.transact(work, wait=True)
        self.halted = by

    def _count(self, state: AgentState, change: int) -> None:
        if change:
            self.counts[state] = self.counts.get(state, 0) + change


def _discarded(record: AgentRecord) -> Draft:
    """The event of a failed agent that makes room for another of its name."""
    details = transition(AgentState.FAILED, Event.DISCARDED, AgentState.TERMINATED)
    return Draft(AuditEventType.AGENT_TRANSITION, record.agent_id, details)
