"""The post: how messages get to agents of this process, and answers back.

An agent that stays has a mailbox: a message waits there, durably, under the id of its effect, until the agent carries
it out under that id. An agent that lives for one run takes no messages, and can be asked: then a run of it is begun for
the message, as an instance that bears the message's id, beside all others. A publication is a message to each agent
that listens, under an id that is made of that of its effect.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import anyio

from symbi.agent.messages import Answer, Letter
from symbi.agent.task import check_task
from symbi.audit.event import AuditEventType, Draft
from symbi.bus.topics import Topics
from symbi.errors import Denied, InputError
from symbi.guard.action import PublishMessage, SendMessage, SubscribeTopic, TopicRef
from symbi.guard.confidential import confided, keys_for
from symbi.guard.permit import Permit
from symbi.runtime.addresses import Addresses, Recipient, inputs_of
from symbi.runtime.asking import Questions
from symbi.runtime.course import Order
from symbi.runtime.living import Kind
from symbi.runtime.mail import derived, put_mail, write_mail
from symbi.runtime.mailbox import NOW
from symbi.runtime.rooms import Rooms, RuntimeConfig
from symbi.runtime.sealed_mail import Mail, transact
from symbi.types import AgentId, JsonValue, Principal, RunId

_log = logging.getLogger("symbi.runtime")

NS: Final = 1_000_000_000


class PostOffice:
    """`symbi.agent.messages.Post` of one process.

    Args:
        rooms: What a runtime stands on.
        config: What it is told.

    Attributes:
        addresses: The agents that are known.
        questions: What agents ask agents.
        wake: Told of each agent that has a message, and when it is due; None where nobody carries out what waits in mailboxes.
    """

    def __init__(self, rooms: Rooms, config: RuntimeConfig) -> None:
        self._rooms = rooms
        self._log = rooms.world.log
        self._topics: Topics[AgentId] = Topics()
        self._listens: set[AgentId] = set()
        # Who is to listen by which pattern, if it may, with the policy set that has decided.
        self._wanted: dict[tuple[AgentId, str], tuple[Order, str]] = {}
        self._decided_by = ""  # the policy set that has decided on all of these
        self._deciding = anyio.Lock()
        self.addresses = Addresses(rooms, config)
        self.questions = Questions(rooms, self.addresses, self._tell)
        self.wake: Callable[[AgentId, int], None] | None = None

    async def address(self, action: SendMessage, letter: Letter) -> Principal:
        """The agent that a message is for, which takes it."""
        return (await self._fitting(action, letter)).principal

    async def _fitting(self, action: SendMessage, letter: Letter) -> Recipient:
        """The agent that a message is for.

        Raises:
            InputError: It is not there, or does not take it.
        """
        name = action.to.name
        found = await self.addresses.find(name, letter)
        spec = found.order.spec
        if not found.stays and not action.expects_reply:
            msg = f"agent `{name}` takes no messages: it lives for one run"
            hint = f'ask it, or set `[agents.{spec.id}] mode = "persistent"`'
            raise InputError(msg, code="message.recipient", hint=hint)
        if spec.body is None:
            raise InputError(f"agent `{name}` has nothing to run", code="message.recipient")
        inputs = inputs_of(spec, action.body)
        check_task(spec, letter.task(inputs))
        if action.expects_reply:
            if found.stays and self.wake is None:
                msg = f"agent `{name}` stays, and nobody carries out its messages here"
                raise InputError(msg, code="message.recipient", hint="`symbi up` does")
            await self.questions.refuse_circle(found, letter)
        return found

    async def deliver(self, permit: Permit[SendMessage], letter: Letter) -> None:
        """Put a message into a mailbox, once."""
        authority = self._rooms.world.guard.authority
        found = await self._fitting(authority.check(permit, SendMessage), letter)
        action = authority.redeem(permit, SendMessage)
        due_ns = self._rooms.world.clock.now_ns() + int(action.after_s * NS) if action.after_s else NOW
        mail = await write_mail(self._rooms, found, RunId(permit.effect_id), action.body, letter, due_ns)

        def put() -> tuple[None, tuple[Draft, ...]]:
            put_mail(self._rooms, mail)
            return None, ()

        await transact(self._log, self._rooms.mails, put, wait=True)
        self._tell(found.order.name, due_ns)

    def _tell(self, agent: AgentId, due_ns: int = NOW) -> None:
        if self.wake is not None:
            self.wake(agent, due_ns)

    async def ask(self, permit: Permit[SendMessage], letter: Letter) -> Answer:
        """Have an agent carry out a message, once, and wait for the end."""
        authority = self._rooms.world.guard.authority
        action = authority.check(permit, SendMessage)
        found = await self._fitting(action, letter)
        begin = partial(authority.redeem, permit, SendMessage)
        return await self.questions.ask(found, RunId(permit.effect_id), action.body, letter, begin)

    # --- topics -----------------------------------------------------------------------------------

    def topic(self, name: str) -> TopicRef:
        """A topic as policies know it."""
        return self._rooms.topic(name)

    async def listen(self, kinds: Iterable[Kind]) -> None:
        """Let the agents of declarations listen to what is configured. One that may not does not, and the trail says so.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        for kind in kinds:
            if kind.terms.persistent and kind.terms.topics and kind.spec.id not in self._listens:
                self._listens.add(kind.spec.id)
                for pattern in kind.terms.topics:
                    await self._decide(Order(kind.compiled, kind.spec), pattern)

    async def _decide(self, order: Order, pattern: str) -> None:
        """Let the agents of a declaration listen by a pattern, or not, as policy has it now."""
        self._wanted[order.spec.id, pattern] = order, self._rooms.world.guard.engine.current.version
        try:
            await self.subscribe(order, (pattern,))
        except Denied as denial:
            self._topics.remove(pattern, order.spec.id)
            _log.warning("agent `%s` does not listen to `%s`: %s", order.spec.id, pattern, denial.code)

    async def _decide_anew(self) -> None:
        """Where another policy set is in force than has decided who listens, it decides before anybody hears of anything."""
        engine = self._rooms.world.guard.engine
        async with self._deciding:
            if self._decided_by == (version := engine.current.version):
                return
            for (_, pattern), (order, decided_by) in tuple(self._wanted.items()):
                if decided_by != version:
                    await self._decide(order, pattern)
            self._decided_by = version

    async def subscribe(self, order: Order, patterns: Sequence[str]) -> None:
        """Let the agents of a declaration listen by patterns, if policy permits each.

        Raises:
            PolicyDenied: It does not; those before it count.
        """
        guard = self._rooms.world.guard
        principal = self.addresses.principal(order, Principal(AgentId("")))
        for pattern in patterns:
            action, version = (
                SubscribeTopic(principal=principal, topic=self.topic(pattern)),
                guard.engine.current.version,
            )
            async with guard.enforce(action) as permit:
                guard.authority.redeem(permit, SubscribeTopic)
                self._topics.add(pattern, order.spec.id)
                self._wanted[order.spec.id, pattern] = order, version

    async def publish(self, permit: Permit[PublishMessage], letter: Letter) -> int:
        """Put a message into the mailbox of each agent that listens, once."""
        action = self._rooms.world.guard.authority.redeem(permit, PublishMessage)
        return await self.spread(action.topic.name, action.body, letter, permit.effect_id)

    async def spread(self, topic: str, body: JsonValue, letter: Letter, source: str) -> int:
        """Put a message into the mailbox of each agent that listens to a topic, except the sender's own.

        Args:
            topic: The topic.
            body: What is said.
            letter: Who says it.
            source: What the ids of the messages are made of, with the names of the agents.
        """
        await self._decide_anew()
        mails: list[Mail] = []
        refused: list[Draft] = []
        for declared in sorted(self._topics.listeners(topic)):
            found = await self.addresses.all_of(declared, letter)
            for one in found:
                try:
                    mails.append(await write_mail(self._rooms, one, derived(source, one.order.name), body, letter))
                except InputError as unfit:
                    refused.append(await self._unfit(one, topic, unfit, letter))

        def put() -> tuple[None, list[Draft]]:
            put_mail(self._rooms, *mails)
            return None, refused

        await transact(self._log, self._rooms.mails, put, wait=True)
        for mail in mails:
            self._tell(mail.message.agent_id)
        return len(mails)

    async def _unfit(self, one: Recipient, topic: str, unfit: InputError, letter: Letter) -> Draft:
        details: dict[str, JsonValue] = {
            "resource": one.order.name,
            "topic": topic,
            "code": unfit.code,
            "reason": unfit.message,
        }
        keys = await keys_for(self._rooms.world.guard.vault, letter.sender.agent, letter.whole.subjects, wait=True)
        return confided(Draft(AuditEventType.MESSAGE_REFUSED, letter.sender.name, details, letter.run_id), keys)
