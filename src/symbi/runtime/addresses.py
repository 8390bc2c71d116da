"""Whom a message can be for: the agents that are known here, as they and policies see them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from symbi.agent.messages import Letter
from symbi.agent.run import check_inputs
from symbi.dsl.spec import AgentSpec, CompiledFile
from symbi.errors import InputError, did_you_mean
from symbi.runtime.assessment import assess_agent
from symbi.runtime.course import Course, Order
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.rooms import Rooms, RuntimeConfig
from symbi.types import AgentId, JsonValue, Principal, RunId

PAGE: Final = 1000  # agents of a declaration that are read at once
GONE: Final = frozenset({AgentState.FAILED, AgentState.TERMINATED})


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom a message is for.

    Attributes:
        order: The agent.
        principal: As policies see it.
        stays: It has a mailbox.
    """

    order: Order
    principal: Principal
    stays: bool


class Addresses:
    """The agents that can be addressed.

    Args:
        rooms: What a runtime stands on.
        config: What it is told.

    Attributes:
        course: Where agents work; set once it is there.
        files: The files whose agents are known, beside those of a sender's own file.
    """

    course: Course

    def __init__(self, rooms: Rooms, config: RuntimeConfig) -> None:
        self._rooms = rooms
        self._config = config
        self._log = rooms.world.log
        self.files: list[CompiledFile] = []

    async def find(self, name: AgentId, letter: Letter) -> Recipient:
        """The agent of a name.

        Raises:
            InputError: There is none.
        """
        declared, _, instance = name.partition("/")
        compiled = self._declaring(AgentId(declared), letter.run_id)
        spec = None if compiled is None else next(one for one in compiled.agents if one.id == declared)
        if compiled is None or spec is None:
            msg = f"there is no agent `{declared}`"
            hint = (
                did_you_mean(declared, self._names(letter.run_id))
                or "it must be declared in the same file, or in one of `symbi up`"
            )
            raise InputError(msg, code="message.recipient", hint=hint)
        order = Order(compiled, spec, instance)
        stays = self._rooms.terms(spec.id).persistent
        if stays:
            record = await self._log.read(partial(self._rooms.agents.get_agent, name))
            if record is None or record.state in GONE:
                how = "is not there" if record is None else f"is {record.state.value}"
                raise InputError(f"agent `{name}` {how}", code="message.recipient", hint="`symbi up` makes it")
        elif instance:
            msg = f"agent `{declared}` lives for one run, and has no instances"
            raise InputError(msg, code="message.recipient", hint=f"ask `{declared}`")
        return Recipient(order, self.principal(order, letter.sender), stays)

    def _declaring(self, agent: AgentId, run_id: RunId) -> CompiledFile | None:
        """The file that declares an agent: the sender's own, or one of those that are known here."""
        files = self._files(run_id)
        return next((one for one in files if any(spec.id == agent for spec in one.agents)), None)

    def _names(self, run_id: RunId) -> Sequence[str]:
        return [spec.id for one in self._files(run_id) for spec in one.agents]

    def _files(self, run_id: RunId) -> Iterator[CompiledFile]:
        """The files that are known, that of a run first."""
        order, at_work = self.course.orders.get(run_id), self.course.at_work.get(run_id)
        if order is not None:
            yield order.compiled
        elif at_work is not None and at_work.living is not None:
            yield at_work.living.kind.compiled
        yield from self.files
        yield from (kind.compiled for kind in self.course.roster.kinds.values())

    def principal(self, order: Order, sender: Principal) -> Principal:
        """An agent as policies see it; where it was made of the sender's own declaration, as they see the sender."""
        spec = order.spec
        if spec.id == sender.agent:
            return replace(sender, instance=order.instance)
        _, tier = assess_agent(spec, self._rooms.catalog.servers, self._config.least_tier)
        known = replace(self._rooms.principal(spec.id), instance=order.instance)
        return replace(known, tier=tier.value, capabilities=spec.capabilities or ())

    async def all_of(self, declared: AgentId, letter: Letter) -> list[Recipient]:
        """The agents of a declaration that are there, without the sender."""
        compiled = self._declaring(declared, letter.run_id)
        if compiled is None:
            return []
        spec = next(one for one in compiled.agents if one.id == declared)
        names = await self._log.read(partial(self._made_of, declared))
        orders = [Order(compiled, spec, name.partition("/")[2]) for name in names if name != letter.sender.name]
        return [Recipient(order, self.principal(order, letter.sender), stays=True) for order in orders]

    def _made_of(self, declared: AgentId) -> list[AgentId]:
        """The agents of a declaration that can be sent messages, by name."""
        agents = self._rooms.agents
        own = agents.get_agent(declared)
        found = [] if own is None or own.state in GONE else [declared]
        after = f"{declared}/"
        while True:
            page = agents.agents(None, after, PAGE)
            ours = [one for one in page if one.declared == declared]
            found += [one.agent_id for one in ours if one.state not in GONE]
            if len(ours) < PAGE:
                return found
            after = ours[-1].agent_id


def inputs_of(spec: AgentSpec, body: JsonValue) -> Mapping[str, JsonValue]:
    """What a message says to an agent, by the names of its inputs.

    Raises:
        InputError: It does not fit them.
    """
    if isinstance(body, Mapping):
        inputs = body
    elif len(spec.parameters) == 1:
        inputs = {spec.parameters[0].name: body}
    else:
        takes = ", ".join(f"{one.name}: {one.type.name}" for one in spec.parameters) or "nothing"
        msg = f"agent `{spec.id}` has {len(spec.parameters)} inputs, and the message is no record of them"
        raise InputError(msg, code="input.type", hint=f"it takes {takes}")
    check_inputs(spec, inputs)
    return inputs
