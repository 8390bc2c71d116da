"""Dispatch: messages become runs.

Which agent is next is the scheduler's to say. It is told of some at a time: `WINDOW` of each declaration at most wait for
their turn, in tasks; all others wait in the store, where they cost nothing. So what is needed does not grow with the
number of agents that have messages, and no declaration (nor any owner of one) keeps another out by its numbers.

As many are at work as may be. Beyond that, one begins that another waits for: who waits keeps its place, and holds
nothing of the pool meanwhile.

An agent takes one message at a time, in the order in which they fell due; no other waits for it. Messages are found by
their place in the order, in pages; those of an agent that is at work are left where they are, and it is asked again
when it is done.
"""

import heapq
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final

import anyio
from anyio.abc import TaskGroup

from symbi.errors import StoreUnavailable, SymbiError, Unavailable
from symbi.policy.policies import PolicySet
from symbi.runtime.errand import NotBegun
from symbi.runtime.errands import Errands
from symbi.runtime.intake import Mail
from symbi.runtime.lifecycle import AgentState, Event
from symbi.runtime.living import Kind, Roster
from symbi.runtime.mailbox import NOW
from symbi.runtime.rooms import AtWork, Rooms
from symbi.runtime.roster import declared_of
from symbi.types import AgentId

_log = logging.getLogger("symbi.runtime")

WINDOW: Final = 256  # agents of one declaration that wait for their turn, each in a task of its own
PAGE: Final = 512  # messages looked at in one read
RIPE_AT_ONCE: Final = 1000  # later messages that one commit lets take their places
MAX_NAP_S: Final = 5.0  # the wall clock is looked at this often while something is to come later, for it may be set
FIRST_RETRY_S: Final = 0.5
MAX_RETRY_S: Final = 30.0  # after which what could not be begun is tried again
NS: Final = 1_000_000_000


@dataclass(slots=True, eq=False)
class Lane:
    """The messages for the agents of one declaration.

    Attributes:
        kind: The declaration.
        opening: It is being asked whether its agents may be there, or will be after a wait.
        refused: How often in a row that came to nothing.
        cursor: Up to which place in the order its messages were looked at.
        dry: There are none behind that.
        reading: They are being looked at.
        found: Agents with messages that were looked at and not begun.
        more: Agents at work with further messages.
        again: Of those, the ones that are done, and whoever else may have some.
        waiting: How many wait for their turn.
        turn: Whether one of `again` was last.
    """

    kind: Kind
    opening: bool = False
    refused: int = 0
    cursor: int = 0
    dry: bool = False
    reading: bool = False
    found: deque[AgentId] = field(default_factory=deque)
    more: set[AgentId] = field(default_factory=set)
    again: dict[AgentId, None] = field(default_factory=dict)
    waiting: int = 0
    turn: bool = False


