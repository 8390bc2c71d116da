"""A runtime that stays: it runs the agents of its files when their schedules are due, until it is told to stop.

1. what was claimed before and is not over goes on: a crash loses no occurrence, and repeats none;
2. what was missed while nobody ran is made up for by one run each, and the trail says how many it stands for;
3. then each schedule is waited for. An agent that is still at work, or suspended, when it is due again is not started
   twice. What a run meets on its way is for `symbi.runtime.supervision`.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from symbi.agent.journal import RunState, absolute
from symbi.audit.event import AuditEventType, Draft
from symbi.clock import rfc3339
from symbi.dsl.spec import CompiledFile, ScheduleSpec
from symbi.errors import Denied, InputError, Overloaded, StoreUnavailable, SymbiError
from symbi.runtime.asked import Asked
from symbi.runtime.course import Order
from symbi.runtime.dead_letters import LetterKind
from symbi.runtime.delivery import deliver
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.occurrences import Occurrence, OccurrenceState, OccurrenceStore, Owed, owed
from symbi.runtime.replays import Begun, Replayer, left_open
from symbi.runtime.runtime import Runtime
from symbi.runtime.supervision import Supervision, Work
from symbi.types import AgentId, JsonValue, RunId

_log = logging.getLogger("symbi.runtime")

MAX_NAP_S: Final = 5.0  # the wall clock is looked at this often, for it may be set
MAX_AHEAD_S: Final = 31 * 86_400  # by which a clock may have been ahead, and what was due by it is not due again
NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Job:
    """A schedule and the file that its agent stands in."""

    compiled: CompiledFile
    schedule: ScheduleSpec

    @property
    def name(self) -> str:
        """File and name; two files may use one name."""
        return f"{absolute(self.compiled.file)}#{self.schedule.name}"


class Host:
    """Runs what is due.

    Args:
        runtime: Runs agents, and keeps the books.
        files: The files whose schedules count.

    Raises:
        InputError: A schedule is to deliver what an agent gives that stays.
    """

    def __init__(self, runtime: Runtime, files: Sequence[CompiledFile]) -> None:
        self._runtime = runtime
        self._log = runtime.rooms.world.log
        self._clock = runtime.rooms.world.clock
        self._supervision = Supervision(runtime)
        runtime.post.questions.carry_out = Asked(runtime, self._supervision).carry_out
        runtime.post.addresses.files += files
        self._files = tuple(files)
        self.jobs = tuple(Job(compiled, schedule) for compiled in files for schedule in compiled.schedules)
        for job in self.jobs:
            self._refuse_mute(job)
        self._since_ns: dict[str, int] = {}  # of each schedule, up to when it owes nothing
        self._ahead_ns: dict[str, int] = {}  # when it was due by a clock that was further ahead than is waited for
        self._spent: set[str] = set()  # those that were to run once, and have
        self.at_work: set[AgentId] = set()  # agents that run because they were due
        self.looks = 0  # how often it has looked at what is due
        self._stopping = False
        self._changed = anyio.Event()
        self._over = anyio.Event()  # of something that was due
        self._replayer: Replayer | None = None
        self._claimed: list[tuple[Job, Occurrence]] = []  # by an earlier process, and not over
        self._gone_on = False  # with those, and with replays

    def _refuse_mute(self, job: Job) -> None:
        """Raise InputError if a schedule is to publish what an agent gives that is sent a message for it."""
        agent = job.schedule.agent
        if job.schedule.deliver and self._runtime.rooms.terms(agent).persistent:
            msg = f"schedule `{job.schedule.name}` cannot deliver: agent `{agent}` stays, and is sent a message"
            raise InputError(msg, code="schedule.deliver", hint=f'let it `publish("{job.schedule.deliver}", …)` itself')

    async def run(self) -> None:
        """Run what is due until `stop`; then wait for what is at work.

        Raises:
            StoreUnavailable: The books cannot be kept.
        """
        try:
            async with anyio.create_task_group() as tasks:
                if not self._stopping:
                    await self._take_up_agents()
                    tasks.start_soon(self._runtime.carry_out_messages)
                    await self._take_up()
                    self._be_replayer(tasks)
                while not self._stopping:
                    await self._go_on(tasks)
                    now_ns = self._clock.now_ns()
                    for job in self.jobs:
                        await self._run_due(job, now_ns, tasks)
                    self.looks += 1
                    await self._nap(self.next_due_ns(now_ns), now_ns)
        except BaseExceptionGroup as group:
            lost, others = group.split(StoreUnavailable)
            if lost is None or others is not None:
                raise
            raise _first(lost) from group  # each run that needed the store has met it

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping = True
        self._runtime.rests.close()
        self._runtime.dispatch.stop(self._runtime.at_work)
        if self._replayer is not None:
            self._replayer.stopping = True
        self.wake()

    def wake(self) -> None:
        """Look at the clock now."""
        self._changed.set()

    def next_due_ns(self, now_ns: int) -> int | None:
        """When something is due next, in nanoseconds since the epoch; None for never."""
        times = (
            job.schedule.timetable.after(max(now_ns, self._since_ns.get(job.name, now_ns))) for job in self._live()
        )
        return min((at_ns for at_ns in times if at_ns is not None), default=None)

    def _live(self) -> Iterable[Job]:
        return (job for job in self.jobs if job.name not in self._spent)

    async def _nap(self, until_ns: int | None, now_ns: int) -> None:
        self._changed = anyio.Event()
        if self._stopping:
            return
        left_s = MAX_NAP_S if until_ns is None else min(MAX_NAP_S, max(0.0, (until_ns - now_ns) / NS))
        with anyio.move_on_after(left_s):
            await self._changed.wait()

    # --- what is due ----------------------------------------------------------------------------

    async def _go_on(self, tasks: TaskGroup) -> None:
        """Go on with what an earlier process had begun; not while somebody has stopped everything."""
        if self._gone_on or self._runtime.roster.halted:
            return
        self._gone_on = True
        while self._claimed:
            self._begin(*self._claimed.pop(0), tasks)
        await self._take_up_replays()

    async def _take_up(self) -> None:
        """Learn since when each schedule counts, and what was claimed."""
        occurrences, now_ns = self._runtime.rooms.occurrences, self._clock.now_ns()
        jobs = {job.name: job for job in self.jobs}

        def look() -> tuple[tuple[dict[str, int], Sequence[Occurrence]], tuple[Draft, ...]]:
            since: dict[str, int] = {}
            for name, job in jobs.items():
                known_ns = occurrences.take_up_schedule(name, now_ns)
                last = occurrences.last_occurrence(name)
                since[name] = known_ns if last is None else max(known_ns, last.at_ns)
                if job.schedule.one_shot and last is not None and last.state is not OccurrenceState.SKIPPED:
                    self._spent.add(name)
            return (since, occurrences.open_occurrences()), ()

        (self._since_ns, claimed), _ = await self._log.transact(look)
        for occurrence in claimed:
            job = jobs.get(occurrence.schedule)
            if job is None:
                _log.warning(
                    "schedule `%s` is gone; its run `%s` stays as it is", occurrence.schedule, occurrence.run_id
                )
            else:
                self._claimed.append((job, occurrence))

    async def _take_up_agents(self) -> None:
        """Make the agents of the files known, and those that are to stay and never were there.

        Raises:
            InputError: Two files declare one agent.
            StoreUnavailable: The store cannot be used.
        """
        runtime = self._runtime
        for compiled in self._files:
            runtime.rooms.context.declare(compiled)
            for kind in runtime.roster.declare(compiled):
                name = kind.spec.id
                if await self._log.read(partial(runtime.rooms.agents.get_agent, name)) is None:
                    try:
                        await runtime.spawn(Order(compiled, kind.spec))
                    except Denied as denial:
                        _log.warning("agent `%s` is not there: %s", name, denial.code)

    def _be_replayer(self, tasks: TaskGroup) -> None:
        """Be who carries out what letters become."""
        self._replayer = Replayer(
            self._replay,
            self.at_work,
            self._until_over,
            tasks,
            halted=lambda: bool(self._runtime.roster.halted),
            left=self._left,
        )
        self._runtime.take_up = self._replayer.take_up

    def _left(self) -> None:
        """Letters became runs that have not begun when somebody stopped everything: they go on when things do."""
        self._gone_on = False

    async def _take_up_replays(self) -> None:
        """Go on with letters that became runs which nobody has ended."""
        replayer = self._replayer
        assert replayer is not None, "it is there before anything goes on"
        orders = {(absolute(file.file), spec.id): (file, spec) for file in self._files for spec in file.agents}
        for record in await left_open(self._runtime.rooms):
            found = orders.get((record.file, record.declared))
            if found is None:
                _log.warning("nobody has the file of run `%s`, which a dead letter became", record.run_id)
            else:
                replayer.take_up(Begun(Order(*found, record.instance), record.run_id, record))

    async def _until_over(self) -> None:
        await self._over.wait()

    async def _replay(self, begun: Begun) -> None:
        """Carry out what a letter became. What it meets stands with its run.

        Raises:
            StoreUnavailable: The run stays open, and goes on at the next start.
        """
        order = begun.order
        try:
            await self._supervision.see_through(Work(order.compiled, order.spec, begun.run_id, instance=order.instance))
        except StoreUnavailable:
            raise
        except SymbiError as error:
            _log.warning("run `%s`, which a dead letter became: %s", begun.run_id, error.code)

    async def _run_due(self, job: Job, now_ns: int, tasks: TaskGroup) -> None:
        if job.name in self._spent or self._stopping:
            return
        if self._since_ns[job.name] > now_ns + MAX_AHEAD_S * NS:
            await self._set_back(job, now_ns)
        due = owed(job.schedule.timetable, self._since_ns[job.name], now_ns)
        if due is None:
            return
        if due.at_ns == self._ahead_ns.get(job.name):  # it was run then
            self._since_ns[job.name] = due.at_ns
            return
        halted = self._runtime.roster.halted
        busy = job.schedule.agent in self.at_work or bool(halted)
        run_id = RunId("") if busy else RunId(self._runtime.rooms.ids.new())
        state = OccurrenceState.SKIPPED if busy else OccurrenceState.CLAIMED
        reason = f"`{halted}` has stopped everything" if halted else self._busy(job.schedule.agent) if busy else ""
        occurrence = Occurrence(job.name, due.at_ns, run_id, state, reason)

        def claim() -> tuple[None, list[Draft]]:
            self._runtime.rooms.occurrences.put_occurrence(occurrence)
            return None, _drafts(job, due, occurrence)

        await self._log.transact(claim, wait=True)  # however much waits: it is due all the same
        self._since_ns[job.name] = due.at_ns
        if not busy:
            if job.schedule.one_shot:
                self._spent.add(job.name)
            self._begin(job, occurrence, tasks)

    async def _set_back(self, job: Job, now_ns: int) -> None:
        """The clock was far ahead when a schedule was due last: it counts from now on, and the trail says so."""
        ahead_ns = self._since_ns[job.name]
        details: dict[str, JsonValue] = {
            "schedule": job.schedule.name,
            "file": job.compiled.file,
            "missed": 0,
            "reason": f"it was due last at {rfc3339(ahead_ns)}, by a clock that was ahead",
        }
        draft = Draft(AuditEventType.SCHEDULE_SKIPPED, job.schedule.agent, details)
        await self._log.transact(lambda: (None, (draft,)), wait=True)
        self._ahead_ns[job.name], self._since_ns[job.name] = ahead_ns, now_ns

    def _busy(self, agent: AgentId) -> str:
        rests = [rest for rest in self._runtime.rests.of(agent) if rest.state is AgentState.SUSPENDED]
        return (
            f"agent `{agent}` was suspended: {rests[0].error.code}" if rests else f"agent `{agent}` was still at work"
        )

    def _begin(self, job: Job, occurrence: Occurrence, tasks: TaskGroup) -> None:
        self.at_work.add(job.schedule.agent)
        tasks.start_soon(self._carry_out, job, occurrence)

    async def _carry_out(self, job: Job, occurrence: Occurrence) -> None:
        """Carry out an occurrence, and note how it ended; until that is durable, its agent is at work, or suspended."""
        try:
            ended = await self._ended(job, occurrence)
            if ended is not None:
                await self._log.transact(partial(_end, self._runtime.rooms.occurrences, occurrence, ended), wait=True)
        finally:
            self.at_work.discard(job.schedule.agent)
            self._over.set()  # who waits for this agent looks again
            self._over = anyio.Event()

    async def _ended(self, job: Job, occurrence: Occurrence) -> str | None:
        """Carry out the run of an occurrence; returns how it ended, or None where it is held and goes on at the next start.

        Raises:
            StoreUnavailable: The occurrence stays claimed, and its run goes on at the next start.
        """
        spec = next(spec for spec in job.compiled.agents if spec.id == job.schedule.agent)
        if self._runtime.rooms.terms(spec.id).persistent:
            return await self._sent(job, occurrence)
        work = Work(job.compiled, spec, occurrence.run_id, kind=LetterKind.OCCURRENCE)
        try:
            outcome = await self._supervision.see_through(work)
        except StoreUnavailable:
            raise
        except SymbiError as error:
            _log.warning("schedule `%s`: %s", job.schedule.name, error.code)
            if error.code == "input.source_changed":  # of which nothing else says that it does not go on
                changed = InputError(error.message, code=error.code)
                await self._runtime.refuse(Path(job.compiled.file), changed)
                await self._runtime.abandon(occurrence.run_id, changed)
            return error.code
        if outcome.state is RunState.HELD:
            return None
        if outcome.error is None and job.schedule.deliver:
            return await self._deliver(job, work)
        return outcome.state.value if outcome.error is None else outcome.error.code

    async def _deliver(self, job: Job, work: Work) -> str:
        """Publish what a run gave; returns how that ended."""
        try:
            await deliver(self._runtime, work.order, work.run_id, job.schedule.deliver)
        except StoreUnavailable:
            raise
        except SymbiError as error:
            _log.warning("schedule `%s` is not delivered: %s", job.schedule.name, error.code)
            return error.code
        return RunState.FINISHED.value

    async def _sent(self, job: Job, occurrence: Occurrence) -> str | None:
        """An agent that stays is sent a message for it, once: under the id of the run that it is to be."""
        name, sender = job.schedule.agent, f"schedule {job.schedule.name}"
        try:
            await self._runtime.mail.send(name, {}, sender=sender, message_id=occurrence.run_id)
        except StoreUnavailable:
            raise
        except Overloaded as error:
            if self._stopping:
                return None
            return error.code
        except SymbiError as error:
            _log.warning("schedule `%s`: %s", job.schedule.name, error.code)
            return error.code
        return "sent"


def _end(occurrences: OccurrenceStore, occurrence: Occurrence, ended: str) -> tuple[None, tuple[Draft, ...]]:
    """A unit of work: an occurrence is over."""
    occurrences.end_occurrence(occurrence, OccurrenceState.DONE, ended)
    return None, ()


def _first(group: BaseExceptionGroup[StoreUnavailable]) -> StoreUnavailable:
    """The first error of a group, however nested."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _drafts(job: Job, due: Owed, occurrence: Occurrence) -> list[Draft]:
    """What the trail says of an occurrence, and of those that were missed before it."""
    agent = job.schedule.agent
    named: dict[str, JsonValue] = {"schedule": job.schedule.name, "file": job.compiled.file}
    drafts: list[Draft] = []
    if due.missed:
        missed: dict[str, JsonValue] = {"missed": due.missed, "more": due.more, "reason": "nobody ran then"}
        drafts.append(Draft(AuditEventType.SCHEDULE_SKIPPED, agent, named | missed))
    at: dict[str, JsonValue] = {**named, "due_at": rfc3339(due.at_ns)}
    if occurrence.state is OccurrenceState.SKIPPED:
        skipped = {**at, "missed": 1, "reason": occurrence.reason}
        return [*drafts, Draft(AuditEventType.SCHEDULE_SKIPPED, agent, skipped)]
    return [*drafts, Draft(AuditEventType.SCHEDULE_DUE, agent, at, occurrence.run_id)]