class Dispatch:
    """Lets agents that stay carry out their messages.

    Args:
        rooms: What the runtime stands on.
        roster: The agents.
        mail: Where messages come in.
        errands: Carries one out.
        most: How many agents may be at work.

    Attributes:
        asked: Agents that others wait for.
        done: Messages that were carried out, held or given up by this process.
        tried: How often a message was begun, or gone on with.
        looks: How often it has looked at what there is to do.
        most_tasks: The most tasks that there ever were at a time.
    """

    def __init__(self, rooms: Rooms, roster: Roster, mail: Mail, errands: Errands, most: int) -> None:
        self._log = rooms.world.log
        self._clock = rooms.world.clock
        self._agents = rooms.agents
        self._mailbox = rooms.mailbox
        self._roster = roster
        self._mail = mail
        self._errands = errands
        self._most = most
        self._lanes: dict[AgentId, Lane] = {}
        self._busy: set[AgentId] = set()
        # A heap: when, whom to ask again, and whether that is a declaration: an agent may bear the name of one.
        self._retries: list[tuple[float, AgentId, bool]] = []
        self._resting: set[AgentId] = set()  # those in there
        self._failures: dict[AgentId, int] = {}
        self._due_ns: int | None = None  # when the first later message is due
        self._anew = True  # another policy set is in force than refused those that are suspended, as far as is known
        self._stopping = False
        self._changed = anyio.Event()
        self._called: set[AgentId] = set()  # of those that others wait for, who may have something to do
        self.asked: Collection[AgentId] = ()
        self.done = 0
        self.tried = 0
        self.looks = 0
        self.most_tasks = 0
        rooms.world.guard.engine.on_change(self._policies_changed)

    @property
    def busy(self) -> int:
        """How many agents are at work, or wait for their turn."""
        return len(self._busy)

    @property
    def idle(self) -> bool:
        """Nothing is at work, and nothing waits that could be begun now."""
        waiting = any(not lane.dry or lane.reading or lane.found or lane.again for lane in self._lanes.values())
        return self.looks > 0 and not (self._busy or waiting or self._retries)

    async def run(self) -> None:
        """Carry out messages until `stop`; then wait for what is at work.

        Raises:
            StoreUnavailable: The store cannot be used; what was begun goes on at the next start.
        """
        self._mail.told = self.call
        self._due_ns = await self._log.read(self._mailbox.earliest_due)
        try:
            async with anyio.create_task_group() as tasks:
                while not self._stopping:
                    self._changed = anyio.Event()
                    await self._ripen()
                    await self._clear_refused()
                    await self._fill(tasks)
                    self.looks += 1
                    await self._nap()
        except BaseExceptionGroup as group:
            lost, others = group.split(StoreUnavailable)
            if lost is None or others is not None:
                raise
            raise _first(lost) from group  # each run that needed the store has met it

    def stop(self, at_work: Sequence[AtWork] = ()) -> None:
        """Begin nothing more, and take in no more messages; who only waits for a turn waits no longer.

        Args:
            at_work: The runs there are.
        """
        self._stopping = True
        self._mail.closed = True
        for one in at_work:
            if one.living is not None and one.waits:
                one.stays = True
                one.scope.cancel("the runtime is shutting down")
        self.wake()

    def wake(self) -> None:
        """Look at what there is to do now."""
        self._changed.set()

    def call(self, agents: Sequence[AgentId], due_ns: int = NOW) -> None:
        """Messages have come for some agents, to be carried out at a time."""
        if due_ns == NOW:
            for agent in agents:
                kind = self._roster.kinds.get(declared_of(agent))
                if kind is None:  # which no file of this process declares: its messages wait for one that has it
                    continue
                self._lane(kind).dry = False
                if agent in self.asked:
                    self._called.add(agent)
        else:
            self._due_ns = due_ns if self._due_ns is None else min(due_ns, self._due_ns)
        self.wake()

    def release(self, agent: AgentId) -> None:
        """An agent that was suspended may go on with what waits for it."""
        lane = self._lane(self._roster.kind_of(agent))
        lane.more.add(agent)
        if agent not in self._busy:
            lane.again[agent] = None
            if agent in self.asked:
                self._called.add(agent)
        self.wake()

    async def clear(self, agent: AgentId) -> None:
        """What suspended an agent may be over: it asks again. Nothing happens to one that is not suspended, or by an operator.

        Raises:
            InputError: There is none of that name.
            StoreUnavailable: The store cannot be read.
        """
        living = await self._roster.find(agent)
        if living.state is AgentState.SUSPENDED and not living.reason.startswith(Event.OPERATOR_SUSPENDED):
            living.cleared = True
            self.release(agent)

    def _policies_changed(self, _policies: PolicySet) -> None:
        self._anew = True
        self.wake()

    async def _clear_refused(self) -> None:
        """Another policy set is in force: those that one has refused ask again, and may be refused again."""
        if not self._anew:
            return
        self._anew, after = False, ""
        while page := await self._log.read(partial(self._agents.agents, AgentState.SUSPENDED, after, PAGE)):
            for record in page:
                if record.reason.startswith(Event.POLICY_VIOLATION) and record.declared in self._roster.kinds:
                    await self.clear(record.agent_id)
            after = page[-1].agent_id

    def look_again(self, kind: Kind) -> None:
        """Agents of a declaration were made anew, whose messages may have been passed over."""
        lane = self._lane(kind)
        lane.cursor, lane.dry = 0, False
        self.wake()

    def _lane(self, kind: Kind) -> Lane:
        lane = self._lanes.get(kind.spec.id)
        if lane is None:
            lane = self._lanes[kind.spec.id] = Lane(kind)
        return lane

    # --- what is next ---------------------------------------------------------------------------

    async def _ripen(self) -> None:
        """Let messages take their places whose time has come."""
        now_ns = self._clock.now_ns()
        if self._due_ns is None or self._due_ns > now_ns:
            return
        more = True
        while more:
            found, _ = await self._log.transact(lambda: (self._mailbox.ripen(now_ns, RIPE_AT_ONCE), ()), wait=True)
            more = len(found) == RIPE_AT_ONCE
        for lane in self._lanes.values():
            lane.dry = False
        self._due_ns = await self._log.read(self._mailbox.earliest_due)

    async def _fill(self, tasks: TaskGroup) -> None:
        """Begin with as many agents as there is room for, declarations in turn."""
        for kind in self._roster.kinds.values():
            self._lane(kind)
        now_s = self._clock.monotonic_s()
        while self._retries and self._retries[0][0] <= now_s:
            _, whom, declaration = heapq.heappop(self._retries)
            if declaration:
                self._lanes[whom].opening = False
            else:
                self._resting.discard(whom)
                self.release(whom)
        turns = deque(self._lanes.values())
        while turns and len(self._busy) < self._most and not self._stopping and not self._roster.halted:
            lane = turns.popleft()
            if lane.waiting >= WINDOW:
                continue
            agent = await self._next(lane)
            if agent is None:
                continue
            if lane.kind.principal is None:
                lane.found.appendleft(agent)
                self._bring_to_life(lane, tasks)
                continue
            self._begin(lane, agent, tasks)
            self._lanes[lane.kind.spec.id] = self._lanes.pop(lane.kind.spec.id)  # the others come before it
            turns.append(lane)
        self._called.intersection_update(self.asked)
        if not self._stopping and not self._roster.halted:
            self._begin_asked(tasks)

    def _begin_asked(self, tasks: TaskGroup) -> None:
        """Begin with those that others wait for, also where as many are at work as may be."""
        for agent in self._called - self._busy - self._resting:
            lane = self._lane(self._roster.kind_of(agent))
            if lane.kind.principal is None:
                self._bring_to_life(lane, tasks)
                continue
            self._called.discard(agent)
            lane.again.pop(agent, None)
            lane.more.add(agent)  # what it is asked may stand behind others
            self._begin(lane, agent, tasks)

    def _bring_to_life(self, lane: Lane, tasks: TaskGroup) -> None:
        if not lane.opening:
            lane.opening = True
            tasks.start_soon(self._open, lane)

    def _begin(self, lane: Lane, agent: AgentId, tasks: TaskGroup) -> None:
        self._busy.add(agent)
        self.most_tasks = max(self.most_tasks, len(self._busy))
        lane.waiting += 1
        tasks.start_soon(self._tend, lane, agent)

    async def _next(self, lane: Lane) -> AgentId | None:
        """The next agent of a declaration that may have something to do, and is not at work."""
        while True:
            if lane.again and (lane.dry or not lane.turn) and not (lane.turn and lane.found):
                agent = next(iter(lane.again))
                del lane.again[agent]
                lane.turn = True
            elif lane.found:
                agent, lane.turn = lane.found.popleft(), False
            elif lane.dry:
                return None
            else:
                await self._page(lane)
                continue
            if agent not in self._busy and agent not in self._resting:
                return agent
            lane.more.add(agent)

    async def _page(self, lane: Lane) -> None:
        lane.dry = lane.reading = True  # dry unless another comes while this is read
        try:
            rows = await self._log.read(partial(self._mailbox.waiting_agents, lane.kind.spec.id, lane.cursor, PAGE))
        finally:
            lane.reading = False
        if rows:
            lane.cursor, lane.dry = rows[-1][0], False
        seen: set[AgentId] = set()
        for _, agent in rows:
            if agent in seen or agent in self._busy:
                lane.more.add(agent)
            else:
                seen.add(agent)
                lane.found.append(agent)

    async def _nap(self) -> None:
        if self._stopping:
            return
        left_s = self._roster.passivate_idle()
        until_s = inf if left_s is None else left_s
        if self._retries:
            until_s = min(until_s, self._retries[0][0] - self._clock.monotonic_s())
        if self._due_ns is not None:
            until_s = min(until_s, MAX_NAP_S, (self._due_ns - self._clock.now_ns()) / NS)
        with anyio.move_on_after(max(0.0, until_s)):
            await self._changed.wait()

    # --- in tasks -------------------------------------------------------------------------------

    async def _open(self, lane: Lane) -> None:
        """Ask whether the agents of a declaration may be there: once for all of them."""
        name = lane.kind.spec.id
        try:
            await self._roster.principal(lane.kind)
            lane.opening, lane.refused = False, 0
        except SymbiError as error:
            if _is_store(error):
                raise
            _log.warning("messages for agent `%s` wait: %s", name, error.code)
            self._open_later(lane)
        except Exception as error:  # noqa: BLE001 - a defect that one declaration meets
            _log.error("agent `%s` cannot be brought to life", name, exc_info=error)
            self._open_later(lane)
        self.wake()

    async def _tend(self, lane: Lane, agent: AgentId) -> None:
        """One message of one agent. What it meets ends no other."""
        waits = True

        def seated() -> None:
            nonlocal waits
            if waits:
                waits = False
                lane.waiting -= 1
                self.wake()

        ready = True
        try:
            ready = await self._carry_out(lane, agent, seated)
        except NotBegun as refusal:
            _log.warning("a message for agent `%s` waits: %s", agent, refusal.error.code)
            self._later(agent)
        except Unavailable as error:
            if _is_store(error):
                raise
            _log.warning("a message for agent `%s` waits: %s", agent, error.code)
            self._later(agent)
        except Exception as error:  # noqa: BLE001 - a defect that one agent meets; its run is left as it is
            _log.error("agent `%s` met a defect", agent, exc_info=error)
            self._later(agent)
        finally:
            seated()
            self._busy.discard(agent)
            if agent in lane.more and ready and agent not in self._resting:
                lane.again[agent] = None
                if agent in self.asked:
                    self._called.add(agent)
            self.wake()

    async def _carry_out(self, lane: Lane, agent: AgentId, seated: Callable[[], None]) -> bool:
        """Whether the agent may have more to do."""
        principal = lane.kind.principal
        if principal is None:  # its file has changed under it: it is asked for anew
            lane.more.add(agent)
            return True
        living = await self._roster.find(agent)
        if not living.ready:
            return False
        self._roster.put_to_work(living)
        try:
            done = await self._errands.carry_out(living, principal, seated)
        except NotBegun as refusal:
            if refusal.error.code == "lifecycle.stale":
                self._roster.forget(living)
            raise
        finally:
            self._roster.let_rest(living)
        self._failures.pop(agent, None)
        if done.left:  # its place in the order was passed
            lane.more.add(agent)
            return living.ready
        self.tried += done.there
        if not done.there:
            lane.more.discard(agent)
        elif done.again_s is None:
            self.done += 1
        else:
            self._ask_again(agent, done.again_s)
        return living.ready

    def _later(self, agent: AgentId) -> None:
        """Ask again after a while, which grows each time."""
        failures = self._failures[agent] = self._failures.get(agent, 0) + 1
        self._ask_again(agent, _wait_s(failures))

    def _open_later(self, lane: Lane) -> None:
        """Ask again after a while whether the agents of a declaration may be there."""
        lane.refused += 1
        again_s = self._clock.monotonic_s() + _wait_s(lane.refused)
        heapq.heappush(self._retries, (again_s, lane.kind.spec.id, True))

    def _ask_again(self, agent: AgentId, wait_s: float) -> None:
        """Nothing of an agent is begun for so long."""
        if agent not in self._resting:
            self._resting.add(agent)
            heapq.heappush(self._retries, (self._clock.monotonic_s() + wait_s, agent, False))


def _wait_s(failures: int) -> float:
    """How long to wait before something is tried again that has failed so often in a row."""
    return min(MAX_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures - 1, 10))


def _is_store(error: SymbiError) -> bool:
    """The store itself fails, and not what one agent wanted of it."""
    return isinstance(error, StoreUnavailable) and error.code != "unavailable.undecided"


def _first(group: BaseExceptionGroup[StoreUnavailable]) -> StoreUnavailable:
    """The first error of a group, however nested."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
